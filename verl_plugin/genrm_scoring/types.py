"""What goes through scoring: a `Sample` is asked about, a `Judgement` is one answered (or failed) question, a `Score`
is what the training run gets.

The three are values. A `Judgement` always says how it ended (`Outcome`); a `Score` without a number is a `None`, never
a zero, and a number that no judge gave says so (`ScoreSource.POLICY`). The constructors refuse everything else, so a
silent zero cannot be written down.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from genrm_scoring.endpoints import Endpoint


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
    POLICY = "policy"
    DROPPED = "dropped"
    """There is no number: the sample is not to be trained on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One response to be judged. `uid`, `session` and `step` only identify it in logs."""

    question: str
    response: str
    uid: str = ""
    session: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said (`label`, in the judge's own words) and what it is worth."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine answered to one request. Token counts are its own; `revision` and `boot_id` are the door's."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    revision: str | None = None
    boot_id: str | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One request that did not bring an answer: to whom, the kind of failure, its words, and how long it took."""

    endpoint: Endpoint
    error: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Judgement:
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

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.OK) != (self.verdict is not None):
            raise ValueError(
                f"a judgement has a verdict exactly if it is ok, not with {self.outcome} and {self.verdict}"
            )


@dataclass(frozen=True, slots=True)
class Score:
    """What a sample is worth. `value` is a number only if a judge gave it or the failure policy names it."""

    value: float | None
    outcome: Outcome
    source: ScoreSource

    def __post_init__(self) -> None:
        allowed = {
            ScoreSource.JUDGE: self.value is not None and self.outcome is Outcome.OK,
            ScoreSource.POLICY: self.value is not None and self.outcome is not Outcome.OK,
            ScoreSource.DROPPED: self.value is None and self.outcome is not Outcome.OK,
        }
        if not allowed[self.source]:
            raise ValueError(f"no score is {self.value} by {self.source} after outcome {self.outcome}")
