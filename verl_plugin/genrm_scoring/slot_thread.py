"""The GPUs of slots, taken in turns by a program that may block as it likes: their Lease is kept in a `LeaseThread`.

    with SlotThread(connect, open_lease) as slots:           async with SlotThread(connect, open_lease) as slots:
        with slots.holding(timeout=120):                         async with slots.holding(timeout=120):

`kubernetes.slot_lease` is that with the cluster of the environment. A trainer is the program that blocks its event loop
for longer than a Lease lives, and does so while it has the GPUs. Phases are not to be set here: whoever has the GPUs
has waited for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

from genrm_api.leases import Phase

from genrm_scoring.lease_thread import AsyncLease, Connect, LeaseThread, Open


class SlotThread:
    """A context manager of either kind; `open_lease` opens a `gpu_lease`.

    Raises (the block, when it is entered):
        GenrmError: the Lease could not be opened.
    """

    def __init__(self, connect: Connect, open_lease: Open) -> None:
        self._thread = LeaseThread(connect, open_lease)

    def __enter__(self) -> Self:
        self._thread.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._thread.__exit__(kind, e, tb)

    async def __aenter__(self) -> AsyncSlots:
        return AsyncSlots(await self._thread.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._thread.__aexit__(kind, e, tb)

    @property
    def name(self) -> str:
        """Of the Lease; empty until it is there."""
        return self._thread.name

    @contextmanager
    def holding(self, timeout: float) -> Iterator[float]:
        """As that of `RunLease`: the GPUs are this run's own while the block is open. Entering it waits.

        Raises:
            NotAwake, WakeRefused
        """
        self._thread.set_phase(Phase.SCORING)
        try:
            yield self._thread.awake(timeout)
        finally:
            self._thread.set_phase(Phase.IDLE)


class AsyncSlots:
    """A `SlotThread` for a program with an event loop."""

    def __init__(self, lease: AsyncLease) -> None:
        self._lease = lease

    @property
    def name(self) -> str:
        return self._lease.name

    @asynccontextmanager
    async def holding(self, timeout: float) -> AsyncIterator[float]:
        """As that of `RunLease`.

        Raises:
            NotAwake, WakeRefused
        """
        self._lease.set_phase(Phase.SCORING)
        try:
            yield await self._lease.awake(timeout)
        finally:
            self._lease.set_phase(Phase.IDLE)
