"""Everything that the demo and the tests stand on, made once and kept: `python -m dev.prepare`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from dev.apt import AptError, ensure_apt
from dev.bootstrap import ROOT, ensure_env, ensure_layer, env_path
from dev.cache import LockTimeout, cache_root
from dev.cluster import ClusterError, toolchain
from dev.images.rootfs import RootfsError
from dev.models import Layout
from dev.our_images import OPERATOR, ImageError
from dev.steps import Steps

T = TypeVar("T")
PREPARATION_ERRORS = (AptError, ClusterError, RootfsError, ImageError, LockTimeout)
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

    The cluster's programs are compiled, environments and the operator's image are downloads and copies for the most
    part, so that both go on at once.

    Args:
        also: more environments that the caller needs.
    """
    with steps.step("Debian packages") as notes:
        installed = ensure_apt()
        notes.append(f"installed {' '.join(installed)}" if installed else "cached")
    with ThreadPoolExecutor(1) as pool:
        names = ("verl-cpu", "engine-cpu", *also)
        cached = {name: (env_path(name) / ".complete").exists() for name in names}
        made = {name: pool.submit(_timed, partial(ensure_env, name)) for name in names}
        building = pool.submit(_timed, OPERATOR.build)
        toolchain.build(steps.done)
        toolchain.build(steps.done, toolchain.CHART_TOOLS)
        for name, future in made.items():
            _, seconds = future.result()
            steps.done(f"environment {name}", seconds, cached[name])
        (image, archive), seconds = building.result()
        steps.done("operator image", seconds, seconds < 1)
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
    with steps.step("all of it on the disk"):
        os.sync()  # gigabytes on their way hold up whoever writes next: an API server that stores for tens of seconds
    return Prepared(verl, engine, Layout(folder), image, archive)


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    began = time.monotonic()
    return make(), time.monotonic() - began


def main() -> None:
    console = Console()
    console.print("Preparing (kept in ~/.cache/genrm):")
    try:
        prepare(Steps(console), also=("sglang-cpu", "router"))  # tests alone need these
    except PREPARATION_ERRORS as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
