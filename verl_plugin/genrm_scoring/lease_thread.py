"""A Lease that is renewed whatever the program does: in a thread, with an event loop and a Cluster of its own.

verl's driver and its trainer have no event loop; a program that has one may block it for longer than the Lease lives,
by a step of training for example, and the engines would sleep under its scoring. So both talk to the same thread:

    with LeaseThread(connect, open_lease) as lease:          async with LeaseThread(connect, open_lease) as lease:
        with lease.scoring():                                    async with lease.scoring():
            lease.awake(120)                                         await lease.awake(120)

`kubernetes.run_lease` is that with the cluster of the environment. A killed program takes the thread and with it the
renewal down, which is the point of the Lease.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Final, ParamSpec, Protocol, Self, TypeVar

from genrm_api.leases import Phase

from genrm_scoring.cluster import Cluster
from genrm_scoring.errors import ClusterUnreachable
from genrm_scoring.loop_thread import LoopThread

OPEN_SECONDS: Final = 60.0
"""For a Lease, or all of a fleet, to be there; each call to the API server has a few seconds of its own."""
CLOSE_SECONDS: Final = 10.0


class Lease(Protocol):
    """A `RunLease`, or a `FleetLease`; nothing here waits but `awake`."""

    @property
    def name(self) -> str: ...

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None: ...

    def begin_scoring(self) -> None: ...

    def end_scoring(self) -> None: ...

    async def awake(self, timeout: float) -> float: ...


P = ParamSpec("P")
T = TypeVar("T")
Connect = Callable[[], AbstractAsyncContextManager[Cluster]]
Open = Callable[[Cluster], AbstractAsyncContextManager[Lease]]


class LeaseThread:
    """Keeps one Lease, or those of a fleet, in a background thread, from `start` to `close`; as a context manager of
    either kind, while the block is open.

    Raises (the block, when it is entered):
        GenrmError: the Lease could not be opened.
    """

    def __init__(self, connect: Connect, open_lease: Open) -> None:
        @asynccontextmanager
        async def opening() -> AsyncIterator[Lease]:
            async with connect() as cluster, open_lease(cluster) as lease:
                yield lease

        self._there = LoopThread("genrm-lease", opening, executor=_AtOnce())

    def start(self, timeout: float) -> Self:
        """Open the Lease and wait for it.

        Raises:
            GenrmError: it could not be opened.
            TimeoutError
        """
        self._there.open(timeout)
        return self

    def close(self, timeout: float) -> None:
        """Leave the Lease (a holder deletes it) and end the thread; gives up after `timeout` seconds."""
        self._there.close(timeout)

    def __enter__(self) -> Self:
        try:
            return self.start(OPEN_SECONDS)
        except TimeoutError:
            raise _not_opened() from None

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close(CLOSE_SECONDS)

    async def __aenter__(self) -> AsyncLease:
        try:
            await self._there.aopen(OPEN_SECONDS)
        except TimeoutError:
            raise _not_opened() from None
        return AsyncLease(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._there.aclose(CLOSE_SECONDS)

    @property
    def name(self) -> str:
        """Of the Lease, or of all; empty until it is there."""
        return lease.name if (lease := self._there.opened) is not None else ""

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None:
        """As that of `RunLease`; returns at once, also while the API server is away."""
        if (lease := self._there.opened) is not None:
            self._there.tell(lease.set_phase, phase, needed_in)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """As that of `RunLease`: the reward model is needed while any such block is open. Neither end waits."""
        lease = self._lease()
        self._there.tell(lease.begin_scoring)
        try:
            yield
        finally:
            self._there.tell(lease.end_scoring)

    def awake(self, timeout: float) -> float:
        """As that of `RunLease`; this one waits.

        Raises:
            NotAwake, WakeRefused
        """
        return self.when_awake(timeout).result()

    def when_awake(self, timeout: float) -> concurrent.futures.Future[float]:
        """The same for who waits in a way of their own."""
        return self._there.ask(self._lease().awake(timeout))

    def _lease(self) -> Lease:
        if (lease := self._there.opened) is None:
            raise RuntimeError("the Lease is not open; enter the block, or call start()")
        return lease


class AsyncLease:
    """A `LeaseThread` for a program with an event loop, which it may block as it likes."""

    def __init__(self, thread: LeaseThread) -> None:
        self._thread = thread

    @property
    def name(self) -> str:
        return self._thread.name

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None:
        """As that of `RunLease`; returns at once."""
        self._thread.set_phase(phase, needed_in)

    @asynccontextmanager
    async def scoring(self) -> AsyncIterator[None]:
        """As that of `RunLease`."""
        with self._thread.scoring():
            yield

    async def awake(self, timeout: float) -> float:
        """As that of `RunLease`.

        Raises:
            NotAwake, WakeRefused
        """
        return await asyncio.wrap_future(self._thread.when_awake(timeout))


def _not_opened() -> ClusterUnreachable:
    return ClusterUnreachable("KUBECONFIG", f"no Lease for this run within {OPEN_SECONDS:g} s")


class _AtOnce(concurrent.futures.ThreadPoolExecutor):
    """Does what it is given in the caller's thread, before it returns.

    HTTP clients hand name look-ups and the reading of ~/.netrc to the loop's executor, and real executors take no more
    work once the interpreter goes down: exactly when exit handlers want the Lease deleted. Nothing but the Lease lives
    in this loop, so a slow look-up delays nobody else.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as e:
            future.set_exception(e)
        return future
