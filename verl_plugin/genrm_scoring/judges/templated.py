"""A judge from a template and a reader: what `spec.scoring.template` and `parse` describe, and most built-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.judges.judge import Messages, said_by_user
from genrm_scoring.parsers import Reader
from genrm_scoring.templates import ONE, PAIR, Template, Value
from genrm_scoring.templates.sandbox import FIELD
from genrm_scoring.types import Answer, Question, Verdict

Values = Callable[[Question], Mapping[str, Value]]


def about_one(question: Question) -> Mapping[str, Value]:
    """The variables of a question about one response."""
    (response,) = question.responses
    return {"question": question.prompt, "response": response, "reference": question.reference}


def about_two(question: Question) -> Mapping[str, Value]:
    """The variables of a question about two: A is the first."""
    a, b = question.responses
    return {"question": question.prompt, "response_a": a, "response_b": b, "reference": question.reference}


@dataclass(frozen=True, slots=True)
class Templated:
    template: Template
    reader: Reader
    values: Values = about_one
    reads_logprobs: bool = False
    schema: Mapping[str, Any] | None = None

    def messages(self, question: Question) -> Messages:
        return said_by_user(self.template.render(self.values(question)))

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return self.reader(answer)


def pointwise(
    source: str, reader: Reader, *, reads_logprobs: bool = False, schema: Mapping[str, Any] | None = None
) -> Templated:
    """A judge of one response.

    Raises:
        ConfigurationError: the template is none, or asks the same of every response.
    """
    return Templated(using(source, ONE, {"response"}), reader, about_one, reads_logprobs, schema)


def pairwise(
    source: str, reader: Reader, *, reads_logprobs: bool = False, schema: Mapping[str, Any] | None = None
) -> Templated:
    """A judge of two responses; `reader` gives the preference for the first.

    Raises:
        ConfigurationError: the template is none, or leaves a response out.
    """
    return Templated(using(source, PAIR, {"response_a", "response_b"}), reader, about_two, reads_logprobs, schema)


def using(source: str, variables: frozenset[str], needed: set[str]) -> Template:
    """A template that may write these variables, and writes those that are needed.

    Raises:
        ConfigurationError
    """
    template = Template(source, variables)
    if missing := sorted(needed - template.variables):
        raise ConfigurationError(FIELD, f"never writes {missing[0]}; write {{{{ {missing[0]} }}}} where it goes, last")
    return template
