"""What a judge is: pure text, a question into messages, an answer into a verdict.

A *question* is about one response (pointwise), two (pairwise) or several (listwise) to one prompt, in the order in
which the judge sees them. Who asks knows which response that was: a judge knows nothing of groups, orders or retries.
The verdict of a pointwise judge is what the response is worth; of a pairwise one, the preference for the first
response, from 0 to 1; a listwise judge answers with a `Ranking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from genrm_scoring.types import Answer, Question, Ranking, Verdict

Messages = list[dict[str, str]]
"""A chat in OpenAI's form."""


class Asks(Protocol):
    """What all judges do."""

    @property
    def reads_logprobs(self) -> bool:
        """Whether the engine is to send the probabilities of what it says."""
        ...

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON that it reads, as JSON Schema: what an answer can be held to."""
        ...

    def messages(self, question: Question) -> Messages:
        """The chat to send. What questions about one prompt share comes first, so that engines can reuse it.

        Raises:
            Unaskable: the sample lacks what the judge needs.
            PromptTooLong: no context would hold it.
        """
        ...


class Judge(Asks, Protocol):
    """Of one response, of two, or of several: then its verdicts hold a ranking."""

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        """Read an answer.

        Raises:
            ParseFailed: it is no verdict.
        """
        ...


class RankingJudge(Judge, Protocol):
    """Of several."""

    def ranking(self, answer: Answer, question: Question) -> Ranking:
        """Read an answer.

        Raises:
            ParseFailed: it is no order of all responses.
        """
        ...


def an_object(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an object with these fields and no others."""
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


def as_written(question: Question) -> Messages:
    """The chat that a function made of it."""
    assert question.written, "nobody asked the function that makes the question"
    return [{"role": role, "content": text} for role, text in question.written]


def said_by_user(text: str) -> Messages:
    """A chat of one message. One message holds everything, so that no value can begin another."""
    return [{"role": "user", "content": text}]
