"""Where the numbers of a group come from: rules, and reward models that look at responses one by one or in pairs.

A source is given responses to one prompt and brings a score for each. What fails comes back as a failed score: what
that means for the sample is decided by whoever asked, with all sources' scores in hand.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from genrm_api.answer_rules import AnswerRule, RuleKind
from genrm_api.judging import FailurePolicy, OnFailure
from genrm_api.scoring import Normalise, Scoring

from genrm_scoring.failure import settle, whole_enough
from genrm_scoring.groups import Ask, Group
from genrm_scoring.normalise import normalise
from genrm_scoring.rules import rule_of, score_of_rule
from genrm_scoring.rules.worker import RuleWorker
from genrm_scoring.scorer import Scorer, score_of
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource

IN_A_WORKER: Final = (RuleKind.MATH, RuleKind.PYTHON)
"""Rules that may run away: SymPy, and what users wrote."""
_NO_POLICY: Final = OnFailure(policy=FailurePolicy.DROP)


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
        return [score_of_rule(self._rule, sample.response, sample.reference) for sample in samples]

    async def close(self) -> None:
        pass


class WorkerRule:
    """A rule in processes of its own, as many as may work at once; `source` is the module's text, for kind python."""

    def __init__(self, spec: AnswerRule, *, processes: int = 1, source: str = "", filename: str = "") -> None:
        self._workers = [RuleWorker(spec, source=source, filename=filename) for _ in range(processes)]
        self._idle: asyncio.Queue[RuleWorker] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        return await asyncio.gather(*map(self._score, samples))

    async def _score(self, sample: Sample) -> Score:
        worker = await self._idle.get()
        try:
            rule = partial(worker, prompt=sample.question, data_source=sample.data_source, extra=sample.extra)
            return await asyncio.to_thread(score_of_rule, rule, sample.response, sample.reference)
        finally:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(worker.close) for worker in self._workers))


class Pointwise:
    """Each response by itself. `scoring` says what is done to the scores of a group; without it, nothing."""

    def __init__(self, scorer: Scorer, scoring: Scoring | None = None) -> None:
        self._scorer, self._scoring = scorer, scoring

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        judgements = await asyncio.gather(*map(self._scorer.judge, samples))
        found = [score_of(judgement, _NO_POLICY) for judgement in judgements]
        if self._scoring is None:
            return found
        scaled = iter(
            normalise(self._scoring.normalise or Normalise.NONE, [s.value for s in found if s.value is not None])
        )
        found = [s if s.value is None else Score(next(scaled), s.outcome, s.source, detail=s.detail) for s in found]
        return whole_enough(settle(found, self._scoring.on_failure))

    async def close(self) -> None:
        pass


class Pairwise:
    """A tournament of the responses. One response alone has nobody to be compared with."""

    def __init__(self, scoring: Scoring, ask: Ask, patience: float) -> None:
        self._scoring, self._ask, self._patience = scoring, ask, patience

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        if not samples:
            return []
        if len(samples) == 1:
            why = "one response alone: there is nobody to compare it with"
            alone = Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, detail=why)
            return settle([alone], self._scoring.on_failure)
        seed = hashlib.sha256(samples[0].question.encode(errors="replace")).digest()
        async with Group(self._scoring, self._ask, len(samples), self._patience, seed) as group:
            return await asyncio.gather(*(group.score(i, sample) for i, sample in enumerate(samples)))

    async def close(self) -> None:
        pass
