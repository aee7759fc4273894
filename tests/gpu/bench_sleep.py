"""What the engine's sleep gives back, how long a wake takes, and whether it says the same after it: `make bench-sleep`.

Starts engines by themselves, without Kubernetes, so that it runs on a machine that has a GPU and nothing else. For each
model and each level of sleep: device memory asleep and awake, seconds of sleep and wake, and how far the answers to
fixed texts move over many wakes, alone and in a batch. That spread is what the canary's tolerance has to hold.

On a machine without a GPU all of it runs too, and memory is "not measurable". Needs the Python of an environment with
the engine (GENRM_VLLM_PYTHON, GENRM_SGLANG_PYTHON, or those that `make test` builds) and, for anything worth knowing,
real models:

    GENRM_VLLM_PYTHON=python3 make bench-sleep ARGS="--engines vllm --generative Qwen/Qwen3-0.6B --classifier Skywork/…"
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import httpx

from tests.gpu.served import ENGINES, Engine, has_gpu, running

REPEATS: Final = 5
"""Answers before the first sleep: how far they differ without one."""
BATCHES: Final = (1, 64)


@dataclass
class Row:
    """Bytes are the device's own count; `None` where nobody counts them."""

    model: str
    level: int
    freed: int | None = None
    residue: int | None = None
    sleep_seconds: list[float] = field(default_factory=list)
    wake_seconds: list[float] = field(default_factory=list)
    spread: dict[int, float] = field(default_factory=dict)
    """By batch: the largest distance from the first answer, over all wakes."""
    before: dict[int, float] = field(default_factory=dict)
    """The same without any sleep."""
    problem: str = ""


def device_bytes() -> int | None:
    """Memory in use on all GPUs together."""
    if not has_gpu():
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    return sum(map(int, found.stdout.split())) * 1024**2 if found.returncode == 0 else None


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def nights(engine: Engine, name: str, level: int, wakes: int) -> Row:
    row = Row(name, level)
    first = {batch: engine.answer(batch) for batch in BATCHES}
    for batch in BATCHES:
        row.before[batch] = max(distance(first[batch], engine.answer(batch)) for _ in range(REPEATS))
    row.spread = dict.fromkeys(BATCHES, 0.0)
    for _ in range(wakes):
        awake = device_bytes()
        row.sleep_seconds.append(timed(lambda: engine.give(engine.sleep(level))))
        asleep = device_bytes()
        if awake is not None and asleep is not None:
            row.freed, row.residue = awake - asleep, asleep
        row.wake_seconds.append(timed(lambda: engine.give(engine.wake(level))))
        for batch in BATCHES:
            row.spread[batch] = max(row.spread[batch], distance(first[batch], engine.answer(batch)))
    return row


def timed(what: Callable[[], None]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def table(rows: Sequence[Row]) -> str:
    head = "| model | level | freed | left | sleep, median s | wake, median s | spread at 1, 64 (without a sleep) |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *map(_line, rows)])


def _line(row: Row) -> str:
    if row.problem:
        return f"| {row.model} | {row.level} | {row.problem} | | | | |"
    spread = ", ".join(f"{row.spread[b]:.2g} ({row.before[b]:.2g})" for b in BATCHES)
    seconds = [f"{statistics.median(s):.2f}" for s in (row.sleep_seconds, row.wake_seconds)]
    return (
        f"| {row.model} | {row.level} | {_size(row.freed)} | {_size(row.residue)} | {' | '.join(seconds)} | {spread} |"
    )


def _size(count: int | None) -> str:
    return "not measurable" if count is None else f"{count / 1024**3:.2f} GiB"


def main() -> int:
    parser = argparse.ArgumentParser(description="What an engine's sleep gives back.")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=[*ENGINES])
    parser.add_argument("--generative", help="a model; default: a tiny one of random weights")
    parser.add_argument("--classifier", help="the same, for a pooling runner")
    parser.add_argument("--levels", type=int, nargs="*", default=[1, 2], help="of those that the engine has")
    parser.add_argument("--wakes", type=int, default=20)
    parser.add_argument("--arguments", default="", help="more for the server")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    generative, classifier = given.generative, given.classifier
    if generative is None or classifier is None:
        from tests.e2e.contract.servers import tiny_models

        tiny = tiny_models()
        generative, classifier = generative or str(tiny.judge), classifier or str(tiny.classifier)
    rows = []
    for engine_name in given.engines:
        kind, python = ENGINES[engine_name], _python(engine_name)
        for model, is_classifier in ((generative, False), (classifier, True)):
            name = f"{engine_name}, {Path(model).name}{', pooling' if is_classifier else ''}"
            for level in (level for level in given.levels if level in kind.levels):
                with tempfile.TemporaryDirectory(prefix="genrm-sleep-") as work:
                    try:
                        more = given.arguments.split()
                        with running(kind, python, model, is_classifier, more, Path(work)) as engine:
                            rows.append(nights(engine, name, level, given.wakes))
                    except (RuntimeError, httpx.HTTPError) as e:
                        rows.append(Row(name, level, problem=str(e).strip().splitlines()[-1][:160]))
                print(_line(rows[-1]), flush=True)
    print(f"\n{table(rows)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if any(row.problem for row in rows) else 0


def _python(engine: str) -> str:
    if (named := os.environ.get(f"GENRM_{engine.upper()}_PYTHON")) is not None:
        return named
    from dev.bootstrap import ensure_env

    return str(ensure_env({"vllm": "engine-cpu", "sglang": "sglang-cpu"}[engine]) / "bin" / "python")


if __name__ == "__main__":
    sys.exit(main())
