"""What goes through scoring: a `Sample` is to be scored, a `Question` asks one judge about one response or several, a
`Judgement` is one answered (or failed) question, a `Score` is what the training run gets.

They are values. A `Judgement` always says how it ended (`Outcome`); a `Score` without a number is a `None`, never
a zero, and a number that no judge gave says so (`ScoreSource.POLICY`). The constructors refuse everything else, so a
silent zero cannot be written down. Each of them can be kept as JSON, and read back (`written`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genrm_scoring import ground_truths
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.written import Written


class Outcome(enum.StrEnum):
    """How a judgement ended."""

    OK = "ok"
    PARSE_FAILED = "parse_failed"
    """The judge answered, but its answer is no verdict."""
    REFUSED = "refused"
    """The engine turned the request down (4xx, content filter)."""
    ABORTED = "aborted"
    """The engine gave the request up in the middle."""
    TRUNCATED = "truncated"
    """The answer ran into its token limit."""
    TOO_LONG = "too_long"
    """The question does not fit into the judge's context."""
    TIMEOUT = "timeout"
    TRANSPORT = "transport"
    """No endpoint could be reached, or what came back was no answer."""
    ASLEEP = "asleep"
    """No endpoint was serving until the deadline."""
    SKIPPED = "skipped"
    """Never asked, because a rule made the question pointless."""


class ScoreSource(enum.StrEnum):
    """Where a score's number comes from."""

    JUDGE = "judge"
    """A reward model, or a reward API."""
    RULE = "rule"
    MIX = "mix"
    """Several terms, none of which failed."""
    POLICY = "policy"
    """Somebody wrote it down, for a failure or for a gate that is closed."""
    DROPPED = "dropped"
    """There is no number: the sample is not to be trained on."""
    GROUP_DROPPED = "group_dropped"
    """The same, because of a sibling, whatever its own outcome is."""

    @property
    def is_own(self) -> bool:
        """Whether what was asked gave the number itself."""
        return self in (ScoreSource.JUDGE, ScoreSource.RULE, ScoreSource.MIX)


@dataclass(frozen=True, slots=True)
class Sample(Written):
    """One response to be judged. `session` is its number among the responses to its prompt, which has a meaning only
    where responses are shown as sampled (`order: given`); `uid` and `step` only identify it in logs.

    Of `reference` and `ground_truth` one is enough: a reference is a ground truth, and a ground truth that is a text or
    a number has a reference.
    """

    question: str
    """The prompt as a text: what judges are shown, and what tells groups apart."""
    response: str
    uid: str = ""
    session: int | None = None
    step: int | None = None
    reference: str | None = None
    """The ground truth as a text, for judges: a final answer, or a whole response to compare with."""
    data_source: str = ""
    """Which data set the prompt is from; rules and reward APIs are told."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else the data set says of it (verl's `extra_info`), as JSON can hold it."""
    ground_truth: Any = field(default=None, hash=False)
    """What the data set says is right, as JSON holds it: for rules and reward APIs."""
    messages: tuple[tuple[str, str], ...] = ()
    """The prompt as a conversation of (role, text), where that is known: for models whose engine writes the chat."""

    def __post_init__(self) -> None:
        _complete(self)


@dataclass(frozen=True, slots=True)
class Question(Written):
    """What one judgement asks about: the responses to one prompt, in the order in which the judge sees them."""

    prompt: str
    responses: tuple[str, ...]
    reference: str | None = None
    data_source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ground_truth: Any = field(default=None, hash=False)
    messages: tuple[tuple[str, str], ...] = ()
    written: tuple[tuple[str, str], ...] = ()
    """What is asked, as (role, text), where a function of the run made it."""

    def __post_init__(self) -> None:
        _complete(self)

    @property
    def principle(self) -> str | None:
        """What a good response to this prompt is, where the data set or the client says it (`extra.principle`). Not
        what is right: that is the reference."""
        said = self.extra.get("principle")
        return said if isinstance(said, str) else None

    @classmethod
    def about(cls, sample: Sample, *others: Sample) -> Question:
        """The question about one response, or about several to the same prompt."""
        return cls(
            sample.question,
            (sample.response, *(other.response for other in others)),
            sample.reference,
            sample.data_source,
            sample.extra,
            sample.ground_truth,
            sample.messages,
        )


def _complete(known: Sample | Question) -> None:
    if known.ground_truth is None:
        object.__setattr__(known, "ground_truth", known.reference)
    elif known.reference is None:
        object.__setattr__(known, "reference", ground_truths.text_of(known.ground_truth))


@dataclass(frozen=True, slots=True)
class Verdict(Written):
    """What a judge said (`label`, in the judge's own words) and what it is worth.

    Of two responses the worth is the preference for the first, from 0 to 1; of several in a `ranking`, how far up the
    first is, from 0 to 1. `facts` are numbers to be logged beside it.
    """

    label: str
    value: float
    facts: Mapping[str, float] = field(default_factory=dict)
    ranking: Ranking | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.value} is worth nothing")


@dataclass(frozen=True, slots=True)
class Ranking(Written):
    """A judge's order of several responses, best first: each index of `Question.responses` exactly once."""

    best_first: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.best_first) != list(range(len(self.best_first))):
            raise ValueError(f"{self.best_first} is no order of {len(self.best_first)} responses")


@dataclass(frozen=True, slots=True)
class Answer(Written):
    """What an engine answered to one request. Token counts are its own; `revision` and `boot_id` are the door's."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    revision: str | None = None
    boot_id: str | None = None
    logprobs: tuple[Any, ...] | None = None
    """`choices[0].logprobs.content` of OpenAI's format, unread; `None` unless the judge asked for it."""


@dataclass(frozen=True, slots=True)
class FailedAttempt(Written):
    """One request that did not bring an answer: to whom, the kind of failure, its words, and how long it took."""

    endpoint: Endpoint
    error: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Judgement(Written):
    """One question to one reward model, from the first wait to the last attempt.

    `endpoint` is who gave `answer`; `failures` are the attempts before it. `attempts` counts requests that were sent.
    """

    outcome: Outcome
    seconds: float
    attempts: int
    verdict: Verdict | None = None
    answer: Answer | None = None
    endpoint: Endpoint | None = None
    failures: tuple[FailedAttempt, ...] = ()
    detail: str = ""
    votes: tuple[Judgement, ...] = ()
    """What it was made of, if the question was asked several times; then it has no answer and no endpoint itself."""

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.OK) != (self.verdict is not None):
            raise ValueError(
                f"a judgement has a verdict exactly if it is ok, not with {self.outcome} and {self.verdict}"
            )


def _refuse_silence(value: float | None, outcome: Outcome, source: ScoreSource) -> None:
    """
    Raises:
        ValueError: number, outcome and source contradict each other, or the number is none.
    """
    fits = {
        ScoreSource.POLICY: value is not None and outcome is not Outcome.OK,
        ScoreSource.DROPPED: value is None and outcome is not Outcome.OK,
        ScoreSource.GROUP_DROPPED: value is None,
    }
    if not fits.get(source, value is not None and outcome is Outcome.OK):
        raise ValueError(f"no score is {value} by {source} after outcome {outcome}")
    if value is not None and not math.isfinite(value):
        raise ValueError(f"no score is {value}")


@dataclass(frozen=True, slots=True)
class TermScore(Written):
    """What one term gave to a mixed score.

    `raw` is the number of what was asked, `value` what was left of it after transform and normalisation, or what a
    policy put there: the number that was weighted and combined. Without a `value` the term took no part.
    """

    name: str
    value: float | None
    outcome: Outcome
    source: ScoreSource
    raw: float | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        _refuse_silence(self.value, self.outcome, self.source)


@dataclass(frozen=True, slots=True)
class Score(Written):
    """What a sample is worth. `value` is a number only if somebody gave it or a policy names it.

    `terms` are what a mixed score was made of; `detail` is what a rule found, or why there is no number of its own.
    """

    value: float | None
    outcome: Outcome
    source: ScoreSource
    terms: tuple[TermScore, ...] = ()
    detail: str = ""

    def __post_init__(self) -> None:
        _refuse_silence(self.value, self.outcome, self.source)

    @property
    def failed(self) -> bool:
        """Whether what was asked for did not come, whatever a policy made of it. A mixed score that closed gates left
        without any term was not asked for."""
        return self.outcome is not Outcome.OK and not (self.outcome is Outcome.SKIPPED and self.terms)
