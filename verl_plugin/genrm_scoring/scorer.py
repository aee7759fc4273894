"""One judgement from end to end.

    wait until somebody serves → pick → ask → read        all under the deadline of `spec.scoring.timeout`
              ↑____ transient failure: another endpoint, if the retry budget allows

A fleet that sleeps is not a failure: the judgement waits for the wake. A judgement that fails is not an exception: it
comes back as a `Judgement` that says how it ended, and `score_of` applies the failure policy to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from genrm_api import durations
from genrm_api.judging import Votes
from genrm_api.rewardmodel import EngineName, FailurePolicy, OnFailure, Scoring

from genrm_scoring.around import Around
from genrm_scoring.balancing import Balancer, LeastInFlight
from genrm_scoring.calibration import calibrated
from genrm_scoring.endpoints import Endpoint, Endpoints, Snapshot
from genrm_scoring.errors import (
    AttemptFailed,
    AttemptTimeout,
    ConfigurationError,
    FunctionTimedOut,
    GenrmError,
    NoEndpoint,
    NotServing,
    ParseFailed,
    Transient,
)
from genrm_scoring.judges import Judge, judge_of
from genrm_scoring.retries import RetryBudget
from genrm_scoring.speech import Chat, Speech
from genrm_scoring.transport import Transport
from genrm_scoring.types import (
    Answer,
    FailedAttempt,
    Judgement,
    Outcome,
    Question,
    Sample,
    Score,
    ScoreSource,
    Verdict,
)
from genrm_scoring.votes import combined

Told = Callable[[Question, Judgement], None]

SAME_ENDPOINT_BACKOFF: Final = (0.1, 0.3, 1.0, 2.0)
"""Seconds before an endpoint that failed a judgement is asked the same again, because there is no other."""
FIRST_ATTEMPT_SHARE: Final = 0.5
"""Of the whole deadline, for one attempt while there are others to ask: a hanging endpoint must leave time for them.
After one such time-out the next attempt gets all that is left: it may be the question that takes long."""


def score_of(judgement: Judgement, on_failure: OnFailure) -> Score:
    """What a judgement means for its sample."""
    if judgement.verdict is not None:
        return Score(judgement.verdict.value, judgement.outcome, ScoreSource.JUDGE)
    if on_failure.policy is FailurePolicy.VALUE:
        return Score(on_failure.value, judgement.outcome, ScoreSource.POLICY, detail=judgement.detail)
    return Score(None, judgement.outcome, ScoreSource.DROPPED, detail=judgement.detail)


@dataclass(slots=True)
class _Trial:
    """What one judgement has been through so far."""

    body: bytes
    affinity: bytes
    began: float
    deadline: float
    avoid: set[Endpoint] = field(default_factory=set)
    failures: list[FailedAttempt] = field(default_factory=list)
    last_error: AttemptFailed | None = None
    retries: int = 0
    timed_out: bool = False
    asleep_until: float = 0.0
    """When it was last seen that nobody serves; of no meaning before `began`."""
    endpoint: Endpoint | None = None

    def slept_through(self, now: float) -> bool:
        """Whether most of the time went into waiting for a wake: the moments left to ask are not the engine's fault."""
        return self.asleep_until - self.began > now - self.asleep_until


class Scorer:
    """Judges samples for one reward model; belongs to one event loop. All time is that loop's clock."""

    def __init__(
        self,
        scoring: Scoring,
        model: str,
        endpoints: Endpoints,
        transport: Transport,
        balancer: Balancer | None = None,
        budget: RetryBudget | None = None,
        engine: EngineName = EngineName.VLLM,
        judge: Judge | None = None,
        speech: Speech | None = None,
        told: Told | None = None,
        around: Around | None = None,
    ) -> None:
        """`judge` stands in for the one that `scoring` describes, `speech` for a judge in OpenAI's chat. `told` hears
        of every question that was asked. `around` are the functions that `scoring` names, if it does.

        Raises:
            ConfigurationError: the judge's template or parser cannot work, or nobody brought the functions.
        """
        if around is None and (function := scoring.preprocess or scoring.postprocess) is not None:
            field = "scoring.preprocess" if scoring.preprocess is not None else "scoring.postprocess"
            raise ConfigurationError(field, f"{function.function} is a function of a run, and none was brought here")
        self._scoring = scoring
        self._around = around
        self._speech = speech or Chat(judge or judge_of(scoring), model, scoring.sampling, engine)
        self._votes = scoring.votes or Votes(count=1)
        self._timeout = durations.seconds(scoring.timeout)
        self._endpoints = endpoints
        self._transport = transport
        self._balancer = balancer or LeastInFlight()
        self._budget = budget or RetryBudget()
        self._told = told

    def asking(self, scoring: Scoring) -> Scorer:
        """The same model, asked as `scoring` says: at the same endpoints, and out of the same budget for retries.

        Raises:
            TypeError: it does not answer in words.
        """
        if not isinstance(self._speech, Chat):
            raise TypeError(f"a model that is asked by {type(self._speech).__name__} has no judge to choose")
        speech = replace(self._speech, judge=judge_of(scoring), sampling=scoring.sampling)
        shared = self._endpoints, self._transport, self._balancer, self._budget
        return Scorer(scoring, speech.model, *shared, speech=speech, told=self._told)

    async def score(self, sample: Sample) -> tuple[Judgement, Score]:
        judgement = await self.judge(sample)
        return judgement, score_of(judgement, self._scoring.on_failure)

    async def judge(self, sample: Sample) -> Judgement:
        """Ask about one sample. Never raises for a judgement that fails, and returns by the deadline."""
        return self._calibrated(await self.ask(Question.about(sample)))

    async def ask(self, question: Question) -> Judgement:
        """Ask one question, as often as `spec.scoring.votes` says. Never raises for a judgement that fails."""
        if self._votes.count == 1:
            return await self.ask_once(question)
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._vote(question, number)) for number in range(self._votes.count)]
        except* GenrmError as failed:  # a function of the user that cannot be called at all
            raise failed.exceptions[0] from None
        return self._heard(question, combined([task.result() for task in asked], self._votes.combine))

    async def ask_once(self, question: Question, number: int = 0) -> Judgement:
        """Ask one question once, as vote `number` of those that somebody else combines. Never raises for a judgement
        that fails."""
        return self._heard(question, await self._vote(question, number))

    def _heard(self, question: Question, judgement: Judgement) -> Judgement:
        if self._told is not None:
            self._told(question, judgement)
        return judgement

    def _calibrated(self, judgement: Judgement) -> Judgement:
        if judgement.verdict is None or self._scoring.calibrate is None:
            return judgement
        raw = judgement.verdict
        try:
            value = calibrated(raw.value, self._scoring.calibrate)
        except ParseFailed as e:
            return replace(judgement, outcome=e.outcome, verdict=None, detail=str(e))
        return replace(judgement, verdict=replace(raw, value=value, facts={**raw.facts, "uncalibrated": raw.value}))

    async def _vote(self, question: Question, number: int) -> Judgement:
        """Ask once, with the seed of this vote."""
        started = _now()
        self._budget.judgement_started()
        trial = _Trial(b"", question.prompt.encode(errors="replace"), started, started + self._timeout)
        try:
            trial.body = self._speech.body(await self._written(question, trial.deadline), number)
            answer = await self._answer(trial)
        except AttemptFailed as e:
            return self._ended(trial, started, e.outcome, detail=str(e))
        try:
            verdict = await self._verdict(answer, question, trial.deadline)
        except AttemptFailed as e:
            return self._ended(trial, started, e.outcome, answer=answer, detail=str(e))
        return Judgement(
            Outcome.OK,
            seconds=_now() - started,
            attempts=len(trial.failures) + 1,
            verdict=verdict,
            answer=answer,
            endpoint=trial.endpoint,
            failures=tuple(trial.failures),
        )

    async def _written(self, question: Question, deadline: float) -> Question:
        """
        Raises:
            AttemptFailed: a function makes the question, and did not.
        """
        if self._around is None or not self._around.asks:
            return question
        async with _until(deadline, "question was made"):
            return replace(question, written=await self._around.written(question))

    async def _verdict(self, answer: Answer, question: Question, deadline: float) -> Verdict:
        """
        Raises:
            AttemptFailed: it is no verdict, or a function that reads it did not.
        """
        if self._around is None or not self._around.reads:
            return self._speech.verdict(answer, question)
        speaks = isinstance(self._speech, Chat)
        said = answer.text if speaks else self._speech.verdict(answer, question).value
        async with _until(deadline, "answer was read"):
            return await self._around.verdict(question, said)

    def _ended(
        self, trial: _Trial, started: float, outcome: Outcome, detail: str, answer: Answer | None = None
    ) -> Judgement:
        attempts = len(trial.failures) + (answer is not None)
        endpoint = trial.endpoint if answer else None
        return Judgement(
            outcome, _now() - started, attempts, None, answer, endpoint, failures=tuple(trial.failures), detail=detail
        )

    async def _answer(self, trial: _Trial) -> Answer:
        """Ask until somebody answers.

        Raises:
            AttemptFailed: the last failure, when asking again is pointless or not allowed.
        """
        while True:
            endpoint, others = await self._endpoint(trial)
            began = _now()
            try:
                return await self._ask(trial, endpoint, alone=not others)
            except AttemptFailed as e:
                trial.failures.append(FailedAttempt(endpoint, type(e).__name__, str(e), _now() - began))
                trial.avoid.add(endpoint)
                trial.last_error = e
                if isinstance(e, NotServing):
                    trial.asleep_until = _now()
                if isinstance(e, AttemptTimeout) and _now() >= trial.deadline and trial.slept_through(_now()):
                    raise self._nobody_served() from e
                if not isinstance(e, Transient) or _now() >= trial.deadline:
                    raise
                if isinstance(e, NotServing):
                    continue  # that is waiting for a wake, not asking again
                if not self._budget.spend(trial.retries):
                    raise
                trial.retries += 1

    async def _endpoint(self, trial: _Trial) -> tuple[Endpoint, bool]:
        """Wait until somebody serves; say whether there are others beside.

        Raises:
            NotServing, AttemptFailed: the deadline passed.
        """
        while True:
            snapshot, now = self._endpoints.snapshot(), _now()
            if now >= trial.deadline:
                raise self._too_late(trial, snapshot)
            try:
                endpoint = self._balancer.pick(snapshot.endpoints, trial.avoid, trial.affinity, now)
            except NoEndpoint as e:
                until = trial.deadline if e.retry_at is None else min(trial.deadline, e.retry_at)
                await self._endpoints.wait_for_change(snapshot.version, until - now)
                if not snapshot.endpoints:
                    trial.asleep_until = _now()
                continue
            if endpoint in trial.avoid:
                pause = (
                    SAME_ENDPOINT_BACKOFF[min(trial.retries, len(SAME_ENDPOINT_BACKOFF)) - 1] if trial.retries else 0.0
                )
                trial.avoid.clear()
                await self._endpoints.wait_for_change(snapshot.version, min(pause, trial.deadline - now))
                continue
            return endpoint, len(snapshot.endpoints) > 1

    def _too_late(self, trial: _Trial, snapshot: Snapshot) -> AttemptFailed:
        if snapshot.problem:
            return AttemptFailed(snapshot.problem)
        if snapshot.endpoints and trial.last_error:
            return trial.last_error
        return self._nobody_served()

    def _nobody_served(self) -> NotServing:
        return NotServing(f"no endpoint was serving within {self._timeout:g} s")

    async def _ask(self, trial: _Trial, endpoint: Endpoint, alone: bool) -> Answer:
        left = trial.deadline - _now()
        limit = left if alone or trial.timed_out else min(left, self._timeout * FIRST_ATTEMPT_SHARE)
        trial.endpoint = endpoint
        failure: AttemptFailed | None = None
        self._balancer.started(endpoint, _now())
        try:
            async with asyncio.timeout(limit):
                body = trial.body
                if (route := self._speech.renders_at) is not None:
                    body = self._speech.rendered(await self._transport.post(endpoint.url + route, body, limit))
                reply = await self._transport.post(endpoint.url + self._speech.path, body, limit)
            return self._speech.answer(reply)
        except TimeoutError:
            trial.timed_out = True
            failure = AttemptTimeout(f"no answer within {limit:.1f} s")
            raise failure from None
        except AttemptFailed as e:
            failure = e
            raise
        finally:
            self._balancer.finished(endpoint, failure, _now())


@asynccontextmanager
async def _until(deadline: float, what: str) -> AsyncIterator[None]:
    """
    Raises:
        FunctionTimedOut
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise FunctionTimedOut(f"no {what} before the judgement's deadline: the functions are busy") from None


def _now() -> float:
    return asyncio.get_running_loop().time()
