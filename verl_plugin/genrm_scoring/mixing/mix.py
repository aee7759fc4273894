"""The scores of a group from the numbers of its terms; pure.

Term by term over the group (`column`), then sample by sample: weight and combine; then over the group again: what the
fleet's failure policy makes of samples that have no score, and whether enough of the others are left.

A sample in which no term took part has no score, not the zero that an empty sum is. Every term's number is reported
with the score, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrm_api.judging import FailurePolicy

from genrm_scoring.errors import MixFailed
from genrm_scoring.failure import drop_group, settle, whole_enough
from genrm_scoring.mixing.column import Cell, cell, in_one_scale, is_normalised, under_policy
from genrm_scoring.mixing.combine import Part, combined
from genrm_scoring.mixing.mixture import Mixture
from genrm_scoring.mixing.running import Running
from genrm_scoring.types import Outcome, Score, ScoreSource, TermScore


@dataclass(frozen=True, slots=True)
class Mixed:
    """The scores of a group, in its order, and the states of running normalisation, by term."""

    scores: tuple[Score, ...]
    running: Mapping[str, Running]


def mix(
    mixture: Mixture, group: Sequence[Mapping[str, Score]], running: Mapping[str, Running], *, learn: bool
) -> Mixed:
    """
    Args:
        group: for each response to one prompt what its terms were scored, by name. A term whose gate is closed may be
            missing. A number by a policy counts as a failure here: in a fleet its own policies decide.
        running: states of the terms that are normalised over the run, as the last call or a checkpoint left them.
        learn: whether the group's numbers enter these states; not in validation.

    Raises:
        ValueError: a sample lacks the score of a term whose gate is open: it was not asked for.
        FailureRaised: a failure under policy raise.
    """
    states = dict(running)
    columns: list[list[Cell]] = []
    for term in mixture.terms:
        column = [cell(term, known) for known in group]
        if is_normalised(term) and (how := term.normalise) is not None:
            column, state = in_one_scale(how, column, states.get(term.name, Running()), learn=learn)
            if state != Running():
                states[term.name] = state
        if term.on_failure is not None:
            column = under_policy(term.on_failure, column)
        columns.append(column)
    rows = [_row(mixture, cells) for cells in zip(*columns, strict=True)]
    return Mixed(_settled(mixture, rows), states)


@dataclass(frozen=True, slots=True)
class _Row:
    """A sample's score before the fleet's policy. `drop`: what the policy of one of its terms says."""

    score: Score
    drop: FailurePolicy | None = None


def _row(mixture: Mixture, cells: Sequence[Cell]) -> _Row:
    terms = tuple(c.score for c in cells)
    drops = [c for c in cells if c.drop is not None]
    worst = next((c for c in drops if c.drop is FailurePolicy.GROUP_DROP), drops[0] if drops else None)
    if worst is not None:
        return _Row(_without(terms, worst.score), worst.drop)
    for term, c in zip(mixture.terms, cells, strict=True):
        if c.failed and mixture.matters(term):
            return _Row(_without(terms, c.score))
    try:
        value = _combined(mixture, terms)
    except MixFailed as e:
        return _Row(Score(None, Outcome.PARSE_FAILED, ScoreSource.DROPPED, terms, str(e)))
    if value is None:
        return _Row(Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, terms, "no term takes part: gates are closed"))
    for term, c in zip(mixture.terms, cells, strict=True):
        # A closed gate's number is what the fleet wants there; a failure's number is one that nobody gave.
        if mixture.matters(term) and c.score.source is ScoreSource.POLICY and not c.closed:
            return _Row(Score(value, c.score.outcome, ScoreSource.POLICY, terms, f"{c.score.name}: {c.score.detail}"))
    return _Row(Score(value, Outcome.OK, ScoreSource.MIX, terms))


def _without(terms: tuple[TermScore, ...], failed: TermScore) -> Score:
    return Score(None, failed.outcome, ScoreSource.DROPPED, terms, f"{failed.name}: {failed.detail}")


def _combined(mixture: Mixture, terms: Sequence[TermScore]) -> float | None:
    """The number of a sample; `None` if no term takes part."""
    if mixture.expression is not None:
        return mixture.expression.value({term.name: term.value for term in terms if term.value is not None})
    parts = [
        Part(score.name, score.value, term.weight, mixture.join(term))
        for term, score in zip(mixture.terms, terms, strict=True)
        if mixture.takes_part(term) and score.value is not None
    ]
    return combined(mixture.spec.combine, parts, mixture.spec.initial) if parts else None


def _settled(mixture: Mixture, rows: Sequence[_Row]) -> tuple[Score, ...]:
    scores = tuple(row.score for row in rows)
    for row in rows:
        if row.drop is FailurePolicy.GROUP_DROP:
            return drop_group(scores, f"a response to the same prompt failed, policy group_drop: {row.score.detail}")
    failed = [place for place, row in enumerate(rows) if row.score.value is None and row.drop is None]
    return whole_enough(settle(scores, mixture.spec.on_failure, failed))
