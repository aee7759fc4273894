"""One term over one group: own number → transform → normalise, and what stands where there is none; pure.

Numbers that a gate or a policy wrote down stand after normalisation and enter no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genrm_api.comparing import Normalise
from genrm_api.judging import FailurePolicy, OnFailure
from genrm_api.terms import ElsePolicy, NormaliseScope, Term, TermNormalise

from genrm_scoring.errors import FailureRaised, MixFailed
from genrm_scoring.failure import mean
from genrm_scoring.mixing.gate import passes
from genrm_scoring.mixing.running import Running, normalised
from genrm_scoring.mixing.transforms import transformed
from genrm_scoring.normalise import normalise
from genrm_scoring.types import Outcome, Score, ScoreSource, TermScore


@dataclass(frozen=True, slots=True)
class Cell:
    """What one term gave to one sample."""

    score: TermScore
    closed: bool = False
    """Its gate is: it was not asked, and has not failed."""
    drop: FailurePolicy | None = None
    """What the term's own policy does to the sample: drop or group_drop."""

    @property
    def failed(self) -> bool:
        return self.score.value is None and not self.closed


def cell(term: Term, known: Mapping[str, Score]) -> Cell:
    """What a term gave by itself, transformed; or what its gate says; or that it failed.

    Raises:
        ValueError: the term has no score although its gate is open.
    """
    gate = term.gate
    if gate is not None and not passes(gate, known.get(gate.term)):
        by_else = gate.else_.policy is ElsePolicy.VALUE
        source = ScoreSource.POLICY if by_else else ScoreSource.DROPPED
        why = f"gate: {gate.term} does not pass"
        return Cell(TermScore(term.name, gate.else_.value, Outcome.SKIPPED, source, detail=why), closed=True)
    if (score := known.get(term.name)) is None:
        raise ValueError(f"term {term.name} was not scored, and nothing keeps it from being asked")
    if score.value is None or not score.source.is_own:
        # Dropped for a sibling, or never asked because the sample lacks what is asked about: no gate wanted that.
        outcome = Outcome.REFUSED if score.outcome in (Outcome.OK, Outcome.SKIPPED) else score.outcome
        return Cell(TermScore(term.name, None, outcome, ScoreSource.DROPPED, detail=score.detail))
    own = TermScore(term.name, score.value, score.outcome, score.source, raw=score.value)
    try:
        return Cell(replace(own, value=transformed(score.value, term.transform or ())))
    except MixFailed as e:
        return Cell(_no_number(own, str(e)))


def in_one_scale(
    how: TermNormalise, column: Sequence[Cell], state: Running, *, learn: bool
) -> tuple[list[Cell], Running]:
    """The column with its own numbers normalised, and the state after it."""
    own = {
        place: c.score.value for place, c in enumerate(column) if c.score.source.is_own and c.score.value is not None
    }
    values = list(own.values())
    try:
        if how.scope is NormaliseScope.RUNNING:
            state = state.seen(values) if learn else state
            found = [normalised(how.kind, value, state.known) for value in values]
        else:
            found = normalise(how.kind, values)
    except OverflowError:
        found = [math.nan for _ in values]
    out = list(column)
    for place, value in zip(own, found, strict=True):
        score = column[place].score
        if not math.isfinite(value):
            score = _no_number(score, f"normalise {how.kind}: {score.value:g} is too far away from the others")
        elif how.clip is not None:
            score = replace(score, value=min(max(value, -how.clip), how.clip))
        else:
            score = replace(score, value=value)
        out[place] = replace(column[place], score=score)
    return out, state


def under_policy(on_failure: OnFailure, column: Sequence[Cell]) -> list[Cell]:
    """The column after the term's own policy was applied to what failed in it.

    Raises:
        FailureRaised: policy raise.
    """
    own = [c.score.value for c in column if c.score.source.is_own and c.score.value is not None]
    return [_under_policy(on_failure, c, own) if c.failed else c for c in column]


def _under_policy(on_failure: OnFailure, failed: Cell, siblings: Sequence[float]) -> Cell:
    score = failed.score
    match on_failure.policy:
        case FailurePolicy.RAISE:
            raise FailureRaised(f"term {score.name}", score.outcome, score.detail)
        case FailurePolicy.VALUE:
            return replace(failed, score=replace(score, value=on_failure.value, source=ScoreSource.POLICY))
        case FailurePolicy.GROUP_MEAN if siblings:
            return replace(failed, score=replace(score, value=mean(siblings), source=ScoreSource.POLICY))
        case FailurePolicy.GROUP_DROP:
            return replace(failed, drop=FailurePolicy.GROUP_DROP)
        case _:
            return replace(failed, drop=FailurePolicy.DROP)


def is_normalised(term: Term) -> bool:
    return term.normalise is not None and term.normalise.kind is not Normalise.NONE


def _no_number(score: TermScore, why: str) -> TermScore:
    return replace(score, value=None, outcome=Outcome.PARSE_FAILED, source=ScoreSource.DROPPED, detail=why)
