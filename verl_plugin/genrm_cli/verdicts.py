"""What a judge's answers about pairs say of the judge. Pure.

*Accuracy*: the share of pairs, of those with an answer, in which it prefers the chosen response; a tie counts half.
*Consistency* (of a judge that compares): the share of pairs, asked in both orders, in which it prefers the same
response, or none, both times. *First* is how much it prefers whichever comes first, beyond a half. The *calibration
curve* puts how sure it was against how often it was right, in fifths of the pairs: of a judge that compares, how far
its preference is from a half; of a judge of one, by how much the scores differ.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from genrm_scoring.types import Answer, Judgement, Outcome

BINS: Final = 5
_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Trial:
    """One pair: the judgements of the chosen and the rejected response; or, of a judge that `compares`, of both with
    the chosen first and with the rejected first."""

    one: Judgement
    other: Judgement
    compares: bool

    @property
    def margin(self) -> float | None:
        """How much it prefers the chosen response, from -1 to 1 if it compares. `None` without both answers."""
        if self.one.verdict is None or self.other.verdict is None:
            return None
        return self.one.verdict.value - self.other.verdict.value


@dataclass(frozen=True, slots=True)
class Point:
    """Of the pairs in one bin: how sure the judge was, how often it was right, how many they are, and half of the 95 %
    interval of how often."""

    sure: float
    right: float
    count: int
    error: float


@dataclass(frozen=True, slots=True)
class Report:
    judge: str
    pairs: int
    answered: int
    accuracy: float | None
    error: float | None
    """Half of the 95 % interval of the accuracy (Wilson's, 1927)."""
    ties: float | None
    consistency: float | None
    first: float | None
    failed: dict[Outcome, int]
    like: str
    """What was wrong with one of those that failed as most did."""
    calls: int
    prompt_tokens: float | None
    completion_tokens: float | None
    seconds: float
    curve: tuple[Point, ...]


def report(judge: str, trials: Sequence[Trial]) -> Report:
    """
    Raises:
        ValueError: there are no trials.
    """
    if not trials:
        raise ValueError("no pairs")
    judgements = [judgement for trial in trials for judgement in (trial.one, trial.other)]
    margins = [trial.margin for trial in trials]
    known = [margin for margin in margins if margin is not None]
    rights = [_right(margin) for margin in known]
    failed = Counter(judgement.outcome for judgement in judgements if judgement.verdict is None)
    worst = max(failed, key=lambda outcome: failed[outcome], default=None)
    asked = _each(judgements, lambda answer: answer.prompt_tokens)
    said = _each(judgements, lambda answer: answer.completion_tokens)
    compared = [trial for trial in trials if trial.compares and trial.margin is not None]
    return Report(
        judge=judge,
        pairs=len(trials),
        answered=len(known),
        accuracy=fmean(rights) if rights else None,
        error=_wilson(fmean(rights), len(rights)) if rights else None,
        ties=fmean(margin == 0 for margin in known) if known else None,
        consistency=fmean(map(_consistent, compared)) if compared else None,
        first=fmean(map(_first, compared)) if compared else None,
        failed=dict(failed),
        like=next((judgement.detail for judgement in judgements if judgement.outcome is worst), ""),
        calls=sum(judgement.attempts for judgement in judgements),
        prompt_tokens=fmean(asked) if asked else None,
        completion_tokens=fmean(said) if said else None,
        seconds=fmean(judgement.seconds for judgement in judgements),
        curve=_curve(known),
    )


def _each(judgements: Sequence[Judgement], count: Callable[[Answer], int | None]) -> list[int]:
    """What each judgement took, all of its votes together, where the engine says it."""
    found = []
    for judgement in judgements:
        answers = [one.answer for one in (judgement.votes or (judgement,)) if one.answer is not None]
        if known := [n for n in map(count, answers) if n is not None]:
            found.append(sum(known))
    return found


def _right(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def _preference(judgement: Judgement) -> float:
    assert judgement.verdict is not None
    return judgement.verdict.value - 0.5


def _consistent(trial: Trial) -> bool:
    """The preference for the first turns its sign when the order is turned."""
    one, other = _preference(trial.one), _preference(trial.other)
    return (one == 0 and other == 0) or one * other < 0


def _first(trial: Trial) -> float:
    return (_preference(trial.one) + _preference(trial.other)) / 2


def _curve(margins: Sequence[float]) -> tuple[Point, ...]:
    """In bins of equal counts by how sure it was, but that equals stay together; of ties it is sure of nothing."""
    sure = sorted(((abs(margin), _right(margin)) for margin in margins), key=lambda pair: pair[0])
    edges = [0]
    for number in range(1, BINS + 1):
        edge = number * len(sure) // BINS
        while 0 < edge < len(sure) and sure[edge][0] == sure[edge - 1][0]:
            edge += 1
        edges += [edge] if edge > edges[-1] else []
    found = []
    for begin, end in itertools.pairwise(edges):
        part = sure[begin:end]
        right = fmean(r for _, r in part)
        found.append(Point(fmean(s for s, _ in part), right, len(part), _wilson(right, len(part))))
    return tuple(found)


def _wilson(share: float, count: int) -> float:
    spread = math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return _Z * spread / (1 + _Z**2 / count)
