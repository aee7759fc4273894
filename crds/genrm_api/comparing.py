"""How responses to one prompt are compared, and what becomes of one without siblings: the modes and their judges, which
pairs are asked about in which order, and how verdicts become scores.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import Field

from genrm_api.rules import ApiModel, Rule, rule
from genrm_api.values import Int

PointwiseJudge = Literal["boxed-true-false", "pointwise-1-10", "five-criteria", "rider-json"]


class ScoringMode(enum.StrEnum):
    POINTWISE = "pointwise"
    PAIRWISE = "pairwise"
    LISTWISE = "listwise"
    CLASSIFY = "classify"


JUDGES: Final[Mapping[ScoringMode, tuple[str, ...]]] = {
    ScoringMode.POINTWISE: get_args(PointwiseJudge),
    ScoringMode.PAIRWISE: ("pairwise-abtie",),
    ScoringMode.LISTWISE: ("listwise-ranking",),
}
"""The built-in judges of each mode, the default first."""
DEFAULT_JUDGE: Final = JUDGES[ScoringMode.POINTWISE][0]


class Order(enum.StrEnum):
    BALANCED = "balanced"
    BOTH = "both"
    HASH = "hash"
    GIVEN = "given"


class Aggregate(enum.StrEnum):
    WINRATE = "winrate"
    COPELAND = "copeland"
    DGR = "dgr"
    ELO = "elo"
    BT = "bt"


class Compat(enum.StrEnum):
    RM_GALLERY = "rm-gallery"


class Anchor(enum.StrEnum):
    CHOSEN = "chosen"
    REFERENCE = "reference"
    BASELINE = "baseline"


class Versus(enum.StrEnum):
    CHOSEN = "chosen"
    REFERENCE = "reference"
    BASELINE = "baseline"
    POINTWISE = "pointwise"


class Alone(ApiModel):
    """What becomes of a response without siblings where scores come of comparing, as in validation with n = 1."""

    vs: Versus = Field(
        description="chosen, reference, baseline: a text of the data set; the score is the chance that the judge "
        "prefers the response to it, both ways round. pointwise: the model looks at the response by itself."
    )
    judge: PointwiseJudge | None = Field(
        None, description=f"The built-in judge of vs: pointwise, which gives the score. Default: {DEFAULT_JUDGE}."
    )

    rules: ClassVar = (
        Rule(
            cel="self.vs == 'pointwise' || !has(self.judge)",
            message="'spec.scoring.alone.judge: found with vs ' + self.vs + ', where the judge of spec.scoring "
            "compares; remove it or write vs: pointwise'",
            found_wrong=lambda a: (
                f"spec.scoring.alone.judge: found with vs {a.vs}, where the judge of spec.scoring compares; remove it "
                "or write vs: pointwise"
                if a.vs is not Versus.POINTWISE and a.judge is not None
                else None
            ),
        ),
    )


class Normalise(enum.StrEnum):
    NONE = "none"
    MINMAX = "minmax"
    MAXABS = "maxabs"
    ZSCORE = "zscore"
    RANK = "rank"


class ScheduleKind(enum.StrEnum):
    ALL = "all"
    CIRCULAR = "circular"
    ACTIVE = "active"


class Schedule(ApiModel):
    """Which pairs of a group are judged."""

    kind: ScheduleKind = Field(
        ScheduleKind.ALL,
        description="all: every pair. circular: each response against the next ones in a circle. active: in rounds, "
        "where the order is still open.",
    )
    budget: Annotated[Int, Field(ge=1, le=65536)] | None = Field(
        None, description="Most judgements for one group, under circular and active."
    )
    rounds: Annotated[Int, Field(ge=1, le=3)] | None = Field(None, description="Rounds of kind active.")

    rules: ClassVar = (
        rule(
            "self.kind != 'all' || !has(self.budget)",
            "spec.scoring.schedule.budget: found with kind all, which judges every pair; remove it, or write kind: "
            "circular or active",
            lambda s: s.kind is ScheduleKind.ALL and s.budget is not None,
        ),
        Rule(
            cel="self.kind == 'active' || !has(self.rounds)",
            message="'spec.scoring.schedule.rounds: found with kind ' + self.kind + '; remove it or write kind: "
            "active'",
            found_wrong=lambda s: (
                f"spec.scoring.schedule.rounds: found with kind {s.kind}; remove it or write kind: active"
                if s.kind is not ScheduleKind.ACTIVE and s.rounds is not None
                else None
            ),
        ),
    )


def default_order(mode: ScoringMode, compat: Compat | None = None) -> Order:
    """Of a list there are no halves to balance: it is shown by content, and otherwise to every further vote."""
    if compat is Compat.RM_GALLERY:
        return Order.GIVEN
    return Order.HASH if mode is ScoringMode.LISTWISE else Order.BALANCED


def default_aggregate(schedule: Schedule | None) -> Aggregate:
    """Win rate, where every response has met every other one; else the rule that knows who has met whom."""
    return Aggregate.WINRATE if schedule is None or schedule.kind is ScheduleKind.ALL else Aggregate.BT
