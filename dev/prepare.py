"""Everything that the demo and the tests stand on, made once and kept: `python -m dev.prepare`."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dev import operator_image
from dev.apt import AptError, ensure_apt
from dev.bootstrap import ROOT, ensure_env, ensure_layer, env_path
from dev.cache import LockTimeout, cache_root
from dev.cluster import ClusterError, toolchain
from dev.images.rootfs import RootfsError
from dev.models import Layout
from dev.steps import Steps

PREPARATION_ERRORS = (AptError, ClusterError, RootfsError, operator_image.ImageError, LockTimeout)
"""What `prepare` may raise; each message says what to do."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`verl` is the Python that has verl and our wheel, `engine` the environment that the vLLM image is made of."""

    verl: Path
    engine: Path
    models: Layout
    operator_image: str
    operator_archive: Path


def models_folder() -> Path:
    """Where the tiny models lie, keyed by what makes them."""
    recipe = (ROOT / "dev" / "models" / "tiny.py").read_bytes() + (ROOT / "requirements" / "verl-cpu.txt").read_bytes()
    return cache_root() / "models" / hashlib.sha256(recipe).hexdigest()[:12]


def prepare(steps: Steps, also: Sequence[str] = ()) -> Prepared:
    """Make what is missing; everything is in the cache after the first call.

    Environments are downloads for the most part, and the cluster's programs are compiled, so that both go on at once.

    Args:
        also: more environments that the caller needs.
    """
    with steps.step("Debian packages") as notes:
        installed = ensure_apt()
        notes.append(f"installed {' '.join(installed)}" if installed else "cached")
    with ThreadPoolExecutor(1) as pool:
        names = ("verl-cpu", "engine-cpu", *also)
        cached = {name: (env_path(name) / ".complete").exists() for name in names}
        made = {name: pool.submit(_timed, name) for name in names}
        toolchain.build(steps.done)
        toolchain.build(steps.done, toolchain.CHART_TOOLS)
        for name, future in made.items():
            _, seconds = future.result()
            steps.done(f"environment {name}", seconds, cached[name])
    engine = made["engine-cpu"].result()[0]
    with steps.step("our wheel, for verl"):
        verl = ensure_layer("verl-cpu")
    with steps.step("tiny models") as notes:
        folder = models_folder()
        if (folder / "version").exists():
            notes.append("cached")
        else:
            done = subprocess.run(
                [verl, "-m", "dev.models", folder], cwd=ROOT, capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise SystemExit(f"dev.models: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    with steps.step("operator image") as notes:
        began = time.monotonic()
        image, archive = operator_image.build()
        notes.append(image if time.monotonic() - began > 1 else "cached")
    return Prepared(verl, engine, Layout(folder), image, archive)


def _timed(environment: str) -> tuple[Path, float]:
    began = time.monotonic()
    return ensure_env(environment), time.monotonic() - began


def main() -> None:
    console = Console()
    console.print("Preparing (kept in ~/.cache/genrm):")
    try:
        prepare(Steps(console), also=("sglang-cpu", "router"))  # tests alone need these
    except PREPARATION_ERRORS as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
