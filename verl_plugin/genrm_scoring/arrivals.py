"""The scores of responses that come one by one, each in a call of its own, and belong to groups.

What can begin before the last sibling is there does: a model that looks at responses one by one is asked at once, and a
tournament asks about a pair as soon as both are known; in a fleet, too. What needs them all, like a ranking, waits for
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from genrm_scoring.failure import whole_enough
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.fleet_groups import FleetGroup
from genrm_scoring.gathering import Gathering
from genrm_scoring.groups import Group
from genrm_scoring.sources import Pairwise, Pointwise, Source
from genrm_scoring.types import Sample, Score


class Arrivals(Protocol):
    """`key` names a group of `size` members."""

    async def score(self, key: Hashable, size: int, sample: Sample, *, learn: bool = True) -> Score:
        """
        Args:
            learn: whether its number enters what a run's scores are normalised by; not in validation.

        Raises:
            RunStopped, ConfigurationError
        """
        ...

    def lost(self, key: Hashable, size: int) -> None:
        """A member of this group will never come."""
        ...

    async def close(self) -> None: ...


def arrivals_of(source: Source, patience: float) -> Arrivals:
    """`patience`: see `gathering.PATIENCE`."""
    if isinstance(source, Pairwise) and not source.as_sampled:
        return Tournaments(source, patience)
    if isinstance(source, Pointwise):
        return AskedAtOnce(source, patience)
    if isinstance(source, FleetScorer):
        return Mixed(source, patience)
    return AllTogether(source, patience)


class AllTogether:
    def __init__(self, source: Source, patience: float) -> None:
        self._source = source
        self._gathering: Gathering[Sample] = Gathering(patience)

    async def score(self, key: Hashable, size: int, sample: Sample, *, learn: bool = True) -> Score:
        return await self._gathering.score(key, size, sample, self._source.scores)

    def lost(self, key: Hashable, size: int) -> None:
        self._gathering.lost(key, size)

    async def close(self) -> None:
        await self._gathering.close()


class AskedAtOnce:
    def __init__(self, source: Pointwise, patience: float) -> None:
        self._source = source
        self._gathering: Gathering[asyncio.Task[Score]] = Gathering(patience)
        self._asked: set[asyncio.Task[Score]] = set()

    async def score(self, key: Hashable, size: int, sample: Sample, *, learn: bool = True) -> Score:
        asked = asyncio.create_task(self._source.own(sample))
        self._asked.add(asked)  # beyond a caller who leaves: its siblings are still scored among all who came
        asked.add_done_callback(self._asked.discard)
        return await self._gathering.score(key, size, asked, self._settled)

    async def _settled(self, asked: Sequence[asyncio.Task[Score]]) -> Sequence[Score]:
        return self._source.settled([await asyncio.shield(task) for task in asked])

    def lost(self, key: Hashable, size: int) -> None:
        self._gathering.lost(key, size)

    async def close(self) -> None:
        await self._gathering.close()
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)


class Mixed:
    """Each of a fleet's terms is asked as soon as it can be."""

    def __init__(self, fleet: FleetScorer, patience: float) -> None:
        self._fleet = fleet
        self._gathering: Gathering[FleetGroup] = Gathering(patience)
        """Of each member its group: the same one."""
        self._under_way: dict[FleetGroup, int] = {}
        """How many times their scores are being made: once, and once for each who is late."""

    async def score(self, key: Hashable, size: int, sample: Sample, *, learn: bool = True) -> Score:
        siblings = self._gathering.came(key)
        group = siblings[0] if siblings else FleetGroup(self._fleet, size, learn=learn)
        self._under_way.setdefault(group, 0)
        group.enter(sample)
        return await self._gathering.score(key, size, group, self._scores)

    async def _scores(self, members: Sequence[FleetGroup]) -> Sequence[Score]:
        group = members[0]
        self._under_way[group] += 1
        try:
            return await group.scores(len(members))
        finally:
            self._under_way[group] -= 1
            if not self._under_way[group]:
                del self._under_way[group]
                await group.close()

    def lost(self, key: Hashable, size: int) -> None:
        self._gathering.lost(key, size)

    async def close(self) -> None:
        await self._gathering.close()
        await asyncio.gather(*(group.close() for group in self._under_way))


class Survivors:
    """Scores that somebody else has made, held back until it is known how many of their group are numbers: one that
    lost too many is dropped whole (`failure.whole_enough`)."""

    def __init__(self, patience: float) -> None:
        self._gathering: Gathering[Score] = Gathering(patience)

    async def settled(self, key: Hashable, size: int, score: Score) -> Score:
        """What becomes of one member's score."""
        return await self._gathering.score(key, size, score, self._whole)

    async def _whole(self, scores: Sequence[Score]) -> Sequence[Score]:
        return whole_enough(scores)

    def lost(self, key: Hashable, size: int) -> None:
        """A member of this group will never come."""
        self._gathering.lost(key, size)

    async def close(self) -> None:
        await self._gathering.close()


@dataclass(slots=True, eq=False)
class _Tournament:
    group: Group
    size: int
    samples: list[Sample] = field(default_factory=list)
    lost: int = 0
    inside: int = 0

    @property
    def complete(self) -> bool:
        return len(self.samples) + self.lost >= self.size


class Tournaments:
    def __init__(self, source: Pairwise, patience: float) -> None:
        self._source, self._patience = source, patience
        self._held: dict[Hashable, _Tournament] = {}
        """Those that members are awaited for, or may still come to."""
        self._open: set[_Tournament] = set()
        self._missing: dict[Hashable, int] = {}
        """Lost before anybody of their group has come."""
        self._left: set[asyncio.Task[None]] = set()

    async def score(self, key: Hashable, size: int, sample: Sample, *, learn: bool = True) -> Score:
        held = self._held.get(key)
        if held is None:
            if (group := self._source.group(sample, size)) is None:
                (score,) = await self._source.alone(sample)
                return score
            held = self._held[key] = _Tournament(group, size)
            self._open.add(held)
            await group.__aenter__()
            for _ in range(self._missing.pop(key, 0)):
                self._lose(held)
        place = len(held.samples)
        held.samples.append(sample)
        if held.complete:
            self._forget(key, held)  # what comes now under this name is another group
        if not held.group.awaits(place):
            # The table has closed up without it; it is compared with those who came before, who keep what they got.
            return (await self._source.scores(tuple(held.samples)))[place]
        held.inside += 1
        try:
            return await held.group.score(place, sample)
        finally:
            held.inside -= 1
            if not held.inside and held.group.is_over:
                await self._leave(key, held)
            elif not held.inside:  # its caller left; siblings may come still
                self._left.add(task := asyncio.create_task(self._outlive(key, held)))
                task.add_done_callback(self._left.discard)

    def lost(self, key: Hashable, size: int) -> None:
        if (held := self._held.get(key)) is not None:
            self._lose(held)
            if held.complete:
                self._forget(key, held)
        elif self._missing.get(key, 0) + 1 >= size:
            self._missing.pop(key, None)
        else:
            self._missing[key] = self._missing.get(key, 0) + 1

    def _lose(self, held: _Tournament) -> None:
        held.lost += 1
        held.group.lost(held.size - held.lost)  # places are taken from the front, as members come

    async def _outlive(self, key: Hashable, held: _Tournament) -> None:
        await held.group.wait()
        if not held.inside and held in self._open:
            await self._leave(key, held)

    async def _leave(self, key: Hashable, held: _Tournament) -> None:
        """The last of those who waited is gone. Who comes late finds the others' responses for a while."""
        self._open.discard(held)
        await held.group.__aexit__(None, None, None)
        self._source.over(held.group)
        if not held.complete:
            asyncio.get_running_loop().call_later(self._patience, self._forget, key, held)

    def _forget(self, key: Hashable, held: _Tournament) -> None:
        if self._held.get(key) is held:
            del self._held[key]

    async def close(self) -> None:
        for task in self._left:
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        for held in tuple(self._open):
            await held.group.__aexit__(None, None, None)
        self._open.clear()
        self._held.clear()
