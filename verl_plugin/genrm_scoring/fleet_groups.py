"""The responses to one prompt on their way through a RewardFleet, while they arrive.

A rule, and a model that looks at responses one by one, is asked as soon as a response is there; behind a gate, as soon
as the rule has let that response pass. A tournament asks about a pair as soon as both are known. What must know first
who takes part (a ranking, a tournament behind a gate) is asked when nobody is awaited any more. Then all is mixed, and
the scores are those that `FleetScorer.scores` brings for the same responses, without asking anything twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from genrm_api.terms import Term

from genrm_scoring.fleet import FleetScorer, wanted
from genrm_scoring.groups import Group
from genrm_scoring.sources import Pairwise, Source, asks_each_alone
from genrm_scoring.types import Sample, Score

T = TypeVar("T")


class FleetGroup:
    """Of `size` responses. Belongs to one event loop; to be closed.

    `learn`: whether their numbers enter running normalisation; not in validation.
    """

    def __init__(self, fleet: FleetScorer, size: int, *, learn: bool = True) -> None:
        self._fleet, self._size, self._learn = fleet, size, learn
        sources, terms = fleet.sources, fleet.mixture.terms
        alone = {term.name for term in terms if asks_each_alone(sources[term.name])}
        self._alone = [t for t in terms if t.name in alone and (t.gate is None or t.gate.term in alone)]
        self._pairs = {t.name: s for t in terms if t.gate is None and (s := _just_in_time(sources[t.name])) is not None}
        self._samples: list[Sample] = []
        self._begun: dict[str, list[asyncio.Task[Score | None]]] = {t.name: [] for t in self._alone}
        self._begun |= {name: [] for name in self._pairs}
        self._tournaments: dict[str, asyncio.Task[Group | None]] = {}
        self._open = AsyncExitStack()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._complete = False

    def enter(self, sample: Sample) -> None:
        """One more response; what can be asked about it, is."""
        place = len(self._samples)
        self._samples.append(sample)
        for term in self._alone:
            self._begun[term.name].append(self._task(self._score_alone(term, place)))
        for name, source in self._pairs.items() if not self._complete else ():
            if name not in self._tournaments:
                self._tournaments[name] = self._task(self._hold(source, sample))
            self._begun[name].append(self._task(self._compare(name, place)))

    async def scores(self, number: int) -> Sequence[Score]:
        """Those of the first `number` of those who came. The first call says that nobody else is awaited; one who
        comes all the same is judged in a later call, among all before it.

        Raises:
            GenrmError: as `FleetScorer.scores`.
        """
        samples = self._samples[:number]
        if self._complete:
            # Tournaments are over without the late one: another one is held. Its siblings' numbers are known already.
            begun = {term.name: self._begun[term.name] for term in self._alone}
            return await self._fleet.scores(samples, learn=False, begun=begun)
        self._complete = True
        for tournament in self._tournaments.values():
            if (group := await asyncio.shield(tournament)) is not None:
                for place in range(number, self._size):
                    group.lost(place)
        scores = await self._fleet.scores(samples, learn=self._learn, begun=self._begun)
        for name, tournament in self._tournaments.items():
            if (group := tournament.result()) is not None:
                self._pairs[name].over(group)
        return scores

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._open.aclose()

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    async def _score_alone(self, term: Term, place: int) -> Score | None:
        known = {}
        if (gate := term.gate) is not None:
            known[gate.term] = await wanted(self._begun[gate.term][place])
        if term.name not in self._fleet.mixture.open(known):
            return None
        (score,) = await self._fleet.sources[term.name].scores([self._samples[place]])
        return score

    async def _hold(self, source: Pairwise, first: Sample) -> Group | None:
        if (group := source.group(first, self._size, gives_up=False)) is None:
            return None
        return await self._open.enter_async_context(group)

    async def _compare(self, name: str, place: int) -> Score:
        group = await asyncio.shield(self._tournaments[name])
        if group is None:
            (score,) = await self._pairs[name].alone(self._samples[place])
            return score
        return await group.score(place, self._samples[place])


def _just_in_time(source: Source) -> Pairwise | None:
    """A tournament that may begin before all are there; not where it matters which of them was sampled first."""
    return source if isinstance(source, Pairwise) and not source.as_sampled else None
