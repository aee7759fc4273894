"""Engines as the operator starts and orders them, without Kubernetes and without a door: vLLM and SGLang.

On a GPU they run with the arguments that give memory back; a CPU has none to give, where vLLM refuses the argument and
sleeps all the same, and SGLang needs the stand-ins of `dev.sglang_cpu`.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.simulator.client import free_port

START_SECONDS: Final = 600.0
TEXTS: Final = [f"Question {i}: what is {i} times {i + 3}? " + "Think about it step by step. " * 16 for i in range(64)]
TAGS: Final = ["kv_cache", "weights"]


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


@dataclass(frozen=True)
class Order:
    path: str
    body: Mapping[str, Any] | None = None


class Engine:
    """One that listens; what the engines have in common."""

    name = ""
    levels: Sequence[int] = ()

    def __init__(self, url: str, classifier: bool) -> None:
        self._http = httpx.Client(base_url=url, timeout=300, trust_env=False)
        self._classifier = classifier

    @classmethod
    def command(cls, python: str, model: str, port: int, classifier: bool) -> tuple[list[str], dict[str, str]]:
        """How it is started: arguments, and what the environment gets."""
        raise NotImplementedError

    def sleep(self, level: int) -> Sequence[Order]:
        raise NotImplementedError

    def wake(self, level: int) -> Sequence[Order]:
        raise NotImplementedError

    def value(self, text: str) -> tuple[float, ...]:
        """What it computes of a text: log-probabilities of its tokens, or a classifier's numbers."""
        raise NotImplementedError

    def healthy(self) -> bool:
        with suppress(httpx.TransportError):
            return self._http.get("/health").status_code == 200
        return False

    def give(self, orders: Sequence[Order]) -> None:
        """
        Raises:
            RuntimeError: one is refused.
        """
        for order in orders:
            reply = self._http.post(order.path, json=order.body)
            if reply.status_code != 200:
                raise RuntimeError(f"{order.path}: {reply.status_code} {reply.text[:200]}")

    def answer(self, batch: int) -> tuple[float, ...]:
        """What it says of the first text, beside `batch` - 1 others at the same time."""
        with concurrent.futures.ThreadPoolExecutor(batch) as pool:
            return next(iter(pool.map(self.value, TEXTS[:batch])))

    def asked(self, path: str, body: Mapping[str, Any]) -> Any:
        reply = self._http.post(path, json=body)
        reply.raise_for_status()
        return reply.json()


class Vllm(Engine):
    """Level 1 keeps the weights in the host's memory; level 2 drops them and reads them again."""

    name, levels = "vllm", (1, 2)

    @classmethod
    def command(cls, python: str, model: str, port: int, classifier: bool) -> tuple[list[str], dict[str, str]]:
        kind = ["--runner", "pooling", "--convert", "classify"] if classifier else []
        sleeps = ["--enable-sleep-mode"] if has_gpu() else []
        named = ["--model", model, "--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1"]
        few = ["--enforce-eager", "--max-model-len", "2048"]
        command = [python, "-m", "vllm.entrypoints.openai.api_server", *named, *kind, *sleeps, *few]
        room = {} if has_gpu() else {"VLLM_CPU_KVCACHE_SPACE": "1"}
        return command, {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", **room}

    def sleep(self, level: int) -> Sequence[Order]:
        # A pooling runner goes on with requests whose clients hung up, and dies of a sleep in mode abort meanwhile.
        return [Order(f"/sleep?level={level}{'&mode=wait' if self._classifier else ''}")]

    def wake(self, level: int) -> Sequence[Order]:
        if level == 1:
            return [Order("/wake_up")]
        reload = Order("/collective_rpc", {"method": "reload_weights"})
        return [Order("/wake_up?tags=weights"), reload, Order("/wake_up?tags=kv_cache"), Order("/reset_prefix_cache")]

    def value(self, text: str) -> tuple[float, ...]:
        salt = str(time.monotonic_ns())  # no answer from a cache
        if self._classifier:
            body = {"model": "m", "input": text, "use_activation": False, "cache_salt": salt}
            return tuple(float(p) for p in self.asked("/classify", body)["data"][0]["probs"])
        body = {"model": "m", "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        _, *tokens = self.asked("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        return tuple(float(next(iter(token.values()))["logprob"]) for token in tokens)


class Sglang(Engine):
    """It has one level: the weights are kept in the host's memory."""

    name, levels = "sglang", (1,)

    @classmethod
    def command(cls, python: str, model: str, port: int, classifier: bool) -> tuple[list[str], dict[str, str]]:
        named = ["--model-path", model, "--served-model-name", "m", "--port", str(port), "--host", "127.0.0.1"]
        kind = ["--is-embedding"] if classifier else []
        saves = ["--enable-memory-saver", "--enable-weights-cpu-backup"]
        command = [python, "-m", "sglang.launch_server", *named, *saves, *kind, "--context-length", "2048"]
        if has_gpu():
            return command, {}
        from dev import sglang_cpu

        return [*command, "--device", "cpu", *sglang_cpu.ARGUMENTS], dict(sglang_cpu.ENVIRONMENT)

    def sleep(self, level: int) -> Sequence[Order]:
        pause = Order("/pause_generation", {"mode": "abort"})
        return [pause, Order("/release_memory_occupation", {"tags": TAGS})]

    def wake(self, level: int) -> Sequence[Order]:
        return [Order("/resume_memory_occupation", {"tags": TAGS}), Order("/continue_generation", {})]

    def value(self, text: str) -> tuple[float, ...]:
        if self._classifier:
            row = self.asked("/classify", {"text": text})
            return tuple(float(x) for x in (row[0] if isinstance(row, list) else row)["embedding"])
        how = {"sampling_params": {"temperature": 0, "max_new_tokens": 1}, "return_logprob": True}
        found = self.asked("/generate", {"text": text, **how, "logprob_start_len": 0})
        _, *tokens = found["meta_info"]["input_token_logprobs"]
        return tuple(float(token[0]) for token in tokens)


ENGINES: Final[Mapping[str, type[Engine]]] = {kind.name: kind for kind in (Vllm, Sglang)}


@contextmanager
def running(
    kind: type[Engine], python: str, model: str, classifier: bool, more: Sequence[str], work: Path
) -> Iterator[Engine]:
    """
    Raises:
        RuntimeError: it does not come up; with the end of what it said.
    """
    port, log = free_port(), work / "server.log"
    command, environment = kind.command(python, model, port, classifier)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *more], cwd=work, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        engine, deadline = kind(f"http://127.0.0.1:{port}", classifier), time.monotonic() + START_SECONDS
        while not engine.healthy():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not come up:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield engine
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
            return
