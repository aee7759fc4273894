"""A package that looks like verl to Hydra and to our plugin: its configuration files and an entry point that reports.

`python -m verl.trainer.main_ppo` prints the configuration it was given as one JSON line, and then does what
FAKE_TRAINER says: end, raise, or wait for a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAIN = """
import json, os, sys, time
import hydra
from omegaconf import OmegaConf
import verl

@hydra.main(config_path="config", config_name="ppo_trainer", version_base=None)
def main(config):
    print(json.dumps(OmegaConf.to_container(config)), flush=True)
    match os.environ.get("FAKE_TRAINER"):
        case "raise":
            raise RuntimeError("the trainer failed")
        case "wait":
            while True:  # not pause(): a signal that comes just before it would be waited for for ever
                time.sleep(0.05)

main()
"""

_PPO_TRAINER = """
defaults:
  - legacy_reward_impl
  - _self_
data: {train_files: null}
reward:
  num_workers: 8
  custom_reward_function: {path: null, name: compute_score}
  reward_manager: {source: register, name: naive, module: {path: null, name: custom_reward_manager}}
  reward_model: {enable: false}
trainer: {experiment_name: gsm8k, default_local_dir: checkpoints, use_v1: true, v1: {trainer_mode: sync}}
ray_kwargs: {ray_init: {num_cpus: null}}
"""

_LEGACY = """
custom_reward_function: {path: null, name: null}
reward_model: {num_workers: null, reward_manager: null, enable: null, model: {path: null}, rollout: {name: null}}
sandbox_fusion: {url: null}
"""


def install(root: Path) -> Path:
    """Write the package below `root`; return what to put on PYTHONPATH."""
    package = root / "fake" / "verl"
    config = package / "trainer" / "config"
    config.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "trainer" / "__init__.py").write_text("")
    (package / "trainer" / "main_ppo.py").write_text(_MAIN)
    (config / "ppo_trainer.yaml").write_text(_PPO_TRAINER)
    (config / "legacy_reward_impl.yaml").write_text(_LEGACY)
    return root / "fake"


@dataclass(slots=True)
class Program:
    """A started `main_ppo`."""

    process: asyncio.subprocess.Process

    async def config(self) -> dict[str, Any]:
        """What the trainer was given; waits for it."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        if not line:
            code, _, errors = await self.end()
            raise AssertionError(f"ended with {code} before training: {errors}")
        config: dict[str, Any] = json.loads(line)
        return config

    async def interrupt(self) -> None:
        """Ctrl-C, as often as it takes: Python drops a KeyboardInterrupt that comes while it collects garbage."""
        async with asyncio.timeout(90):  # each may fall into such a moment, where the machine is busy
            while self.process.returncode is None:
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.process.wait(), 1)

    async def end(self) -> tuple[int, str, str]:
        """Exit status, output and errors; waits for them."""
        out, errors = await asyncio.wait_for(self.process.communicate(), 30)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), errors.decode()


@asynccontextmanager
async def started(tmp_path: Path, *overrides: str, path: str = "", **environment: str) -> AsyncIterator[Program]:
    """Start `python -m verl.trainer.main_ppo <overrides>`; `path` comes first on PYTHONPATH."""
    root = tmp_path / "fake" if (tmp_path / "fake").exists() else install(tmp_path)
    search = os.pathsep.join(p for p in (path, str(root), os.environ.get("PYTHONPATH", "")) if p)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "verl.trainer.main_ppo", *overrides, f"hydra.run.dir={tmp_path / 'out'}",
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": search, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
