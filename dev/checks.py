"""What a machine can check without running the product: format, lint, types, import contracts, generated files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from genrm_api import crd
from genrm_operator import metrics

from dev import dashboards, lock, reference
from dev.bootstrap import ROOT

GENERATED = ("crds", "charts/genrm-operator/files/crds")


def tool(*arguments: str) -> Callable[[], str | None]:
    """A check that runs a module of this environment and fails with what it prints."""

    def check() -> str | None:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
        return None if done.returncode == 0 else done.stdout + done.stderr

    return check


def import_contracts(root: Path = ROOT) -> str | None:
    """Those of pyproject.toml. The tool is a command without a module: `python -m importlinter.cli` does nothing."""
    run = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    paths = os.pathsep.join(str(root / folder) for folder in ("crds", "operator", "verl_plugin"))
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return None if done.returncode == 0 else done.stdout + done.stderr


def generated_files_are_current() -> str | None:
    with tempfile.TemporaryDirectory() as fresh:
        crd.main([fresh])
        stale = [
            f"{folder}/{made.name}"
            for folder in GENERATED
            for made in Path(fresh).iterdir()
            if not (ROOT / folder / made.name).exists() or (ROOT / folder / made.name).read_text() != made.read_text()
        ]
    return f"out of date: {', '.join(stale)}; run `make generate` and commit" if stale else None


def pages_are_current() -> str | None:
    wanted = {Path("docs/reference/metrics.md"): metrics.page()}
    wanted |= {Path("docs/reference") / name: text for name, text in reference.pages().items()}
    wanted |= {Path("charts/genrm-operator/dashboards") / name: text for name, text in dashboards.files().items()}
    stale = [
        str(file) for file, text in wanted.items() if not (ROOT / file).exists() or (ROOT / file).read_text() != text
    ]
    return f"out of date: {', '.join(stale)}; run `make generate` and commit" if stale else None


CHECKS: Sequence[tuple[str, Callable[[], str | None]]] = (
    ("format", tool("ruff", "format", "--check", ".")),
    ("lint", tool("ruff", "check", ".")),
    ("types", tool("mypy")),
    ("import contracts", import_contracts),
    ("generated files", generated_files_are_current),
    ("reference pages and dashboards", pages_are_current),
    ("pins", lock.problems),
)


def main() -> int:
    failed = 0
    for name, check in CHECKS:
        began = time.monotonic()
        problem = check()
        print(f"{'ok  ' if problem is None else 'FAIL'} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        if problem is not None:
            print(problem, flush=True)
            failed += 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
