"""How runs question a model: mode, judge, tournament, deadlines, and what a failure means.

The same keys stand in a scoring spec file of a run.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from genrm_api.comparing import (
    JUDGES,
    Aggregate,
    Alone,
    Anchor,
    Compat,
    Normalise,
    Order,
    PointwiseJudge,
    Schedule,
    ScoringMode,
)
from genrm_api.functions import SCORING_RULES, Postprocess, Preprocess
from genrm_api.judging import Calibrate, Canary, Combine, OnFailure, Parse, ParseKind, Sampling, Votes
from genrm_api.lifecycle import bounded_duration, camel
from genrm_api.rules import ApiModel, Rule, quoted, rule
from genrm_api.values import Duration

IN_WORDS: Final = (
    "judge", "template", "sampling", "parse", "votes", "order", "schedule", "aggregate", "anchor", "compat", "alone",
)  # fmt: skip
"""Keys that mean something only to a model that answers in words."""


def _only_in(modes: tuple[ScoringMode, ...], fields: tuple[str, ...]) -> Rule:
    """`fields` compare responses, so they need a mode that does."""
    names = [camel(name) for name in fields]
    any_of = " || ".join(f"has(self.{name})" for name in names)
    first = " : ".join(f"has(self.{name}) ? '{name}'" for name in names[:-1]) + f" : '{names[-1]}'"
    sentence = f" needs a mode that compares responses; remove it or write mode: {' or '.join(modes)}"
    fits = f"(has(self.mode) && self.mode in [{', '.join(quoted(mode) for mode in modes)}])"

    def found_wrong(scoring: Scoring) -> str | None:
        written = (camel(name) for name in fields if getattr(scoring, name) is not None)
        name = None if scoring.mode in modes else next(written, None)
        return None if name is None else f"spec.scoring.{name}{sentence}"

    return Rule(
        cel=f"{fits} || !({any_of})",
        message=f"'spec.scoring.' + ({first}) + {quoted(sentence)}",
        found_wrong=found_wrong,
    )


def _judges_of(mode: ScoringMode, what: str) -> Rule:
    """The built-in judges of `mode` in another one would be asked something they were not made for."""
    names = JUDGES[mode]
    sentence = f" {what}; write mode: {mode}, or remove it"

    def found_wrong(scoring: Scoring) -> str | None:
        if scoring.judge not in names or (scoring.mode or ScoringMode.POINTWISE) is mode:
            return None
        return f"spec.scoring.judge: {scoring.judge}{sentence}"

    fits = f"(has(self.mode) ? self.mode : '{ScoringMode.POINTWISE}') == '{mode}'"
    return Rule(
        cel=f"!has(self.judge) || !(self.judge in [{', '.join(map(quoted, names))}]) || {fits}",
        message=f"'spec.scoring.judge: ' + self.judge + {quoted(sentence)}",
        found_wrong=found_wrong,
    )


_FIXED: Final = ("order", "schedule", "anchor", "normalise", "votes")
"""What `compat: rm-gallery` says itself."""
_FIXED_SENTENCE: Final = ": found beside compat, which shows, asks and scales as RM-Gallery does; remove one of them"


def _fixed(scoring: Scoring) -> str | None:
    if scoring.compat is None:
        return None
    name = next((name for name in _FIXED if getattr(scoring, name) is not None), None)
    return None if name is None else f"spec.scoring.{name}{_FIXED_SENTENCE}"


_ANY_FIXED: Final = " || ".join(f"has(self.{name})" for name in _FIXED)
_FIRST_FIXED: Final = " : ".join(f"has(self.{name}) ? '{name}'" for name in _FIXED[:-1]) + f" : '{_FIXED[-1]}'"

_OF_PAIRS: Final = (Order.BALANCED, Order.BOTH)
_ORDER_OF_PAIRS: Final = " is of pairs, and mode listwise shows a whole list; write hash or given, or remove it"
_AVERAGED: Final = " is of numbers, and votes on an order are averaged over its pairs; write mean, or remove it"
_NO_ORDER: Final = " orders nothing, and mode listwise asks for an order; write ranking"
_COMPARING: Final = "(has(self.mode) && self.mode in ['pairwise', 'listwise'])"
_LISTWISE: Final = "(has(self.mode) && self.mode == 'listwise')"


def _of_pairs(scoring: Scoring) -> str | None:
    if scoring.mode is not ScoringMode.LISTWISE or scoring.order not in _OF_PAIRS:
        return None
    return f"spec.scoring.order: {scoring.order}{_ORDER_OF_PAIRS}"


def _of_numbers(scoring: Scoring) -> str | None:
    votes = scoring.votes
    if scoring.mode is not ScoringMode.LISTWISE or votes is None or votes.combine is Combine.MEAN:
        return None
    return f"spec.scoring.votes.combine: {votes.combine}{_AVERAGED}"


def _orders_nothing(scoring: Scoring) -> str | None:
    parse = scoring.parse
    if scoring.mode is not ScoringMode.LISTWISE or parse is None or parse.kind is ParseKind.RANKING:
        return None
    return f"spec.scoring.parse.kind: {parse.kind}{_NO_ORDER}"


def _same_answer(scoring: Scoring) -> bool:
    """Votes on a list show it in another order each, and differ by that."""
    several = scoring.votes is not None and scoring.votes.count > 1 and scoring.mode is not ScoringMode.LISTWISE
    return several and scoring.sampling.temperature == 0


_READS_JSON: Final = ("five-criteria", "rider-json")


def _object_unread(scoring: Scoring) -> bool:
    structured = scoring.sampling.structured
    if structured is None or not structured.json_object or scoring.judge in _READS_JSON:
        return False
    return scoring.parse is None or scoring.parse.kind is not ParseKind.JSON


class Scoring(ApiModel):
    mode: ScoringMode | None = Field(
        None,
        description="pointwise: one response a question. pairwise: two. listwise: all of a prompt. classify: no "
        "question, the model gives a number. Default: pointwise; classify for a Classifier.",
    )
    judge: Literal[PointwiseJudge, "pairwise-abtie", "listwise-ranking"] | None = Field(
        None,
        description="Built-in judge: prompt, parser and what its verdicts are worth. Default, unless there is a "
        "template or a preprocess: " + ", ".join(f"{names[0]} in mode {mode}" for mode, names in JUDGES.items()) + ".",
    )
    template: Annotated[str, StringConstraints(min_length=1, max_length=32768)] | None = Field(
        None,
        description="A judge of your own: the question as a template in a part of Jinja, with the variables question, "
        "reference, principle, and response; in mode pairwise response_a and response_b, in mode listwise responses; "
        "and with extra.KEY and ground_truth.KEY of the data set. What responses share comes first.",
    )
    preprocess: Preprocess | None = Field(
        None,
        description="A function that makes what the model is asked, in the place of a template. It is called with what "
        "it asks for by name, as VeRL-with-RMs' rm_preprocess and RM-Gallery's custom_alignment_prompt are, and runs "
        "in a process of the run with a time and a memory limit.",
    )
    sampling: Sampling = Field(default_factory=Sampling, description="How the judge samples its answer.")
    parse: Parse | None = Field(None, description="How the answer to a template, or to preprocess, is read.")
    postprocess: Postprocess | None = Field(
        None,
        description="A function that makes the score, in the place of parse: of the text of an answer, or of the "
        "number that a classifier gives, as VeRL-with-RMs' rm_postprocess does.",
    )
    votes: Votes | None = Field(None, description="Ask each question several times. Absent: once.")
    order: Order | None = Field(
        None,
        description="Which response comes first in a question about several. balanced: each in half of its "
        "pairs. both: both ways, disagreement is a tie. hash: by content. given: as sampled. Default: balanced; hash "
        "in mode listwise, which knows hash and given.",
    )
    schedule: Schedule | None = Field(None, description="Which pairs are judged. Absent: all.")
    aggregate: Aggregate | None = Field(
        None,
        description="How the verdicts of pairs become scores: winrate, copeland, dgr, elo or bt. Default: winrate; bt "
        "where the schedule does not ask all pairs.",
    )
    anchor: Anchor | None = Field(
        None,
        description="A text of the data set that joins each group, and is not trained: chosen, reference, baseline.",
    )
    alone: Alone | None = Field(
        None,
        description="What a response is compared with that has no siblings; groups of several know nothing of it. "
        "Absent: the anchor, and without one the response has no score.",
    )
    normalise: Normalise | None = Field(
        None, description="What is done to the scores of a group: none, minmax, maxabs, zscore, rank. Default: none."
    )
    compat: Compat | None = Field(
        None,
        description="rm-gallery: the scores of RM-Gallery 0.1.7 in mode pairwise, where the earlier response is always "
        "shown first, each rule scales its scores inside the group, and the ties of dgr fall by coins, which sampling."
        "seed and the prompt decide. Absent: the definitions of docs/explanation/tournaments.md.",
    )
    calibrate: Calibrate | None = Field(
        None,
        description="What is done to each score, in modes pointwise and classify: those of responses that were "
        "compared are on the scale of aggregate. Absent: nothing.",
    )
    timeout: Duration = Field(
        "120s",
        description="Deadline of one judgement, all its attempts and waits included. With several replicas a first "
        "attempt gets half of it, so that a hanging replica leaves time for another.",
    )
    on_failure: OnFailure = Field(default_factory=OnFailure, description="What a failed judgement means.")
    canary: Canary | None = Field(
        None,
        description="Questions whose answers are known, asked of each engine after its start and after each wake, "
        "whatever lifecycle.wake.verify says.",
    )

    rules: ClassVar = (
        bounded_duration("timeout", "spec.scoring.timeout"),
        rule(
            "!has(self.template) || !has(self.judge)",
            "spec.scoring.template: found beside judge; write one of them",
            lambda s: s.template is not None and s.judge is not None,
        ),
        rule(
            "!has(self.template) || self.template.contains('{{')",
            "spec.scoring.template: asks the same of every response; write {{ }} where the sample goes, or the name "
            "of a built-in judge as judge",
            lambda s: s.template is not None and "{{" not in s.template,
        ),
        *SCORING_RULES,
        rule(
            f"!has(self.votes) || self.votes.count == 1 || {_LISTWISE} || !has(self.sampling) || "
            "!has(self.sampling.temperature) || self.sampling.temperature != 0.0",
            "spec.scoring.votes.count: more than 1 at temperature 0 repeats one answer; write 1, or a "
            "temperature above 0",
            _same_answer,
        ),
        rule(
            "!has(self.sampling) || !has(self.sampling.structured) || !self.sampling.structured.jsonObject || "
            f"(has(self.judge) && self.judge in [{', '.join(map(quoted, _READS_JSON))}]) || "
            "(has(self.parse) && self.parse.kind == 'json')",
            "spec.scoring.sampling.structured.jsonObject: the judge reads no JSON; remove it, or write judge: "
            "five-criteria or rider-json, or parse.kind: json",
            _object_unread,
        ),
        _only_in((ScoringMode.PAIRWISE,), ("schedule", "aggregate")),
        _only_in((ScoringMode.PAIRWISE, ScoringMode.LISTWISE), ("order", "anchor", "alone")),
        rule(
            "!has(self.parse) || self.parse.kind != 'ranking' || (has(self.mode) && self.mode == 'listwise')",
            "spec.scoring.parse.kind: ranking needs several responses; write mode: listwise, or another kind",
            lambda s: s.parse is not None and s.parse.kind == "ranking" and s.mode is not ScoringMode.LISTWISE,
        ),
        Rule(
            cel=f"!{_LISTWISE} || !has(self.parse) || self.parse.kind == 'ranking'",
            message=f"'spec.scoring.parse.kind: ' + self.parse.kind + {quoted(_NO_ORDER)}",
            found_wrong=_orders_nothing,
        ),
        rule(
            "!has(self.compat) || (has(self.mode) && self.mode == 'pairwise')",
            "spec.scoring.compat: rm-gallery is of pairs; write mode: pairwise, or for its pointwise and listwise "
            "scores normalise: minmax instead",
            lambda s: s.compat is not None and s.mode is not ScoringMode.PAIRWISE,
        ),
        rule(
            "!has(self.compat) || !has(self.aggregate) || self.aggregate != 'bt'",
            "spec.scoring.aggregate: bt is no rule of RM-Gallery; write winrate, copeland, dgr or elo, or remove "
            "spec.scoring.compat",
            lambda s: s.compat is not None and s.aggregate is Aggregate.BT,
        ),
        Rule(
            cel=f"!has(self.compat) || !({_ANY_FIXED})",
            message=f"'spec.scoring.' + ({_FIRST_FIXED}) + {quoted(_FIXED_SENTENCE)}",
            found_wrong=_fixed,
        ),
        _judges_of(ScoringMode.POINTWISE, "looks at one response"),
        _judges_of(ScoringMode.PAIRWISE, "compares two responses"),
        _judges_of(ScoringMode.LISTWISE, "puts all responses in an order"),
        Rule(
            cel=f"!{_LISTWISE} || !has(self.order) || !(self.order in [{', '.join(map(quoted, _OF_PAIRS))}])",
            message=f"'spec.scoring.order: ' + self.order + {quoted(_ORDER_OF_PAIRS)}",
            found_wrong=_of_pairs,
        ),
        Rule(
            cel=f"!{_LISTWISE} || !has(self.votes) || self.votes.combine == 'mean'",
            message=f"'spec.scoring.votes.combine: ' + self.votes.combine + {quoted(_AVERAGED)}",
            found_wrong=_of_numbers,
        ),
        rule(
            f"!{_COMPARING} || !has(self.calibrate)",
            "spec.scoring.calibrate: scores of responses that were compared are on the scale of "
            "spec.scoring.aggregate; remove it, or write spec.scoring.normalise",
            lambda s: s.calibrate is not None and s.mode in (ScoringMode.PAIRWISE, ScoringMode.LISTWISE),
        ),
    )

    @property
    def asks_its_own(self) -> bool:
        """Whether no built-in judge asks, but a template or a function."""
        return self.template is not None or self.preprocess is not None
