"""A judge from a template and a reader: what `spec.scoring.template` and `parse` describe, and most built-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genrm_scoring.errors import ConfigurationError, Unaskable
from genrm_scoring.ground_truths import in_words
from genrm_scoring.judges.judge import Messages, said_by_user
from genrm_scoring.parsers import Reader
from genrm_scoring.templates import ONE, PAIR, Template, Value
from genrm_scoring.templates.sandbox import FIELD
from genrm_scoring.types import Answer, Question, Verdict

Values = Callable[[Question], Mapping[str, Value]]


def about_one(question: Question) -> Mapping[str, Value]:
    """The variables of a question about one response."""
    (response,) = question.responses
    return {**about_all(question), "response": response}


def about_two(question: Question) -> Mapping[str, Value]:
    """The variables of a question about two: A is the first."""
    a, b = question.responses
    return {**about_all(question), "response_a": a, "response_b": b}


def about_all(question: Question) -> Mapping[str, Value]:
    """The variables of a question about several, which all others have too."""
    return {
        "question": question.prompt,
        "responses": question.responses,
        "reference": question.reference,
        "principle": question.principle,
        "extra": question.extra,
        "ground_truth": question.ground_truth,
    }


def asked(template: Template, question: Question, values: Values = about_one) -> Messages:
    """
    Raises:
        Unaskable: the sample lacks what the template writes, or has a reference in another form than a text.
        PromptTooLong
    """
    variables = template.variables
    if "reference" in variables and "ground_truth" not in variables:
        refuse_hidden_reference(question)
    return said_by_user(template.render(values(question)))


def refuse_hidden_reference(question: Question) -> None:
    """A judge that would be shown a reference is not to judge without it where there is one.

    Raises:
        Unaskable: the ground truth is no text.
    """
    if question.reference is None and question.ground_truth is not None:
        raise Unaskable(
            f"the judge is shown a reference, and the ground truth is {in_words(question.ground_truth)}, of which "
            "none is the text to show; write a template with ground_truth (ground_truth.KEY, ground_truth | json)"
        )


@dataclass(frozen=True, slots=True)
class Templated:
    template: Template
    reader: Reader
    values: Values = about_one
    reads_logprobs: bool = False
    schema: Mapping[str, Any] | None = None

    def messages(self, question: Question) -> Messages:
        return asked(self.template, question, self.values)

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
