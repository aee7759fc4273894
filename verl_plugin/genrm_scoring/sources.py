"""Where the numbers of a group come from: rules, and reward models that look at responses one by one or in pairs.

A source is given responses to one prompt and brings a score for each. What fails comes back as a failed score: what
that means for the sample is decided by whoever asked, with all sources' scores in hand.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from genrm_api.answer_rules import AnswerRule, RuleKind
from genrm_api.comparing import Normalise, Order, ScoringMode, default_order
from genrm_api.scoring import Scoring

from genrm_scoring.alone import Own, Single, met
from genrm_scoring.failure import NO_POLICY, settle, whole_enough
from genrm_scoring.groups import Ask, Group, Report, Reported, tournament_rule
from genrm_scoring.judges.critique import with_critique
from genrm_scoring.normalise import normalise
from genrm_scoring.rules import rule_of, score_of_rule
from genrm_scoring.rules.process import Pool
from genrm_scoring.rules.worker import RuleWorker
from genrm_scoring.scorer import Scorer, score_of
from genrm_scoring.tournaments.seating import numbers
from genrm_scoring.types import Question, Sample, Score

IN_A_WORKER: Final = (RuleKind.MATH, RuleKind.PYTHON)
"""Rules that may run away: SymPy, and what users wrote."""


class Source(Protocol):
    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        """The scores of responses to one prompt, in their order.

        Raises:
            RunStopped: a failure under policy raise.
        """
        ...

    async def close(self) -> None: ...


class BuiltInRule:
    """
    Raises:
        ConfigurationError: it is none, or cannot be what is written.
    """

    def __init__(self, spec: AnswerRule) -> None:
        self._rule = rule_of(spec)

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        return [score_of_rule(self._rule, sample.response, sample.ground_truth) for sample in samples]

    async def close(self) -> None:
        pass


class WorkerRule:
    """A rule in processes of its own, as many as may work at once; `source` is the module's text, for kind python."""

    def __init__(self, spec: AnswerRule, *, processes: int = 1, source: str = "", filename: str = "") -> None:
        workers = [RuleWorker(spec, source=source, filename=filename) for _ in range(processes)]
        self._pool: Pool[RuleWorker] = Pool(workers, RuleWorker.close)

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        return await asyncio.gather(*map(self._score, samples))

    async def _score(self, sample: Sample) -> Score:
        def score(worker: RuleWorker) -> Score:
            rule = partial(
                worker,
                prompt=sample.question,
                data_source=sample.data_source,
                extra=sample.extra,
                messages=sample.messages,
            )
            return score_of_rule(rule, sample.response, sample.ground_truth)

        return await self._pool.ask(score)

    async def close(self) -> None:
        await self._pool.close()


class Pointwise:
    """Each response by itself. `scoring` says what is done to the scores of a group; without it, nothing."""

    def __init__(self, scorer: Scorer, scoring: Scoring | None = None) -> None:
        self._scorer, self._scoring = scorer, scoring

    @property
    def settles(self) -> bool:
        """Whether something is done to the scores of a group together."""
        return self._scoring is not None

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        return self.settled(await asyncio.gather(*map(self.own, samples)))

    async def own(self, sample: Sample) -> Score:
        """What the model says of a response, whatever becomes of its siblings."""
        return score_of(await self._scorer.judge(sample), NO_POLICY)

    def settled(self, found: Sequence[Score]) -> Sequence[Score]:
        """The own scores of a group, after what is done to them together.

        Raises:
            FailureRaised
        """
        if self._scoring is None:
            return found
        scaled = iter(
            normalise(self._scoring.normalise or Normalise.NONE, [s.value for s in found if s.value is not None])
        )
        found = [s if s.value is None else Score(next(scaled), s.outcome, s.source, detail=s.detail) for s in found]
        return whole_enough(settle(found, self._scoring.on_failure))

    async def close(self) -> None:
        pass


class Critiqued(Pointwise):
    """Each response by itself, by a classifier that reads a critique of it first, which another model writes."""

    def __init__(self, critic: Scorer, scorer: Scorer) -> None:
        super().__init__(scorer)
        self._critic = critic

    async def own(self, sample: Sample) -> Score:
        critique = await self._critic.ask_once(Question.about(sample))
        if critique.verdict is None or critique.answer is None:
            return replace(score_of(critique, NO_POLICY), detail=f"no critique: {critique.detail}")
        return await super().own(replace(sample, response=with_critique(sample.response, critique.answer)))


def asks_each_alone(source: Source) -> bool:
    """Whether a response's score has nothing to do with its siblings, so that it can be asked for before they exist."""
    if isinstance(source, Pointwise):
        return not source.settles
    return isinstance(source, BuiltInRule | WorkerRule)


class Pairwise:
    """A tournament of the responses, and of the anchor if `scoring` names one.

    Args:
        reported: is told of each tournament when it is over.
        own: asks about one response by itself, as `alone.own_of` makes it.

    Raises:
        ConfigurationError: `scoring` describes no tournament that can be held.
    """

    def __init__(
        self,
        scoring: Scoring,
        ask: Ask,
        patience: float,
        reported: Reported | None = None,
        own: Own | None = None,
    ) -> None:
        tournament_rule(scoring)
        self._single = Single(scoring, own)
        self._scoring, self._ask, self._patience, self._reported = scoring, ask, patience, reported

    @property
    def as_sampled(self) -> bool:
        """Whether it matters which response is which, so that all have to be there before any is asked about."""
        order = self._scoring.order or default_order(ScoringMode.PAIRWISE, self._scoring.compat)
        return order is Order.GIVEN

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        """
        Raises:
            ConfigurationError: the data set has no text for the anchor.
            RunStopped
        """
        return (await self.compared(samples))[0]

    async def compared(self, samples: Sequence[Sample]) -> tuple[Sequence[Score], Report | None]:
        """The same, with what is known of the tournament if there was one."""
        if not samples:
            return [], None
        if (group := self.group(samples[0], len(samples))) is None:
            return await self.alone(samples[0]), None
        number = numbers([sample.session for sample in samples]) if self.as_sampled else range(len(samples))
        async with group:
            scores = await asyncio.gather(*map(group.score, number, samples))
        self.over(group)
        return scores, group.report

    def group(self, first: Sample, players: int, *, gives_up: bool = True) -> Group | None:
        """The tournament that `first` and its siblings hold; None if it has none, and meets nobody: then `alone`.

        Args:
            gives_up: by itself, on who does not come; else it has to be told.

        Raises:
            ConfigurationError: the data set has no text for the anchor.
        """
        seed = hashlib.sha256(first.question.encode(errors="replace")).digest()
        patience = self._patience if gives_up else None
        if players == 1:
            opponent = self._single.opponent(first)
            rules = self._single.rules
            return None if opponent is None else Group(rules, self._ask, 1, patience, seed, opponent)
        anchor = None if self._scoring.anchor is None else met(self._scoring.anchor, first)
        return Group(self._scoring, self._ask, players, patience, seed, anchor)

    async def alone(self, sample: Sample) -> Sequence[Score]:
        """The score of a response that meets nobody, as the group that it is.

        Raises:
            FailureRaised
        """
        return await self._single.score(sample)

    def over(self, group: Group) -> None:
        if group.report is not None and self._reported is not None:
            self._reported(group.report)

    async def close(self) -> None:
        pass
