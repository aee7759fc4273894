"""What the benchmarks share: a cluster of fake nodes with our chart, operators as processes, watches, figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dev.cluster import Cluster
from tests.cluster.api import Api
from tests.cluster.conftest import SYSTEM, Operator, install_chart, prepare_operator

NAMESPACE: Final = "bench"
MODELS: Final = f"/apis/genrm.dev/v1alpha1/namespaces/{NAMESPACE}/rewardmodels"


@dataclass
class Figure:
    name: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: ""}[self.met]
        return f"{self.name:<58} {self.value:>10.2f} {self.unit:<10} {self.aim:<14} {word}"


@dataclass(kw_only=True)
class Figures:
    figures: list[Figure] = field(default_factory=list)

    def note(self, name: str, value: float, unit: str, most: float | None = None, least: float | None = None) -> None:
        aim, met = "", None
        if most is not None:
            aim, met = f"<= {most:g}", value <= most
        elif least is not None:
            aim, met = f">= {least:g}", value >= least
        figure = Figure(name, round(value, 3), unit, aim, met)
        self.figures.append(figure)
        print(figure, flush=True)


async def in_parallel(todo: list[Callable[[], Awaitable[Any]]], workers: int = 32) -> None:
    waiting = iter(todo)

    async def work() -> None:
        for one in waiting:
            await one()

    await asyncio.gather(*(work() for _ in range(workers)))


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """It goes on while the block is open, and is cancelled at its end; what it raises ends the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


class Seen:
    """What one watch shows, and a way to wait for it."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Condition()

    async def run(self, api: Api, path: str, metadata_only: bool) -> None:
        async for kind, found in api.follow(path, metadata_only=metadata_only):
            async with self._changed:
                if kind == "DELETED":
                    self.objects.pop(found["metadata"]["name"], None)
                else:
                    self.objects[found["metadata"]["name"]] = found
                self._changed.notify_all()

    async def wait(self, good: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(good)


@contextlib.asynccontextmanager
async def watching(api: Api, path: str, *, metadata_only: bool = True) -> AsyncIterator[Seen]:
    """Metadata alone unless told otherwise: what this process reads is paid for by the same two cores."""
    seen = Seen()
    async with beside(seen.run(api, path, metadata_only)):
        yield seen


@contextlib.asynccontextmanager
async def led(cluster: Cluster, operators: Sequence[Operator]) -> AsyncIterator[Api]:
    """The API of a cluster in which an operator leads, and that serves our resource."""
    async with Api.connect(cluster.settings.kubeconfig("admin")) as api:
        await leading(api, operators)
        async with asyncio.timeout(60):
            while not await _serves_models(api):  # noqa: ASYNC110  (another program's state: it sends no event)
                await asyncio.sleep(0.2)
        yield api


async def _serves_models(api: Api) -> bool:
    """A new kind is Established before the API server has opened its storage (429 until then)."""
    try:
        await api.items(MODELS)
    except AssertionError:
        return False
    return True


async def leading(api: Api, operators: Sequence[Operator], timeout: float = 60.0) -> Operator:
    deadline = time.monotonic() + timeout
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/genrm-operator"
    while True:
        with contextlib.suppress(AssertionError):
            holder = (await api.call("GET", path))["spec"].get("holderIdentity")
            for operator in operators:
                if operator.name == holder and operator.alive():
                    return operator
        assert time.monotonic() < deadline, "nobody leads"
        await asyncio.sleep(0.1)


class Kubelet:
    """Starts an operator that ended by itself once more, as a kubelet would, and keeps account of all that ran.

    On a machine whose API server answers no renewal for the length of a lease, an operator ends rather than act on a
    leadership that may be over.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self._operators = operators
        self._cpu: dict[int, float] = {}
        """By process id, as last seen: CPU seconds."""
        self.most_megabytes = 0.0
        self.restarts = 0

    def look(self) -> None:
        for operator in self._operators:
            if operator.process is None:
                continue
            pid = operator.process.pid
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self._cpu[pid] = cpu_seconds(pid)
                self.most_megabytes = max(self.most_megabytes, peak_megabytes(pid))
            if not operator.alive():
                self.restarts += 1
                print(f"  {operator.name} ended with status {operator.process.returncode}: started again", flush=True)
                operator.start()

    def cpu(self) -> float:
        """CPU seconds of all that ran, to within the half second between two looks at one that has ended."""
        self.look()
        return sum(self._cpu.values())

    @contextlib.asynccontextmanager
    async def on_duty(self) -> AsyncIterator[None]:
        async def watch() -> None:
            while True:
                self.look()
                await asyncio.sleep(0.5)

        async with beside(watch()):
            yield


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """0 of a process that has ended and was not waited for yet."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found is not None else 0.0


@contextlib.contextmanager
def prepared() -> Iterator[Cluster]:
    with Cluster.up(f"bench-{os.getpid()}", node=False, kwok_nodes=1, die_with_parent=True) as cluster:
        install_chart(cluster)
        cluster.kubectl("create", "namespace", NAMESPACE)
        yield cluster


@contextlib.contextmanager
def processes(cluster: Cluster, number: int, resync: float) -> Iterator[list[Operator]]:
    with tempfile.TemporaryDirectory() as folder:
        first = prepare_operator(cluster, Path(folder))
        environment = {"GENRM_RESYNC_SECONDS": str(resync), "GENRM_LOG_LEVEL": "WARNING"}
        operators = [
            Operator(first.kubeconfig, first.key, first.log, f"operator-{n}", environment=environment)
            for n in range(number)
        ]
        for operator in operators:
            operator.start()
        try:
            yield operators
        except BaseException:
            print("\n".join(first.log.read_text().splitlines()[-40:]), file=sys.stderr)
            raise
        finally:
            for operator in operators:
                if operator.alive():
                    operator.kill(signal.SIGTERM)
