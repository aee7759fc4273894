"""Rules: what scores a response without asking a model.

A rule compares a response with the ground truth of its prompt, or looks at its form. It costs no GPU, which is why
gates stand on rules. The built-in kinds give a number from 0 to 1; what else it should be worth says the term's
transform. `python` is a function of the run, or of a ConfigMap that the run approves by its hash: it runs in the
trainer or the gateway, never in the operator.
"""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from genrm_api.functions import FunctionName, FunctionSource, file_rule
from genrm_api.lifecycle import camel
from genrm_api.rules import ApiModel, Rule, in_cel, quoted, rule
from genrm_api.values import Flag, Int, Number

TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=63)]
WHERE: Final = "spec.terms.rule"


class RuleKind(enum.StrEnum):
    EXACT = "exact"
    NUMERIC = "numeric"
    MATH = "math"
    REGEX = "regex"
    FORMAT = "format"
    LENGTH = "length"
    PYTHON = "python"


class Extract(enum.StrEnum):
    """Where in a response its final answer is."""

    WHOLE = "whole"
    BOXED = "boxed"
    TAG = "tag"
    AFTER = "after"


class LengthUnit(enum.StrEnum):
    CHARACTERS = "characters"
    WORDS = "words"


def _only_of(kinds: tuple[RuleKind, ...], *fields: str) -> tuple[Rule, ...]:
    """None of `fields` is written for another kind."""
    fits = ", ".join(quoted(kind) for kind in kinds)
    instead = f"; remove it or write kind: {' or '.join(kinds)}"

    def one(field: str) -> Rule:
        name = camel(field)

        def found_wrong(found: AnswerRule) -> str | None:
            if found.kind in kinds or getattr(found, field) is None:
                return None
            return f"{WHERE}.{name}: found with kind {found.kind}{instead}"

        return Rule(
            cel=f"self.kind in [{fits}] || !has(self.{in_cel(name)})",
            message=f"'{WHERE}.{name}: found with kind ' + self.kind + {quoted(instead)}",
            found_wrong=found_wrong,
        )

    return tuple(one(field) for field in fields)


def _needed_by(kind: RuleKind, field: str, what: str) -> Rule:
    return rule(
        f"self.kind != '{kind}' || has(self.{in_cel(field)})",
        f"{WHERE}.{field}: missing with kind {kind}; write {what}",
        lambda found: found.kind is kind and getattr(found, field) is None,
    )


def _belongs(extract: Extract, field: str, what: str) -> tuple[Rule, Rule]:
    """`field` is there exactly if the answer is found in this way."""
    chosen = f"(has(self.extract) && self.extract == '{extract}')"
    return (
        rule(
            f"!{chosen} || has(self.{field})",
            f"{WHERE}.{field}: missing with extract {extract}; write {what}",
            lambda found: found.extract is extract and getattr(found, field) is None,
        ),
        rule(
            f"{chosen} || !has(self.{field})",
            f"{WHERE}.{field}: found without extract: {extract}; remove it or write extract: {extract}",
            lambda found: found.extract is not extract and getattr(found, field) is not None,
        ),
    )


_COMPARES: Final = (RuleKind.EXACT, RuleKind.NUMERIC, RuleKind.MATH)


class AnswerRule(ApiModel):
    kind: RuleKind = Field(
        description="exact: the answer is the ground truth, but for the space around it. numeric: its last number is "
        "that of the ground truth. math: it is mathematically equal, as Math-Verify finds. regex: pattern occurs in "
        "the response. format: the response consists of these tags, each once and in order. length: it is as long as "
        "wanted. python: a function says."
    )
    extract: Extract | None = Field(
        None,
        description="Where the answer is, for kinds exact, numeric and math. whole: the response. boxed: the last "
        "\\boxed{}. tag: the last <tag>. after: what follows the last of the text in `after`, up to the end of the "
        "line. A response without such an answer is a wrong one. Default: whole; for math all that Math-Verify finds.",
    )
    tag: TagName | None = Field(None, description="Name of the tag, for extract tag.")
    after: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None, description="Text before the answer, for extract after: #### in GSM8K."
    )
    ignore_case: Flag | None = Field(None, description="For kind exact: A is a. Default: false.")
    tolerance: Annotated[Number, Field(ge=0)] | None = Field(
        None,
        description="For kind numeric: how far the numbers may lie apart, as a share of the larger, or absolutely "
        "below 1. Default: 1e-6.",
    )
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        None, description="Regular expression, for kind regex."
    )
    tags: Annotated[list[TagName], Field(min_length=1, max_length=8)] | None = Field(
        None, description="Names of the tags, for kind format: think and answer, for example."
    )
    unit: LengthUnit | None = Field(
        None, description="What kind length counts: characters or words. Default: characters."
    )
    minimum: Annotated[Int, Field(ge=0)] | None = Field(None, description="Shortest length that is worth 1.")
    maximum: Annotated[Int, Field(ge=0)] | None = Field(None, description="Longest length that is worth 1.")
    margin: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="Over so many units beyond these a length loses its worth, evenly. Default: 0, at once."
    )
    function: FunctionName | None = Field(
        None,
        description="Name of the function, for kind python; where a run brings several files, FILE.FUNCTION: "
        "rw_custom.compute_score.",
    )
    config_map: FunctionSource | None = Field(
        None,
        description="Where its module is, for kind python. A run must approve it by its hash. Absent: the run's own "
        "Python files.",
    )

    rules: ClassVar = (
        *_only_of(_COMPARES, "extract"),
        *_only_of((RuleKind.EXACT,), "ignore_case"),
        *_only_of((RuleKind.NUMERIC,), "tolerance"),
        *_only_of((RuleKind.REGEX,), "pattern"),
        *_only_of((RuleKind.FORMAT,), "tags"),
        *_only_of((RuleKind.LENGTH,), "unit", "minimum", "maximum", "margin"),
        *_only_of((RuleKind.PYTHON,), "function", "config_map"),
        _needed_by(RuleKind.REGEX, "pattern", "a regular expression"),
        _needed_by(RuleKind.FORMAT, "tags", "the names of the tags"),
        _needed_by(RuleKind.PYTHON, "function", "the name of the function"),
        file_rule(WHERE),
        *_belongs(Extract.TAG, "tag", "the name of the tag"),
        *_belongs(Extract.AFTER, "after", "the text before the answer"),
        rule(
            "self.kind != 'length' || has(self.minimum) || has(self.maximum)",
            f"{WHERE}.minimum: missing with kind length, and maximum too; write one of them, or both",
            lambda r: r.kind is RuleKind.LENGTH and r.minimum is None and r.maximum is None,
        ),
        rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            f"{WHERE}.minimum: above maximum, so that no length is worth 1; write a smaller one",
            lambda r: r.minimum is not None and r.maximum is not None and r.minimum > r.maximum,
        ),
        rule(
            "!has(self.tags) || self.tags.all(a, self.tags.exists_one(b, a == b))",
            f"{WHERE}.tags: the same tag twice; write each once",
            lambda r: r.tags is not None and len(set(r.tags)) < len(r.tags),
        ),
    )
