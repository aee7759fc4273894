"""What the engine's sleep gives back, how long a wake takes, and whether it says the same after it: `make bench-sleep`.

Starts vLLM by itself, without Kubernetes, so that it runs on a machine that has a GPU and nothing else. For each model
and each level of sleep: device memory asleep and awake, seconds of sleep and wake, and how far the answers to fixed
texts move over many wakes, alone and in a batch. That spread is what the canary's tolerance has to hold.

On a machine without a GPU all of it runs too, and memory is "not measurable". Needs the Python of an environment with
vLLM (GENRM_VLLM_PYTHON, or the one that `make test` builds) and, for anything worth knowing, real models:

    GENRM_VLLM_PYTHON=python3 make bench-sleep ARGS="--generative Qwen/Qwen3-0.6B --classifier Skywork/…"
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.simulator.client import free_port

START_SECONDS: Final = 600.0
REPEATS: Final = 5
"""Answers before the first sleep: how far they differ without one."""
BATCHES: Final = (1, 64)
TEXTS: Final = [f"Question {i}: what is {i} times {i + 3}? " + "Think about it step by step. " * 16 for i in range(64)]
RELOADS: Final = (
    "/wake_up?tags=weights",
    "/collective_rpc",
    "/wake_up?tags=kv_cache",
    "/reset_prefix_cache",
)
"""How a level that dropped the weights wakes."""


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
    """Memory in use on the first GPU."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    return int(found.stdout) * 1024**2 if found.returncode == 0 else None


class Engine:
    def __init__(self, url: str, classifier: bool) -> None:
        self._http = httpx.Client(base_url=url, timeout=300, trust_env=False)
        self._classifier = classifier

    def healthy(self) -> bool:
        try:
            return self._http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def order(self, path: str) -> None:
        body = {"method": "reload_weights"} if path == "/collective_rpc" else None
        reply = self._http.post(path, json=body)
        if reply.status_code != 200:
            raise RuntimeError(f"{path}: {reply.status_code} {reply.text[:200]}")

    def answer(self, batch: int) -> tuple[float, ...]:
        """What it says of the first text, beside `batch` - 1 others at the same time."""
        with concurrent.futures.ThreadPoolExecutor(batch) as pool:
            return next(iter(pool.map(self._value, TEXTS[:batch])))

    def _value(self, text: str) -> tuple[float, ...]:
        salt = str(time.monotonic_ns())  # no answer from a cache
        if self._classifier:
            body = {"model": "m", "input": text, "use_activation": False, "cache_salt": salt}
            return tuple(float(p) for p in self._asked("/classify", body)["data"][0]["probs"])
        body = {"model": "m", "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        _, *tokens = self._asked("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        return tuple(float(next(iter(token.values()))["logprob"]) for token in tokens)

    def _asked(self, path: str, body: dict[str, Any]) -> Any:
        reply = self._http.post(path, json=body)
        reply.raise_for_status()
        return reply.json()


@contextmanager
def running(python: str, model: str, classifier: bool, arguments: Sequence[str], work: Path) -> Iterator[Engine]:
    port, log = free_port(), work / "server.log"
    kind = ["--runner", "pooling", "--convert", "classify"] if classifier else []
    named = ["--model", model, "--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1"]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *named, *kind, "--enable-sleep-mode", *arguments]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        engine, deadline = Engine(f"http://127.0.0.1:{port}", classifier), time.monotonic() + START_SECONDS
        while not engine.healthy():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come up:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield engine
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


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
        row.sleep_seconds.append(timed(lambda: engine.order(f"/sleep?level={level}")))
        asleep = device_bytes()
        if awake is not None and asleep is not None:
            row.freed, row.residue = awake - asleep, asleep
        row.wake_seconds.append(timed(lambda: wake(engine, level)))
        for batch in BATCHES:
            row.spread[batch] = max(row.spread[batch], distance(first[batch], engine.answer(batch)))
    return row


def wake(engine: Engine, level: int) -> None:
    for path in ("/wake_up",) if level == 1 else RELOADS:
        engine.order(path)


def timed(what: Any) -> float:
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
    parser.add_argument("--generative", help="a model; default: a tiny one of random weights")
    parser.add_argument("--classifier", help="the same, for a pooling runner")
    parser.add_argument("--levels", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--wakes", type=int, default=20)
    parser.add_argument("--arguments", default="--enforce-eager --max-model-len 2048", help="more for the server")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    python, generative, classifier = os.environ.get("GENRM_VLLM_PYTHON"), given.generative, given.classifier
    if python is None or generative is None or classifier is None:
        from dev.bootstrap import ensure_env
        from tests.e2e.contract.servers import tiny_models

        python = python or str(ensure_env("engine-cpu") / "bin" / "python")
        tiny = tiny_models()
        generative, classifier = generative or str(tiny.judge), classifier or str(tiny.classifier)
    rows = []
    for model, is_classifier in ((generative, False), (classifier, True)):
        name = f"{Path(model).name}{', pooling' if is_classifier else ''}"
        for level in given.levels:
            with tempfile.TemporaryDirectory(prefix="genrm-sleep-") as work:
                try:
                    with running(python, model, is_classifier, given.arguments.split(), Path(work)) as engine:
                        rows.append(nights(engine, name, level, given.wakes))
                except (RuntimeError, httpx.HTTPError) as e:
                    rows.append(Row(name, level, problem=str(e).strip().splitlines()[-1][:160]))
            print(_line(rows[-1]), flush=True)
    print(f"\n{table(rows)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0 if any(not row.problem for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
