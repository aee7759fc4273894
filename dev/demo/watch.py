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
    """Samples in a thread of its own between `with` and its end. `pods` returns the addresses by pod name."""

    def __init__(self, pods: Callable[[], Mapping[str, str]]) -> None:
        self.samples: list[Sample] = []
        self.peak_memory_bytes = 0
        self._pods = pods
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._memory_before = _memory_in_use()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        addresses: Mapping[str, str] = {}
        listed = 0.0
        with httpx.Client(timeout=2.0, trust_env=False) as http:
            while not self._end.wait(PERIOD):
                if time.monotonic() - listed > POD_PERIOD:
                    addresses, listed = self._pods(), time.monotonic()
                for pod, address in addresses.items():
                    state = _ask(http, address)
                    self.samples.append(Sample(time.time(), pod, state))
                self.peak_memory_bytes = max(self.peak_memory_bytes, _memory_in_use() - self._memory_before)


def _ask(http: httpx.Client, address: str) -> EngineState:
    try:
        answer = http.get(f"http://{address}:8000/metrics")
    except httpx.HTTPError:
        return EngineState.AWAY
    found = _AWAKE.search(answer.text)
    if answer.status_code != 200 or found is None:
        return EngineState.AWAY
    return EngineState.AWAKE if float(found[1]) else EngineState.ASLEEP


def _memory_in_use() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return (total - available) * 1024
