"""Groups whose members come one by one, each in a request of its own, as most frameworks send them.

The first to come opens a table for as many as the group has; when all are there, or none has come for a while, they are
scored together, and each request gets its own number. A table that closed without everybody stays known for as long
again: who comes late is scored among those who came before, without changing what they got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

from genrm_scoring.failure import drop_group, survivors_needed
from genrm_scoring.types import Sample, Score

ScoreAll = Callable[[Sequence[Sample]], Awaitable[Sequence[Score]]]


@dataclass(slots=True)
class _Table:
    size: int
    samples: list[Sample] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    scores: asyncio.Future[Sequence[Score]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gathering:
    """Belongs to one event loop. `patience` is in seconds without a new member."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tables: dict[Hashable, _Table] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Groups that are not complete."""
        return sum(not table.closed for table in self._tables.values())

    async def score(self, key: Hashable, size: int, sample: Sample, score_all: ScoreAll) -> Score:
        """The score of one member among its siblings.

        Args:
            key: names the group; all of it must come here.
            size: members that the group has.
        """
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = _Table(size)
            task = asyncio.create_task(self._serve(key, table, score_all))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        place = len(table.samples)
        table.samples.append(sample)
        table.changed.set()
        if table.closed:
            return (await score_all(tuple(table.samples)))[place]
        return (await asyncio.shield(table.scores))[place]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, key: Hashable, table: _Table, score_all: ScoreAll) -> None:
        try:
            await self._full(table)
            table.closed = True
            came = tuple(table.samples)
            if len(came) == table.size:
                del self._tables[key]  # what comes now under this name is another group
            try:
                scores = await score_all(came)
                if len(came) < (needed := survivors_needed(table.size)):
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

    async def _full(self, table: _Table) -> None:
        """Return when all are there, or none has come for a while."""
        while len(table.samples) < table.size:
            table.changed.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await table.changed.wait()
            except TimeoutError:
                return
