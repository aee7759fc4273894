"""How a judgement is asked and read: sampling, the parser, votes, and what its number is turned into."""

from __future__ import annotations

import enum
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StringConstraints

from genrm_api.rules import ApiModel, Rule, rule
from genrm_api.values import Flag, Int, Number, without_nulls

Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Structured(ApiModel):
    """What the engine is made to answer: the plugin asks each engine in its own words."""

    choice: Annotated[list[Text], Field(min_length=2, max_length=32)] | None = Field(
        None, description="The answer is exactly one of these texts."
    )
    json_object: Flag = Field(
        False,
        description="The answer is a JSON object of the form that the judge reads, and nothing else: with parse, its "
        "field alone.",
    )

    rules: ClassVar = (
        rule(
            "has(self.choice) != self.jsonObject",
            "spec.scoring.sampling.structured: an answer has one form; write choice or jsonObject: true",
            lambda s: (s.choice is not None) == s.json_object,
        ),
        rule(
            "!has(self.choice) || self.choice.all(a, self.choice.exists_one(b, a == b))",
            "spec.scoring.sampling.structured.choice: the same text twice; write each once",
            lambda s: s.choice is not None and len(set(s.choice)) < len(s.choice),
        ),
    )


class Sampling(ApiModel):
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="Sampling temperature. Default: the engine's."
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="Nucleus sampling mass. Default: the engine's."
    )
    max_tokens: Annotated[Int, Field(ge=1, le=131072)] | None = Field(
        None, description="Longest answer in tokens. Default: the engine's."
    )
    seed: Annotated[Int, Field(ge=0, le=2147483647)] | None = Field(
        None, description="Another number gives all judgements other seeds. Absent: what is asked decides alone."
    )
    seeded: Flag = Field(
        True,
        description="Each judgement is asked with a seed of its own, from what is asked, which of its votes it is, and "
        "seed: the same when it is asked again. false: without one, for an endpoint that takes none.",
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Values for the model's chat template, like enable_thinking: false."
    )
    structured: Structured | None = Field(None, description="Constrain the answer's form.")

    rules: ClassVar = (
        rule(
            "self.seeded || !has(self.seed)",
            "spec.scoring.sampling.seed: found with seeded: false, which sends none; remove one of them",
            lambda s: not s.seeded and s.seed is not None,
        ),
    )


class ParseKind(enum.StrEnum):
    BOXED = "boxed"
    TAG = "tag"
    REGEX = "regex"
    JSON = "json"
    NUMBER = "number"
    RANKING = "ranking"
    LOGPROB = "logprob"


def _belongs(kind: ParseKind, field: str, what: str) -> tuple[Rule, Rule]:
    """`field` is there exactly if the parser is of this kind."""
    missing = f"spec.scoring.parse.{field}: missing with kind {kind}; write {what}"

    def unasked(found: Parse) -> str | None:
        if found.kind is kind or getattr(found, field) is None:
            return None
        return f"spec.scoring.parse.{field}: found with kind {found.kind}; remove it or write kind: {kind}"

    return (
        rule(
            f"self.kind != '{kind}' || has(self.{field})",
            missing,
            lambda p: p.kind is kind and getattr(p, field) is None,
        ),
        Rule(
            cel=f"self.kind == '{kind}' || !has(self.{field})",
            message=f"'spec.scoring.parse.{field}: found with kind ' + self.kind + '; remove it or write kind: {kind}'",
            found_wrong=unasked,
        ),
    )


class Parse(ApiModel):
    """How an answer becomes a verdict. What is not unmistakably one is a failed judgement, never a guess."""

    kind: ParseKind = Field(
        description="boxed: the last \\boxed{}. tag: the text inside <tag>. regex: the first group, or the "
        "whole match, "
        "of the last match. json: a field of the last JSON object. number: the only number. ranking: an order of the "
        "responses. logprob: the expected value over the labels in values, each of them one token of the model's."
    )
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=63)] | None = Field(
        None, description="Name of the tag, for kind tag."
    )
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        None, description="Regular expression of RE2 (no look-around, no back-references), for kind regex."
    )
    field: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$", max_length=253)] | None = (
        Field(None, description="Path to the verdict, for kind json: score, or result.score.")
    )
    values: Annotated[dict[str, Number], Field(max_length=64), BeforeValidator(without_nulls)] | None = Field(
        None,
        description="What each verdict is worth. Absent: the verdict is a number itself; with kind logprob the labels "
        "are the digits from 0 to 9, and in mode pairwise A: 1 and B: 0.",
    )
    minimum: Number | None = Field(None, description="A smaller number is no verdict.")
    maximum: Number | None = Field(None, description="A larger number is no verdict.")
    strip_thinking: Flag = Field(True, description="Leave thinking blocks out of what is read.")

    rules: ClassVar = (
        rule(
            "self.kind != 'ranking' || !(has(self.values) || has(self.minimum) || has(self.maximum))",
            "spec.scoring.parse.kind: ranking gives no number; remove values, minimum and maximum",
            lambda p: (
                p.kind is ParseKind.RANKING and not (p.values is None and p.minimum is None and p.maximum is None)
            ),
        ),
        *_belongs(ParseKind.TAG, "tag", "the name of the tag"),
        *_belongs(ParseKind.REGEX, "pattern", "a regular expression"),
        *_belongs(ParseKind.JSON, "field", "the path to the verdict"),
        rule(
            "self.kind != 'logprob' || !has(self.values) || self.values.size() > 1",
            "spec.scoring.parse.values: fewer than two with kind logprob; write each label and what it is worth, or "
            "remove it",
            lambda p: p.kind is ParseKind.LOGPROB and p.values is not None and len(p.values) < 2,
        ),
        rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum < self.maximum",
            "spec.scoring.parse.minimum: not below maximum, so that no number is a verdict; write a smaller one",
            lambda p: p.minimum is not None and p.maximum is not None and p.minimum >= p.maximum,
        ),
    )


class Combine(enum.StrEnum):
    MEAN = "mean"
    MEDIAN = "median"
    MODE = "mode"
    TRIMMED = "trimmed"


class Votes(ApiModel):
    count: Int = Field(
        ge=1,
        le=64,
        description="How often each question is asked, each time with another seed. More than half of them must have "
        "a verdict.",
    )
    combine: Combine = Field(
        Combine.MEAN,
        description="What the votes become: mean, median, mode (of several the mean), or trimmed: the mean without the "
        "lowest and the highest quarter. In mode listwise mean alone, over the pairs of the orders.",
    )


class CalibrateKind(enum.StrEnum):
    AFFINE = "affine"
    SIGMOID = "sigmoid"


class Calibrate(ApiModel):
    kind: CalibrateKind = Field(description="affine: scale x score + offset. sigmoid: 1 / (1 + exp(-(that)))")
    scale: Number = Field(1, description="Factor of the score.")
    offset: Number = Field(0, description="Added after scaling.")

    rules: ClassVar = (
        rule(
            "self.scale != 0.0",
            "spec.scoring.calibrate.scale: 0 makes all scores equal; write another factor",
            lambda c: c.scale == 0,
        ),
    )


class CanaryPair(ApiModel):
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=8192)] = Field(description="A question.")
    better: Annotated[str, StringConstraints(min_length=1, max_length=8192)] = Field(description="A good response.")
    worse: Annotated[str, StringConstraints(min_length=1, max_length=8192)] = Field(description="A worse response.")

    rules: ClassVar = (
        rule(
            "self.better != self.worse",
            "spec.scoring.canary.pairs: better and worse are the same text; write two that a sane model tells apart",
            lambda pair: pair.better == pair.worse,
        ),
    )


class Canary(ApiModel):
    """Known answers: an engine that gets them wrong after its start or a wake does not serve."""

    pairs: Annotated[list[CanaryPair], Field(min_length=1, max_length=16)] = Field(
        description="Pairs of responses of which every sane state of the model prefers the better one: a classifier by "
        "its score, a generative model by how likely each token of the response is to it after the prompt, whatever it "
        "would say as a judge."
    )


class FailurePolicy(enum.StrEnum):
    DROP = "drop"
    GROUP_DROP = "group_drop"
    VALUE = "value"
    GROUP_MEAN = "group_mean"
    RAISE = "raise"


def value_rules(where: str, what: str = "the score of a failed judgement") -> tuple[Rule, Rule]:
    """`value` is there exactly under the policy of that name; `where` is the field that holds both."""
    missing = f"{where}.value: missing under policy value; write {what}"

    def of_no_use(found: Any) -> str | None:
        if found.policy == "value" or found.value is None:
            return None
        return (
            f"{where}.value: found under policy {found.policy}, which has no use for it; remove it or write "
            "policy: value"
        )

    return (
        rule("self.policy != 'value' || has(self.value)", missing, lambda f: f.policy == "value" and f.value is None),
        Rule(
            cel="self.policy == 'value' || !has(self.value)",
            message=f"'{where}.value: found under policy ' + self.policy + ', which has no use for it; remove it or "
            "write policy: value'",
            found_wrong=of_no_use,
        ),
    )


class OnFailure(ApiModel):
    """What a judgement that failed does to its sample. Failures are always counted and logged, never a silent zero."""

    policy: FailurePolicy = Field(
        FailurePolicy.DROP,
        description="drop: the sample is not trained on. group_drop: nor are the others of its prompt. value: it gets "
        "the number in `value`. group_mean: it gets the mean of the others of its prompt. raise: the run stops.",
    )
    value: Number | None = Field(None, description="The score under policy value.")

    rules: ClassVar = value_rules("spec.scoring.onFailure")
