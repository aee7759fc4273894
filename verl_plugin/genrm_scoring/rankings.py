"""The responses to one prompt in one question, ranked by the judge: mode listwise (`tournaments.listwise`)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from genrm_api.comparing import Aggregate, Order, ScoringMode, default_order
from genrm_api.scoring import Scoring

from genrm_scoring.alone import Own, Single, met
from genrm_scoring.failure import settle, whole_enough
from genrm_scoring.groups import Report, Reported, about, failed_like, normalised
from genrm_scoring.tournaments import Comparison, aggregate
from genrm_scoring.tournaments.anchor import without_anchor
from genrm_scoring.tournaments.listwise import compared, presentations
from genrm_scoring.tournaments.seating import numbers
from genrm_scoring.types import Judgement, Question, Sample, Score

AskVote = Callable[[Question, int], Awaitable[Judgement]]
"""Asks for an order of several responses: `Scorer.ask_once` with a judge of lists. Never raises for one that fails."""


class Listwise:
    """A `Source`. With votes each ranking is asked for in another order of the responses.

    Args:
        ask: asks once, as the vote of this number; it does not vote itself.
        reported: is told of each group's standings.
        own: asks about one response by itself, as `alone.own_of` makes it.
    """

    def __init__(
        self, scoring: Scoring, ask: AskVote, reported: Reported | None = None, own: Own | None = None
    ) -> None:
        self._single = Single(scoring, own)
        self._scoring, self._ask, self._reported = scoring, ask, reported
        self._order = scoring.order or default_order(ScoringMode.LISTWISE)
        self._votes = scoring.votes.count if scoring.votes is not None else 1

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        """
        Raises:
            ConfigurationError: the data set has no text for the anchor.
            RunStopped
        """
        return (await self.compared(samples))[0]

    async def compared(self, samples: Sequence[Sample]) -> tuple[Sequence[Score], Report | None]:
        """The same, with what the rankings say of each pair if any was asked for."""
        if not samples:
            return [], None
        if len(samples) == 1:
            if (opponent := self._single.opponent(samples[0])) is None:
                return await self._single.score(samples[0]), None
            return await self._scores(self._single.rules, samples, opponent, max(2, self._votes))
        anchor = None if self._scoring.anchor is None else met(self._scoring.anchor, samples[0])
        each = partial(self._scores, self._scoring, anchor=anchor, votes=self._votes)
        if self._order is not Order.GIVEN:
            return await each(samples)
        number = numbers([sample.session for sample in samples])
        scores, report = await each([samples[at] for at in sorted(range(len(samples)), key=number.__getitem__)])
        return [scores[own] for own in number], report

    async def _scores(
        self, scoring: Scoring, samples: Sequence[Sample], anchor: Sample | None, votes: int
    ) -> tuple[Sequence[Score], Report]:
        shown = [*samples, *([] if anchor is None else [anchor])]
        texts = [hashlib.sha256(sample.response.encode(errors="replace")).digest() for sample in shown]
        orders = presentations(texts, votes, self._order)
        asked = (self._ranked(shown, order, anchor, number) for number, order in enumerate(orders))
        judgements = await asyncio.gather(*asked)
        rankings = [
            (order, judgement.verdict.ranking.best_first)
            for order, judgement in zip(orders, judgements, strict=True)
            if judgement.verdict is not None and judgement.verdict.ranking is not None
        ]
        if 2 * len(rankings) <= len(orders):  # as of any other votes, more than half of them have to say something
            rankings = []
        said = [c for order, best_first in rankings for c in compared(texts, order, best_first)]
        if not orders:  # all texts are equal
            said = [Comparison(u, v, 0.5, asked=False) for u, v in itertools.combinations(range(len(shown)), 2)]
        standings = aggregate(Aggregate.WINRATE, len(shown), said)
        without = None if anchor is None else without_anchor(standings)
        failed = [judgement for judgement in judgements if judgement.verdict is None]
        counts = dict(Counter(judgement.outcome for judgement in failed))
        report = Report(standings, len(orders), 1, counts, without, tuple(said))
        if self._reported is not None:
            self._reported(report)
        found = standings.scores if without is None else without.scores
        scores = normalised(scoring, found, lambda _: failed_like(failed))
        return whole_enough(settle(scores, scoring.on_failure)), report

    async def _ranked(
        self, shown: Sequence[Sample], order: Sequence[int], anchor: Sample | None, number: int
    ) -> Judgement:
        return await self._ask(about(anchor, *(shown[place] for place in order)), number)

    async def close(self) -> None:
        pass
