"""A Lease for programs that have no event loop: verl's driver and its trainer are synchronous.

It starts a thread, as `rewards` does and nothing else in our libraries. It runs an event loop of its own, in which a
Cluster and a Lease live; the program talks to it through `set_phase`, which never waits, and `close`. The thread is a
daemon: it must not keep a finished program alive, and a killed program takes the renewal down with it, which is the
point of the Lease.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, Protocol, TypeVar

from genrm_api.leases import Phase

from genrm_scoring.cluster import Cluster


class Lease(Protocol):
    """A `RunLease`, or a `FleetLease`."""

    @property
    def name(self) -> str: ...

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None: ...

    async def awake(self, timeout: float) -> float: ...


P = ParamSpec("P")
T = TypeVar("T")
Connect = Callable[[], AbstractAsyncContextManager[Cluster]]
Open = Callable[[Cluster], AbstractAsyncContextManager[Lease]]


class LeaseThread:
    """Keeps one Lease, or those of a fleet, in a background thread, from `start` to `close`."""

    def __init__(self, connect: Connect, open_lease: Open) -> None:
        self._connect = connect
        self._open_lease = open_lease
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_AtOnce())
        self._opened: concurrent.futures.Future[Lease] = concurrent.futures.Future()
        self._leave = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="genrm-lease", daemon=True)

    def start(self, timeout: float) -> Lease:
        """Open the Lease and wait for it.

        Raises:
            GenrmError: it could not be opened.
            TimeoutError
        """
        self._thread.start()
        return self._opened.result(timeout)

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None:
        """As that of `RunLease`; returns at once, also while the API server is away."""
        self._tell(self._set_phase, phase, needed_in)

    def awake(self, timeout: float) -> float:
        """As that of `RunLease`; this one waits.

        Raises:
            NotAwake, WakeRefused
        """
        lease = self._opened.result()
        return asyncio.run_coroutine_threadsafe(lease.awake(timeout), self._loop).result()

    def close(self, timeout: float) -> None:
        """Leave the Lease (a holder deletes it) and end the thread; gives up after `timeout` seconds."""
        if self._thread.is_alive():
            self._tell(self._leave.set)
            self._thread.join(timeout)

    def _tell(self, what: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the Lease ended meanwhile, by itself
            self._loop.call_soon_threadsafe(what, *args)

    def _set_phase(self, phase: Phase, needed_in: float | None) -> None:
        if self._opened.done() and not self._opened.exception():
            self._opened.result().set_phase(phase, needed_in)

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as e:
            if self._opened.done():
                raise
            self._opened.set_exception(e)
        finally:
            self._loop.close()

    async def _live(self) -> None:
        async with self._connect() as cluster, self._open_lease(cluster) as lease:
            self._opened.set_result(lease)
            await self._leave.wait()


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
