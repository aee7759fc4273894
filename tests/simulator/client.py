"""Start the simulator as a process of its own, and speak to its control API."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.simulator.holds import When

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Simulator:
    """A running simulator. Every address of this machine is a pod of it, at `port`."""

    port: int
    control: str
    _http: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=30, trust_env=False, verify=False), repr=False, compare=False
    )

    def pod(self, address: str) -> dict[str, Any]:
        return self._call("GET", address)

    def pods(self) -> dict[str, Any]:
        return self._call("GET", "")

    def put(
        self, address: str, *, settings: dict[str, str] | None = None, faults: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        parts = {"settings": settings, "faults": faults}
        return self._call("PUT", address, {name: part for name, part in parts.items() if part is not None})

    def collisions(self) -> list[list[str]]:
        """Addresses of pods that had their memory up together on the same GPUs."""
        answer = self._http.get(f"http://{self.control}/collisions")
        answer.raise_for_status()
        found: list[list[str]] = answer.json()
        return found

    def hold(self, address: str, call: str, when: When, skip: int = 0) -> None:
        """Hold one call to a pod, the first of this name after `skip` others, until `let_go`."""
        self._call("PUT", f"{address}/hold", {"call": call, "when": str(when), "skip": skip})

    def let_go(self, address: str) -> None:
        self._call("DELETE", f"{address}/hold")

    def past_the_door(self, address: str, method: str, path: str) -> int:
        """Call a pod's engine as somebody in its container could; its status."""
        answer = self._call("POST", f"{address}/engine", {"method": method, "path": path})
        return int(answer["status"])

    def forget(self, address: str) -> None:
        self._call("DELETE", address)

    def _call(self, method: str, address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        path = f"/pods/{address}" if address else "/pods"
        answer = self._http.request(method, f"http://{self.control}{path}", json=body)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


def free_port() -> int:
    """A port nobody listens on, for processes that cannot take a free one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(*arguments: str, port: int = 0) -> Iterator[Simulator]:
    """A simulator for the time of a `with` block."""
    command = [sys.executable, "-m", "tests.simulator", "--port", str(port), "--control", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # ends with the process, if that does
        if not line.startswith("ready "):
            raise RuntimeError(f"the simulator did not start: {line!r}, exit status {process.wait(10)}")
        words = dict(word.split("=", 1) for word in line.split()[1:])
        yield Simulator(int(words["pods"].rpartition(":")[2]), words["control"])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
