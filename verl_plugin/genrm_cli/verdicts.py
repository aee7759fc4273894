"""What a judge's answers about pairs say of the judge. Pure.

*Accuracy*: the share of pairs, of those with an answer, in which it prefers the chosen response; a tie counts half.
*Consistency* (of a judge of two): the share of pairs, asked in both orders, in which it prefers the same response, or
none, both times. *First* is how much it prefers whichever comes first, beyond a half. The *calibration curve* puts how
sure it was against how often it was right: of a judge of two, how far its preference is from a half; of a judge of one,
by how much the scores differ, in quarters of the pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from genrm_scoring.types import Judgement, Outcome

BINS: Final = 5
_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Trial:
    """One pair: the judgements of the chosen and the rejected response; or, in pairs, of chosen first and rejected
    first."""

    one: Judgement
    other: Judgement
    pairwise: bool

    @property
    def margin(self) -> float | None:
        """How much it prefers the chosen response; of a judge of two from -1 to 1. `None` without both answers."""
        if self.one.verdict is None or self.other.verdict is None:
            return None
        return self.one.verdict.value - self.other.verdict.value


@dataclass(frozen=True, slots=True)
class Point:
    """Of the pairs in one bin: how sure the judge was, how often it was right, how many they are."""

    sure: float
    right: float
    count: int


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
    answers = [judgement.answer for judgement in judgements if judgement.answer is not None]
    asked = [a.prompt_tokens for a in answers if a.prompt_tokens is not None]
    said = [a.completion_tokens for a in answers if a.completion_tokens is not None]
    pairwise = [t for t in trials if t.pairwise and t.margin is not None]
    return Report(
        judge=judge,
        pairs=len(trials),
        answered=len(known),
        accuracy=fmean(rights) if rights else None,
        error=_wilson(fmean(rights), len(rights)) if rights else None,
        ties=fmean(margin == 0 for margin in known) if known else None,
        consistency=fmean(_consistent(trial) for trial in pairwise) if pairwise else None,
        first=fmean(_first(trial) for trial in pairwise) if pairwise else None,
        failed=dict(Counter(j.outcome for j in judgements if j.verdict is None)),
        calls=sum(judgement.attempts for judgement in judgements),
        prompt_tokens=fmean(asked) if asked else None,
        completion_tokens=fmean(said) if said else None,
        seconds=fmean(judgement.seconds for judgement in judgements),
        curve=_curve(known),
    )


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
    """In bins of equal counts, by how sure it was; ties are sure of nothing."""
    sure = sorted(((abs(margin), _right(margin)) for margin in margins), key=lambda pair: pair[0])
    bins = min(BINS, len(sure))
    found = []
    for number in range(bins):
        part = sure[number * len(sure) // bins : (number + 1) * len(sure) // bins]
        found.append(Point(fmean(s for s, _ in part), fmean(r for _, r in part), len(part)))
    return tuple(found)


def _wilson(share: float, count: int) -> float:
    spread = math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return _Z * spread / (1 + _Z**2 / count)
