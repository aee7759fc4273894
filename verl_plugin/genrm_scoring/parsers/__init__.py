"""Parsers: how an answer becomes a verdict. Pure text; one kind a file.

    answer ──thinking──> what was said ──boxed, tag, regex, json, number──> label ──worth──> verdict

A parser never guesses: no default number, no default tie, no order of input. What is not unmistakably a verdict raises
`ParseFailed`. Every parser takes time linear in the answer, or refuses what would take longer. `reader_of` puts
together what `spec.scoring.parse` describes; the built-in judges use the same parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from genrm_api.comparing import ScoringMode
from genrm_api.judging import Parse, ParseKind
from genrm_api.labels import with_labels

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.parsers.boxed import boxed
from genrm_scoring.parsers.json_object import JsonObject, last_object
from genrm_scoring.parsers.logprob import Distribution, LogprobReader, distribution
from genrm_scoring.parsers.number import only_number
from genrm_scoring.parsers.ranking import ranking
from genrm_scoring.parsers.regex import LastMatch
from genrm_scoring.parsers.tag import tagged
from genrm_scoring.parsers.thinking import spoken, spoken_span
from genrm_scoring.parsers.worth import Worth
from genrm_scoring.types import Answer, Verdict

__all__ = [
    "Distribution",
    "JsonObject",
    "LastMatch",
    "LogprobReader",
    "Reader",
    "TextReader",
    "Worth",
    "boxed",
    "distribution",
    "last_object",
    "only_number",
    "ranking",
    "reader_of",
    "spoken",
    "spoken_span",
    "tagged",
]

Reader = Callable[[Answer], Verdict]
"""Raises `ParseFailed`."""
_AS_IT_STANDS: Final = Worth()


@dataclass(frozen=True, slots=True)
class TextReader:
    """Finds a label in what was said, and says what it is worth."""

    label: Callable[[str], str]
    worth: Worth = _AS_IT_STANDS
    strip_thinking: bool = True

    def __call__(self, answer: Answer) -> Verdict:
        return self.worth.of(self.label(spoken(answer.text, strip_thinking=self.strip_thinking)))


def reader_of(parse: Parse, mode: ScoringMode | None = None) -> Reader:
    """What `spec.scoring.parse` describes in a mode.

    Raises:
        ConfigurationError: its pattern is none, its labels cannot be told apart, or it is a ranking, which no reader
            of one number can read.
    """
    worth = Worth(parse.values, parse.minimum, parse.maximum)
    match parse.kind:
        case ParseKind.LOGPROB:
            return LogprobReader(with_labels(parse, mode).values or {}, worth, parse.strip_thinking)
        case ParseKind.RANKING:
            raise ConfigurationError("scoring.parse.kind", "ranking orders several responses; write another kind")
    return TextReader(_label_finder(parse), worth, parse.strip_thinking)


def _label_finder(parse: Parse) -> Callable[[str], str]:
    match parse.kind:
        case ParseKind.TAG if parse.tag is not None:
            tag = parse.tag
            return lambda text: tagged(text, tag)
        case ParseKind.REGEX if parse.pattern is not None:
            return LastMatch(parse.pattern)
        case ParseKind.JSON if parse.field is not None:
            path = parse.field.split(".")
            return lambda text: last_object(text).label(path)
        case ParseKind.NUMBER:
            return only_number
        case _:
            return boxed
