"""Judges: how a sample becomes a question, and an answer becomes a verdict.

A judge is pure text: `messages` writes the chat, `verdict` reads the answer. It raises `ParseFailed` where the answer
is not unmistakably a verdict; it never guesses. One judge a file; `BY_NAME` are the values of `spec.scoring.judge`.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from genrm_scoring.judges.boxed import BoxedTrueFalse
from genrm_scoring.types import Sample, Verdict

__all__ = ["BY_NAME", "BoxedTrueFalse", "Judge"]


class Judge(Protocol):
    def messages(self, sample: Sample) -> list[dict[str, str]]:
        """The chat to send. What samples of one prompt share comes first, so that engines can reuse it."""
        ...

    def verdict(self, answer: str) -> Verdict:
        """Read an answer.

        Raises:
            ParseFailed: it is no verdict.
        """
        ...


BY_NAME: Final[Mapping[str, Judge]] = {"boxed-true-false": BoxedTrueFalse()}
