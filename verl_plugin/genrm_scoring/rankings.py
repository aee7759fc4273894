"""The responses to one prompt in one question, ranked by the judge: mode listwise (`tournaments.listwise`)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from genrm_api.scoring import Aggregate, Order, Scoring, ScoringMode, default_order

from genrm_scoring.failure import settle, whole_enough
from genrm_scoring.groups import Ask, Report, Reported, failed_like, normalised
from genrm_scoring.tournaments import Comparison, aggregate
from genrm_scoring.tournaments.anchor import anchor_text, without_anchor
from genrm_scoring.tournaments.listwise import compared, presentations
from genrm_scoring.tournaments.seating import numbers
from genrm_scoring.types import Judgement, Outcome, Question, Sample, Score, ScoreSource


class Listwise:
    """A `Source`. With votes each ranking is asked for in another order of the responses.

    Args:
        ask: asks once; it does not vote itself.
        reported: is told of each group's standings.
    """

    def __init__(self, scoring: Scoring, ask: Ask, reported: Reported | None = None) -> None:
        self._scoring, self._ask, self._reported = scoring, ask, reported
        self._order = scoring.order or default_order(ScoringMode.LISTWISE)
        self._votes = scoring.votes.count if scoring.votes is not None else 1

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        """
        Raises:
            ConfigurationError: the data set has no text for the anchor.
            RunStopped
        """
        if not samples:
            return []
        if self._order is not Order.GIVEN:
            return await self._scores(samples)
        number = numbers([sample.session for sample in samples])
        scores = await self._scores([samples[at] for at in sorted(range(len(samples)), key=number.__getitem__)])
        return [scores[own] for own in number]

    async def _scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        shown, anchored = list(samples), self._scoring.anchor is not None
        if self._scoring.anchor is not None:
            first = samples[0]
            shown.append(replace(first, response=anchor_text(self._scoring.anchor, first.reference, first.extra)))
        if len(shown) == 1:
            why = "one response alone: there is nothing to rank; spec.scoring.anchor names a text of the data set"
            return settle([Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, detail=why)], self._scoring.on_failure)
        texts = [hashlib.sha256(sample.response.encode(errors="replace")).digest() for sample in shown]
        orders = presentations(texts, self._votes, self._order)
        judgements = await asyncio.gather(*(self._ranked(shown, order) for order in orders))
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
        without = without_anchor(standings) if anchored else None
        failed = [judgement for judgement in judgements if judgement.verdict is None]
        if self._reported is not None:
            counts = dict(Counter(judgement.outcome for judgement in failed))
            self._reported(Report(standings, len(orders), 1, counts, without))
        found = standings.scores if without is None else without.scores
        scores = normalised(self._scoring, found, lambda _: failed_like(failed))
        return whole_enough(settle(scores, self._scoring.on_failure))

    async def _ranked(self, shown: Sequence[Sample], order: Sequence[int]) -> Judgement:
        responses = tuple(shown[place].response for place in order)
        first = shown[0]
        return await self._ask(Question(first.question, responses, first.reference, first.data_source, first.extra))

    async def close(self) -> None:
        pass
