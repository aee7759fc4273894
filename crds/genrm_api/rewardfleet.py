"""RewardFleet: several reward models, rules and reward APIs that give one score together.

The classes are the schema, by the conventions of `rewardmodel`. This module holds the resource and the rules between
its terms; `terms` holds one term, `answer_rules` what a rule is. What the numbers mean is told in
docs/explanation/mixing.md and carried out by genrm_scoring.mixing: an expression, for one, is parsed there, and here
only its words are known.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from genrm_api.judging import OnFailure, value_rules
from genrm_api.names import API_VERSION
from genrm_api.rules import NAME_RULE, ApiModel, Rule, in_cel, quoted, rule, with_found
from genrm_api.status import Condition
from genrm_api.terms import FUNCTIONS, KEYWORDS, ElsePolicy, Term, TermCombine
from genrm_api.values import Int, Number


class FleetCombine(enum.StrEnum):
    ADD = "add"
    MUL = "mul"
    MIN = "min"
    MAX = "max"
    GEOMEAN = "geomean"
    POWER = "power"
    EXPRESSION = "expression"

    @property
    def folds(self) -> bool:
        """Whether terms join one after another, each in a way of its own if it says so."""
        return self in (FleetCombine.ADD, FleetCombine.MUL)


class FleetFailure(OnFailure):
    rules: ClassVar = value_rules("spec.onFailure")


class FleetBreaker(ApiModel):
    """Stops a run whose scores are mostly failures."""

    max_failed_fraction: Annotated[Number, Field(gt=0, le=1)] = Field(
        0.2, description="A larger share of failed scores in one step stops the run. 1: never."
    )
    minimum_count: Annotated[Int, Field(ge=1)] = Field(
        32, description="Nothing is decided before so many scores of a step are there."
    )


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)


def _about(sentence: str, cel: str, found: Callable[[RewardFleetSpec], Iterable[str]]) -> Rule:
    """A rule that no term, or word, breaks; `sentence` has a %d for the first that does, `cel` is the list of them."""

    def found_wrong(spec: RewardFleetSpec) -> str | None:
        name = _first(found(spec))
        return None if name is None else sentence.replace("%d", name)

    return Rule(cel=f"{cel}.size() == 0", message=with_found(sentence, f"{cel}[0]"), found_wrong=found_wrong)


def _of_terms(broken: str) -> str:
    """CEL for the names of the terms `t` that break a rule."""
    return f"self.terms.filter(t, {broken}).map(t, t.name)"


_WORD: Final = "[A-Za-z_][A-Za-z0-9_]*"
_SPOKEN: Final = f"self.expression.findAll('{_WORD}')"
_OF_THE_LANGUAGE: Final = (*FUNCTIONS, *KEYWORDS)


def _words(spec: RewardFleetSpec) -> list[str]:
    return re.findall(_WORD, spec.expression or "")


def _named_twice(spec: RewardFleetSpec) -> list[str]:
    names = [term.name for term in spec.terms]
    return [name for name in names if names.count(name) > 1]


def _gated_by_none(spec: RewardFleetSpec) -> list[str]:
    keepers = {term.name for term in spec.terms if term.rule is not None and term.gate is None}
    return [term.name for term in spec.terms if term.gate is not None and term.gate.term not in keepers]


def _unknown_words(spec: RewardFleetSpec) -> list[str]:
    names = {term.name for term in spec.terms}
    return [word for word in _words(spec) if word not in _OF_THE_LANGUAGE and word not in names]


def _joins_otherwise(spec: RewardFleetSpec) -> list[str]:
    mixed = None if spec.combine.folds else (TermCombine.ADD, TermCombine.MUL)
    return [term.name for term in spec.terms if mixed is not None and term.combine in mixed]


def _may_be_missing(spec: RewardFleetSpec) -> list[str]:
    if spec.combine is not FleetCombine.EXPRESSION:
        return []
    return [t.name for t in spec.terms if t.gate is not None and t.gate.else_.policy is ElsePolicy.SKIP]


def _negative_exponent(spec: RewardFleetSpec) -> list[str]:
    return [t.name for t in spec.terms if spec.combine is FleetCombine.GEOMEAN and t.weight < 0]


_COMPAT: Final = "verl-with-rms"
_ELSE: Final = f"t.gate.{in_cel('else')}"
_ELSE_VALUE: Final = f"(has({_ELSE}) && {_ELSE}.policy == 'value')"


class RewardFleetSpec(ApiModel):
    terms: Annotated[list[Term], Field(min_length=1, max_length=16)] = Field(
        description="What the score is made of, in the order in which it is combined."
    )
    combine: FleetCombine = Field(
        FleetCombine.ADD,
        description="add, mul: terms join one after another, each by its weight times its number. min, max: the "
        "smallest or largest of these. power: the product of the numbers, each to the power of its weight. geomean: "
        "that to the power of one by the sum of the weights. expression: as expression says.",
    )
    initial: Number | None = Field(
        None, description="What the first term joins, under add and mul. Absent: the first term begins."
    )
    expression: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ .,+*/()<>=!-]+$", max_length=512)] | None = (
        Field(
            None,
            description="Arithmetic over the names of terms, under combine expression: + - * / **, comparisons, "
            "and or not, a if b else c, and the functions abs clip exp log max min sqrt.",
        )
    )
    compat: Literal["verl-with-rms"] | None = Field(
        None,
        description="verl-with-rms: as VeRL-with-RMs mixes. The first term is the rule; every other counts only where "
        "that is exactly 1, and is 0 elsewhere, in a product too.",
    )
    on_failure: FleetFailure = Field(
        default_factory=FleetFailure,
        description="What it means that a score cannot be made: a term has no number and says nothing itself of that, "
        "no term takes part, or their numbers make none.",
    )
    breaker: FleetBreaker = Field(default_factory=FleetBreaker, description="When failures stop a verl run.")

    rules: ClassVar = (
        _about(
            "spec.terms: %d is there more than once; write it once",
            "self.terms.map(t, t.name).filter(n, !self.terms.exists_one(t, t.name == n))",
            _named_twice,
        ),
        _about(
            "spec.terms: %d has a gate on a term that is no rule, or that has a gate itself; write the name of a rule "
            "without gate",
            _of_terms(
                "has(t.gate) && !self.terms.exists(r, r.name == t.gate.term && has(r.rule) && !has(r.gate))",
            ),
            _gated_by_none,
        ),
        rule(
            "self.terms.exists(t, !has(t.combine) || t.combine != 'none')",
            "spec.terms: no term is part of the score; remove combine: none from one",
            lambda s: all(term.combine is TermCombine.NONE for term in s.terms),
        ),
        _about(
            "spec.terms: %d joins in a way of its own, which has a meaning only where the fleet's combine is add or "
            "mul; remove its combine, or write none",
            _of_terms("!(self.combine in ['add', 'mul']) && has(t.combine) && t.combine != 'none'"),
            _joins_otherwise,
        ),
        _about(
            "spec.terms: %d has a negative weight, with which a geomean has no meaning; write a positive one, or "
            "combine: power",
            _of_terms("self.combine == 'geomean' && t.weight < 0.0"),
            _negative_exponent,
        ),
        rule(
            "!has(self.initial) || self.combine in ['add', 'mul']",
            "spec.initial: found with a combine that has no beginning; remove it, or write combine: add or mul",
            lambda s: s.initial is not None and not s.combine.folds,
        ),
        rule(
            "!has(self.initial) || self.combine != 'mul' || self.initial != 0.0",
            "spec.initial: 0 makes every product 0; write another number, or remove it",
            lambda s: s.combine is FleetCombine.MUL and s.initial == 0,
        ),
        rule(
            "(self.combine == 'expression') == has(self.expression)",
            "spec.expression: belongs to combine: expression; write both, or neither",
            lambda s: (s.combine is FleetCombine.EXPRESSION) != (s.expression is not None),
        ),
        _about(
            "spec.expression: %d is no term, and no word of expressions "
            f"({', '.join(_OF_THE_LANGUAGE)}); write names of spec.terms",
            f"(has(self.expression) ? {_SPOKEN} : []).filter(w, !(w in [{', '.join(map(quoted, _OF_THE_LANGUAGE))}]) "
            "&& !self.terms.exists(t, t.name == w))",
            _unknown_words,
        ),
        rule(
            f"!has(self.expression) || {_SPOKEN}.exists(w, self.terms.exists(t, t.name == w))",
            "spec.expression: names no term, so that all scores are equal; write names of spec.terms",
            lambda s: s.expression is not None and not {t.name for t in s.terms} & set(_words(s)),
        ),
        _about(
            "spec.terms: %d may be skipped by its gate, and an expression needs every number; write gate.else with "
            "policy: value",
            _of_terms(f"self.combine == 'expression' && has(t.gate) && !{_ELSE_VALUE}"),
            _may_be_missing,
        ),
        rule(
            "!has(self.compat) || (has(self.terms[0].rule) && !has(self.terms[0].combine))",
            f"spec.compat: {_COMPAT} counts terms where the first is 1; write a rule first, without combine",
            lambda s: s.compat is not None and (s.terms[0].rule is None or s.terms[0].combine is not None),
        ),
        rule(
            "!has(self.compat) || !self.terms.exists(t, has(t.gate))",
            f"spec.compat: {_COMPAT} gates every term but the first; remove their gates",
            lambda s: s.compat is not None and any(term.gate is not None for term in s.terms),
        ),
        rule(
            "!has(self.compat) || self.combine in ['add', 'mul']",
            f"spec.compat: {_COMPAT} adds and multiplies only; write combine: add or mul",
            lambda s: s.compat is not None and not s.combine.folds,
        ),
        rule(
            "!has(self.compat) || !has(self.initial)",
            f"spec.initial: found with compat {_COMPAT}, which begins with the first term; remove it",
            lambda s: s.compat is not None and s.initial is not None,
        ),
    )


class RewardFleetStatus(ApiModel):
    observed_generation: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="metadata.generation this status was computed for."
    )
    phase: str | None = Field(None, description="Ready, Waiting (for a model on its way) or Degraded.")
    conditions: list[Condition] | None = Field(
        None,
        description="Ready: every RewardModel that the terms name is there, and Ready itself, awake or asleep.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    models: Annotated[Int, Field(ge=0)] | None = Field(None, description="RewardModels that the terms name.")
    ready: Annotated[Int, Field(ge=0)] | None = Field(None, description="Those of them that are Ready.")


class RewardFleet(ApiModel):
    api_version: Literal["genrm.dev/v1alpha1"] = API_VERSION
    kind: Literal["RewardFleet"] = "RewardFleet"
    metadata: dict[str, Any]
    spec: RewardFleetSpec
    status: RewardFleetStatus | None = None

    rules: ClassVar = (NAME_RULE,)

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata["namespace"])

    @property
    def models(self) -> list[str]:
        """Names of the RewardModels that its terms ask, each once."""
        return list(dict.fromkeys(name for term in self.spec.terms for name in term.models))
