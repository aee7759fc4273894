"""A term of a RewardFleet: who gives the number, what is done to it, and when it is asked for at all.

    number of a model, a rule or a reward API → transform → normalise → weight → combined with the others

A gate saves what a term costs: where the rule that it names does not pass, the term is not asked. What it then counts
for is written there, as is what a failure counts for; neither ever becomes a number that nobody wrote.
"""

from __future__ import annotations

import enum
from itertools import pairwise
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from genrm_api.answer_rules import AnswerRule
from genrm_api.comparing import Normalise
from genrm_api.external import EndpointKeyRef, endpoint_rules
from genrm_api.functions import TermPostprocess, TermPreprocess
from genrm_api.judging import OnFailure, value_rules
from genrm_api.lifecycle import bounded_duration, camel
from genrm_api.rules import ApiModel, Rule, quoted, rule
from genrm_api.values import Duration, Int, Number

TERM_NAME_PATTERN: Final = r"^[a-z][a-z0-9_]*$"
"""An identifier: expressions and metrics name terms."""
FUNCTIONS: Final = ("abs", "clip", "exp", "log", "max", "min", "sqrt")
"""What an expression may call."""
KEYWORDS: Final = ("and", "else", "if", "not", "or")

TermName = Annotated[str, StringConstraints(pattern=TERM_NAME_PATTERN, max_length=40)]


class TermModel(ApiModel):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)] = Field(
        description="Name of the RewardModel, in the namespace of the RewardFleet."
    )


class RewardApiFormat(enum.StrEnum):
    GET_REWARD = "get-reward"
    GET_REWARD2 = "get-reward2"
    OPENRLHF = "openrlhf"
    SLIME = "slime"
    OPENAI_EMBEDDINGS = "openai-embeddings"
    GET_BGE_SIM = "get-bge-sim"

    @property
    def is_a_similarity(self) -> bool:
        """Whether the number is how like the reference the response is."""
        return self in (RewardApiFormat.OPENAI_EMBEDDINGS, RewardApiFormat.GET_BGE_SIM)


class RewardApi(ApiModel):
    url: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="The whole route: http://rules.rl.svc:6009/get_reward2."
    )
    format: RewardApiFormat = Field(
        RewardApiFormat.GET_REWARD2,
        description="What is spoken there: as in spec.external.format of a RewardModel; or how like the reference the "
        "response is, from -1 to 1: openai-embeddings takes the cosine of their two embeddings, get-bge-sim is "
        "VeRL-with-RMs' side service, which steps the number itself.",
    )
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/@-]+$", max_length=253)] | None = Field(
        None, description="Name of the embedding model in requests, for openai-embeddings."
    )
    credentials_secret_ref: EndpointKeyRef | None = Field(
        None, description="Secret with the key that is sent as a bearer token. Read by who asks, never by the operator."
    )
    timeout: Duration = Field("120s", description="Deadline of one score, all its attempts included.")

    rules: ClassVar = (
        *endpoint_rules("spec.terms.api"),
        bounded_duration("timeout", "spec.terms.api.timeout"),
        rule(
            "(self.format == 'openai-embeddings') == has(self.model)",
            "spec.terms.api.model: belongs to format: openai-embeddings; write both, or neither",
            lambda a: (a.format is RewardApiFormat.OPENAI_EMBEDDINGS) != (a.model is not None),
        ),
    )


class TransformKind(enum.StrEnum):
    AFFINE = "affine"
    CLIP = "clip"
    SIGMOID = "sigmoid"
    PIECEWISE = "piecewise"


class Point(ApiModel):
    score: Number = Field(description="A score.")
    value: Number = Field(description="What it becomes.")


def _of_kind(kinds: tuple[TransformKind, ...], *fields: str) -> tuple[Rule, ...]:
    fits = ", ".join(quoted(kind) for kind in kinds)
    instead = f"; remove it or write kind: {' or '.join(kinds)}"

    def one(field: str) -> Rule:
        where = f"spec.terms.transform.{field}"
        return Rule(
            cel=f"self.kind in [{fits}] || !has(self.{field})",
            message=f"'{where}: found with kind ' + self.kind + {quoted(instead)}",
            found_wrong=lambda step: (
                f"{where}: found with kind {step.kind}{instead}"
                if step.kind not in kinds and getattr(step, field) is not None
                else None
            ),
        )

    return tuple(one(field) for field in fields)


class Transform(ApiModel):
    """One step between a term's own number and what is normalised."""

    kind: TransformKind = Field(
        description="affine: scale x score + offset. sigmoid: 1 / (1 + exp(-(that))). clip: not below minimum, not "
        "above maximum. piecewise: straight lines through points, level before the first and after the last."
    )
    scale: Number | None = Field(None, description="Factor, for affine and sigmoid. Default: 1.")
    offset: Number | None = Field(None, description="Added after scaling, for affine and sigmoid. Default: 0.")
    minimum: Number | None = Field(None, description="For clip.")
    maximum: Number | None = Field(None, description="For clip.")
    points: Annotated[list[Point], Field(min_length=2, max_length=16)] | None = Field(
        None, description="For piecewise, by rising score."
    )

    rules: ClassVar = (
        *_of_kind((TransformKind.AFFINE, TransformKind.SIGMOID), "scale", "offset"),
        *_of_kind((TransformKind.CLIP,), "minimum", "maximum"),
        *_of_kind((TransformKind.PIECEWISE,), "points"),
        rule(
            "!has(self.scale) || self.scale != 0.0",
            "spec.terms.transform.scale: 0 makes all scores equal; write another factor",
            lambda t: t.scale == 0,
        ),
        rule(
            "self.kind != 'clip' || has(self.minimum) || has(self.maximum)",
            "spec.terms.transform.minimum: missing with kind clip, and maximum too; write one of them, or both",
            lambda t: t.kind is TransformKind.CLIP and t.minimum is None and t.maximum is None,
        ),
        rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum < self.maximum",
            "spec.terms.transform.minimum: not below maximum, which makes all scores equal; write a smaller one",
            lambda t: t.minimum is not None and t.maximum is not None and t.minimum >= t.maximum,
        ),
        rule(
            "self.kind != 'piecewise' || has(self.points)",
            "spec.terms.transform.points: missing with kind piecewise; write two or more",
            lambda t: t.kind is TransformKind.PIECEWISE and t.points is None,
        ),
        rule(
            "!has(self.points) || (self.points.map(p, p.score).isSorted() && "
            "self.points.all(a, self.points.exists_one(b, a.score == b.score)))",
            "spec.terms.transform.points: score does not rise from each to the next; sort them, each score once",
            lambda t: t.points is not None and any(a.score >= b.score for a, b in pairwise(t.points)),
        ),
    )


class NormaliseScope(enum.StrEnum):
    GROUP = "group"
    RUNNING = "running"


class TermNormalise(ApiModel):
    kind: Normalise = Field(
        description="none. minmax: onto -1 to 1. maxabs: by the largest amount. zscore: by mean and standard "
        "deviation. rank: by place, from -1 to 1. Where all scores are equal each becomes 0."
    )
    scope: NormaliseScope = Field(
        NormaliseScope.GROUP,
        description="group: among the responses to one prompt. running: by all scores of the run so far, in a state "
        "that is checkpointed with it, and that validation does not move.",
    )
    half_life: Annotated[Int, Field(ge=1)] | None = Field(
        None,
        description="For zscore with scope running: after so many scores what was before counts half. Absent: all "
        "count alike.",
    )
    clip: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="No number leaves with a larger amount than this. Absent: any may."
    )

    rules: ClassVar = (
        rule(
            "self.kind != 'rank' || self.scope != 'running'",
            "spec.terms.normalise.scope: running with kind rank, which needs the scores themselves; write group",
            lambda n: n.kind is Normalise.RANK and n.scope is NormaliseScope.RUNNING,
        ),
        rule(
            "!has(self.halfLife) || (self.kind == 'zscore' && self.scope == 'running')",
            "spec.terms.normalise.halfLife: has a meaning for kind zscore with scope running only; remove it",
            lambda n: (
                n.half_life is not None and (n.kind is not Normalise.ZSCORE or n.scope is not NormaliseScope.RUNNING)
            ),
        ),
    )


class ElsePolicy(enum.StrEnum):
    SKIP = "skip"
    VALUE = "value"


class GateElse(ApiModel):
    policy: ElsePolicy = Field(
        ElsePolicy.SKIP,
        description="skip: the term takes no part in the score. value: it counts as the number in `value`.",
    )
    value: Number | None = Field(None, description="What the term counts as under policy value, before its weight.")

    rules: ClassVar = value_rules("spec.terms.gate.else", "what the term counts as")


class Gate(ApiModel):
    """Ask for this term only where a rule passes."""

    term: TermName = Field(description="Name of the rule's term, which has no gate itself.")
    equals: Number | None = Field(
        None, description="The rule passes with this number. Default: 1, unless there is atLeast."
    )
    tolerance: Annotated[Number, Field(ge=0)] = Field(1e-6, description="How far it may be away, under equals.")
    at_least: Number | None = Field(None, description="The rule passes with this number or a larger one.")
    else_: GateElse = Field(
        default_factory=GateElse,
        alias="else",
        description="What the term counts for where the rule does not pass, or failed.",
    )

    rules: ClassVar = (
        rule(
            "!has(self.equals) || !has(self.atLeast)",
            "spec.terms.gate.atLeast: found beside equals; write one of them",
            lambda g: g.equals is not None and g.at_least is not None,
        ),
    )


class TermFailure(OnFailure):
    rules: ClassVar = value_rules("spec.terms.onFailure", "what the term counts as")


class TermCombine(enum.StrEnum):
    ADD = "add"
    MUL = "mul"
    NONE = "none"


_SOURCES: Final = ("reward_model", "rule", "api")
_NO_JUDGE: Final = " has a critic and no rewardModel that would read its critique; write a Classifier as rewardModel"
_ONE_SOURCE: Final = " names none or several of rewardModel, rule and api; write exactly one of them"
_NO_MODEL: Final = " has preprocess or postprocess, and no rewardModel around which they are; remove them"
_TWO_WAYS: Final = " has preprocess or postprocess beside a critic, which says what the model reads; remove one of them"
_NO_WEIGHT: Final = " has weight 0, which hides what it does; write combine: none, or another weight"
_FUNCTIONS: Final = "(has(self.preprocess) || has(self.postprocess))"
_RESERVED: Final = " is a word of expressions; write another name"
_WORDS: Final = ", ".join(map(quoted, (*FUNCTIONS, *KEYWORDS)))


class Term(ApiModel):
    name: TermName = Field(description="What expressions, gates, logs and metrics call it.")
    reward_model: TermModel | None = Field(None, description="A RewardModel is asked, as its spec.scoring says.")
    critic: TermModel | None = Field(
        None,
        description="A Generative RewardModel that writes a critique of the response first. The rewardModel, a "
        "Classifier, reads it behind the response (Critique-out-Loud reward models).",
    )
    preprocess: TermPreprocess | None = Field(
        None,
        description="What the rewardModel is asked here, in the place of its own judge, template or preprocess: as "
        "spec.scoring.preprocess of a RewardModel.",
    )
    postprocess: TermPostprocess | None = Field(
        None,
        description="How its answer becomes a number here, in the place of its own judge, parse or postprocess: as "
        "spec.scoring.postprocess of a RewardModel.",
    )
    rule: AnswerRule | None = Field(None, description="A rule looks at the response.")
    api: RewardApi | None = Field(None, description="A reward API is asked over HTTP.")
    weight: Number = Field(
        1, description="Factor of the number; its exponent where the fleet combines by power or geomean."
    )
    combine: TermCombine | None = Field(
        None,
        description="add or mul: how this term joins those before it. none: it is no part of the score; it is asked, "
        "reported, and may be what gates stand on. Default: as the fleet's combine says.",
    )
    transform: Annotated[list[Transform], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Steps that the term's own number goes through, in order. Absent: none."
    )
    normalise: TermNormalise | None = Field(None, description="What is done next. Absent: nothing.")
    gate: Gate | None = Field(None, description="Ask for this term only where a rule passes. Absent: always.")
    on_failure: TermFailure | None = Field(
        None,
        description="What it means that this term has no number. value and group_mean are what the term counts as, "
        "after transform and normalise, before its weight. Default: the fleet's onFailure, which is about the whole "
        "score. The onFailure of a RewardModel counts in no fleet.",
    )

    rules: ClassVar = (
        Rule(
            cel=f"[{', '.join(f'has(self.{camel(name)})' for name in _SOURCES)}].filter(x, x).size() == 1",
            message=f"'spec.terms: ' + self.name + '{_ONE_SOURCE}'",
            found_wrong=lambda t: (
                None
                if sum(getattr(t, name) is not None for name in _SOURCES) == 1
                else f"spec.terms: {t.name}{_ONE_SOURCE}"
            ),
        ),
        Rule(
            cel="!has(self.critic) || has(self.rewardModel)",
            message=f"'spec.terms: ' + self.name + '{_NO_JUDGE}'",
            found_wrong=lambda t: (
                f"spec.terms: {t.name}{_NO_JUDGE}" if t.critic is not None and t.reward_model is None else None
            ),
        ),
        Rule(
            cel=f"!{_FUNCTIONS} || has(self.rewardModel)",
            message=f"'spec.terms: ' + self.name + '{_NO_MODEL}'",
            found_wrong=lambda t: (
                f"spec.terms: {t.name}{_NO_MODEL}" if t.has_functions and t.reward_model is None else None
            ),
        ),
        Rule(
            cel=f"!{_FUNCTIONS} || !has(self.critic)",
            message=f"'spec.terms: ' + self.name + '{_TWO_WAYS}'",
            found_wrong=lambda t: (
                f"spec.terms: {t.name}{_TWO_WAYS}" if t.has_functions and t.critic is not None else None
            ),
        ),
        Rule(
            cel="self.weight != 0.0",
            message=f"'spec.terms: ' + self.name + '{_NO_WEIGHT}'",
            found_wrong=lambda t: f"spec.terms: {t.name}{_NO_WEIGHT}" if t.weight == 0 else None,
        ),
        Rule(
            cel=f"!(self.name in [{_WORDS}])",
            message=f"'spec.terms: ' + self.name + '{_RESERVED}'",
            found_wrong=lambda t: f"spec.terms: {t.name}{_RESERVED}" if t.name in (*FUNCTIONS, *KEYWORDS) else None,
        ),
    )

    @property
    def has_functions(self) -> bool:
        """Whether it says itself what its model is asked, or what its answer is worth."""
        return self.preprocess is not None or self.postprocess is not None

    @property
    def models(self) -> list[str]:
        """Names of the RewardModels that are asked for it, the one that gives the number first."""
        return [named.name for named in (self.reward_model, self.critic) if named is not None]
