"""Groups whose members come one by one, as most frameworks send them.

The first to come opens a table for as many as the group has; when all are there, or none has come for a while, they are
scored together, and each gets its own score. However often another one comes just in time, the first waits no longer
than `LONGEST` times that while. A table that closed without everybody stays known for as long again: who comes late is
scored among those who came before, without changing what they got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from genrm_scoring.failure import drop_group, survivors_needed
from genrm_scoring.types import Score

PATIENCE: Final = 300.0
"""Seconds without a new member after which a group is scored without those that are missing."""
LONGEST: Final = 4
"""Times its patience that a group is waited for in all."""

Member = TypeVar("Member")
"""What is known of one of them: a sample, or what has been found out about it already."""


async def while_they_come(changed: asyncio.Event, complete: Callable[[], bool], patience: float) -> None:
    """Return when all are there, when none has come for `patience` seconds, or after `LONGEST` times that.

    Args:
        changed: set by each who comes, and by what else may have made it complete.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST * patience):
            while not complete():
                changed.clear()
                async with asyncio.timeout(patience):
                    await changed.wait()


@dataclass(slots=True)
class _Table(Generic[Member]):
    size: int
    members: list[Member] = field(default_factory=list)
    lost: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    served: bool = False
    closed: bool = False
    scores: asyncio.Future[Sequence[Score]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def complete(self) -> bool:
        return len(self.members) + self.lost >= self.size


class Gathering(Generic[Member]):
    """Belongs to one event loop. `patience` is in seconds without a new member."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tables: dict[Hashable, _Table[Member]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Groups that are not complete."""
        return sum(not table.closed for table in self._tables.values())

    def came(self, key: Hashable) -> Sequence[Member]:
        """Those who would be siblings of one who comes now."""
        table = self._tables.get(key)
        return () if table is None else table.members

    async def score(
        self,
        key: Hashable,
        size: int,
        member: Member,
        score_all: Callable[[Sequence[Member]], Awaitable[Sequence[Score]]],
    ) -> Score:
        """The score of one member among its siblings.

        Args:
            key: names the group; all of it must come here.
            size: members that the group has.
        """
        table = self._tables.setdefault(key, _Table(size))
        if not table.served:
            table.served = True
            task = asyncio.create_task(self._serve(key, table, score_all))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        place = len(table.members)
        table.members.append(member)
        table.changed.set()
        if table.closed:
            return (await score_all(tuple(table.members)))[place]
        return (await asyncio.shield(table.scores))[place]

    def lost(self, key: Hashable, size: int) -> None:
        """A member of this group will never come."""
        table = self._tables.setdefault(key, _Table(size))
        table.lost += 1
        table.changed.set()
        if table.complete and not table.served:
            del self._tables[key]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(
        self,
        key: Hashable,
        table: _Table[Member],
        score_all: Callable[[Sequence[Member]], Awaitable[Sequence[Score]]],
    ) -> None:
        try:
            await self._full(table)
            table.closed = True
            came = tuple(table.members)
            if table.complete:
                del self._tables[key]  # what comes now under this name is another group
            try:
                scores = await score_all(came)
                if len(came) < (needed := survivors_needed(table.size)) and table.size > 1:
                    why = f"only {len(came)} of {table.size} responses to this prompt came, fewer than {needed}"
                    scores = drop_group(scores, why)
            except Exception as e:
                table.scores.set_exception(e)
                return
            table.scores.set_result(scores)
            await self._full(table)  # who comes late
        finally:
            table.scores.cancel()
            if self._tables.get(key) is table:
                del self._tables[key]

    async def _full(self, table: _Table[Member]) -> None:
        await while_they_come(table.changed, lambda: table.complete, self._patience)
