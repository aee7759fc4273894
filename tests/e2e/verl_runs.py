"""Real verl for tests: an environment with it, tiny models, and a run watched to its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from dev.bootstrap import ensure_layer
from dev.grpo import GrpoRun, command

RUN_SECONDS = 600


@pytest.fixture(scope="session")
def verl_python() -> Path:
    """Python of an environment with verl, our wheel and the CPU shim; GENRM_VERL_PYTHON names another one."""
    given = os.environ.get("GENRM_VERL_PYTHON")
    return Path(given) if given else ensure_layer("verl-cpu")


@pytest.fixture(scope="session")
def models(verl_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([verl_python, "-m", "dev.models", root], check=True, timeout=300)
    return root


async def run_to_end(run: GrpoRun) -> tuple[int, str]:
    """Exit status and output of a run; the output is also in its folder, which must exist."""
    arguments, environment = command(run, os.environ)
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=run.work, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await asyncio.to_thread((run.work / "output.log").write_bytes, output)
    return process.returncode or 0, output.decode(errors="replace")
