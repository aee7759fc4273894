"""Asks every engine pod, four times a second, whether it sleeps: the engine's own word, read from its metrics.

vLLM says it in `vllm:engine_sleep_state{sleep_state="awake"}`. The door passes `/metrics` in every state.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from dev.demo.evidence import EngineState, Sample

PERIOD: Final = 0.25
POD_PERIOD: Final = 2.0
_AWAKE: Final = re.compile(r'^vllm:engine_sleep_state\{[^}]*sleep_state="awake"[^}]*\} ([0-9.]+)', re.MULTILINE)


class Watcher:
    """Samples in threads of its own, one a pod, between `with` and its end.

    `pods` returns addresses by pod name; memory is what is used above `memory_before`.
    """

    def __init__(self, pods: Callable[[], Mapping[str, str]], memory_before: int = 0) -> None:
        self.samples: list[Sample] = []
        self.peak_memory_bytes = 0
        self._pods = pods
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._follow_pods, name="watcher", daemon=True)]
        self._memory_before = memory_before

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=30)
        self.samples.sort(key=lambda sample: sample.at)

    def _follow_pods(self) -> None:
        """Start a thread for each pod that appears, so that one which does not answer delays no look at the others."""
        known: set[str] = set()
        while not self._end.is_set():
            for pod, address in self._pods().items():
                if pod not in known:
                    known.add(pod)
                    thread = threading.Thread(target=self._follow, args=(pod, address), daemon=True)
                    self._threads.append(thread)
                    thread.start()
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory_in_use() - self._memory_before)
            self._end.wait(POD_PERIOD)

    def _follow(self, pod: str, address: str) -> None:
        with httpx.Client(timeout=2.0, trust_env=False) as http:
            while not self._end.wait(PERIOD):
                state = _ask(http, address)
                self.samples.append(Sample(time.time(), pod, state))


def _ask(http: httpx.Client, address: str) -> EngineState:
    try:
        answer = http.get(f"http://{address}:8000/metrics")
    except httpx.HTTPError:
        return EngineState.AWAY
    found = _AWAKE.search(answer.text)
    if answer.status_code != 200 or found is None:
        return EngineState.AWAY
    return EngineState.AWAKE if float(found[1]) else EngineState.ASLEEP


def memory_in_use() -> int:
    """Bytes that this machine's processes use."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return (total - available) * 1024
