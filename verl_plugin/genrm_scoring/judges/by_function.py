"""Judges of which a function of the run is a part (`spec.scoring.preprocess` and `postprocess`).

The functions run in a process of their own, which is asked by `genrm_scoring.around`: before, what made the question,
so that it is `written` there; and after, what makes the number, in the place of the judge's verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from genrm_scoring.judges.judge import Messages, as_written
from genrm_scoring.parsers import Reader
from genrm_scoring.types import Answer, Question, Verdict


@dataclass(frozen=True, slots=True)
class Written:
    """A function makes its questions."""

    reader: Reader
    reads_logprobs: bool = False
    schema: Mapping[str, Any] | None = None

    def messages(self, question: Question) -> Messages:
        return as_written(question)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return self.reader(answer)


def read_by_function(answer: Answer) -> NoReturn:
    """The `Reader` of a judge whose answers a function reads."""
    raise TypeError("nobody asked the function that reads the answer")
