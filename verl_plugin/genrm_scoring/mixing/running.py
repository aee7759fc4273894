"""Normalisation by everything a run has scored so far.

A group is normalised by itself; a run by a state that lives as long as it does. The state has two parts: what is
*settled*, all steps that have ended, and what is *coming*, the step that is under way. Numbers are normalised by what
is settled, so that within a step the same score is worth the same whatever came before it; only the first step, which
has nothing else, goes by what has come so far. `step_ended` joins the two. In validation nothing is added.

States are values: they can be written into a checkpoint (`saved`, `restored`), and those of several processes are one
by `merged`. Mean and variance are joined as Chan, Golub and LeVeque do (1979); with a half-life the past loses weight
at every step's end, by the number of scores in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from genrm_api.comparing import Normalise

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.failure import mean
from genrm_scoring.normalise import SAME

_KEYS: Final = ("weight", "mean", "squares", "low", "high")


@dataclass(frozen=True, slots=True)
class Moments:
    """`weight` is how many numbers there were, or what a half-life left of that; `squares` is the sum of the squared
    distances from the mean."""

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Moments:
        if not values:
            return cls()
        middle = mean(values)
        squares = math.fsum((value - middle) ** 2 for value in values)
        return cls(float(len(values)), middle, squares, min(values), max(values))

    def merged(self, other: Moments) -> Moments:
        if not self.weight or not other.weight:
            return self if self.weight else other
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        return Moments(
            weight,
            self.mean + apart * other.weight / weight,
            self.squares + other.squares + apart**2 * self.weight * other.weight / weight,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    def aged(self, share: float) -> Moments:
        """Counting only for a share of what it did."""
        return replace(self, weight=self.weight * share, squares=self.squares * share)


@dataclass(frozen=True, slots=True)
class Running:
    settled: Moments = Moments()
    coming: Moments = Moments()

    @property
    def known(self) -> Moments:
        """What numbers are normalised by now."""
        return self.settled if self.settled.weight else self.coming

    def seen(self, values: Sequence[float]) -> Running:
        """With some numbers of the step that is under way."""
        return Running(self.settled, self.coming.merged(Moments.of(values)))

    def merged(self, other: Running) -> Running:
        """Of another process in the same step; both began it with the same settled part."""
        return Running(self.settled, self.coming.merged(other.coming))

    def step_ended(self, half_life: int | None = None) -> Running:
        """`half_life` is in scores."""
        share = 1.0 if half_life is None else 0.5 ** (self.coming.weight / half_life)
        return Running(self.settled.aged(share).merged(self.coming))

    def saved(self) -> dict[str, dict[str, float]]:
        """For a checkpoint, as JSON can hold it."""
        return {
            part: {key: getattr(moments, key) for key in _KEYS}
            for part, moments in (("settled", self.settled), ("coming", self.coming))
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Running:
        """
        Raises:
            ConfigurationError: it is no state that `saved` wrote.
        """
        try:
            parts = {part: Moments(**{key: float(saved[part][key]) for key in _KEYS}) for part in ("settled", "coming")}
        except (KeyError, TypeError, ValueError) as e:
            raise ConfigurationError(
                "running normalisation", f"the checkpoint holds {saved!r:.200}, which is no state of it ({e})"
            ) from e
        if not all(math.isfinite(getattr(moments, key)) for moments in parts.values() for key in _KEYS):
            raise ConfigurationError("running normalisation", f"the checkpoint holds {saved!r:.200}, not all finite")
        return cls(**parts)


def normalised(kind: Normalise, value: float, known: Moments) -> float:
    """`value` on the scale of `kind`, by what is known; unchanged where nothing is.

    minmax and maxabs end at -1 and 1 also for a value beyond all that were seen. Where what is known does not differ,
    every value becomes 0, as in a group. `rank` needs the numbers themselves, and the API refuses it.
    """
    if not known.weight:
        return value
    match kind:
        case Normalise.MINMAX:
            spread = known.high - known.low
            return _within_one(2 * (value - known.low) / spread - 1) if spread >= SAME else 0.0
        case Normalise.MAXABS:
            largest = max(abs(known.low), abs(known.high))
            return _within_one(value / largest) if largest >= SAME else 0.0
        case Normalise.ZSCORE:
            deviation = math.sqrt(known.squares / known.weight)
            return (value - known.mean) / deviation if deviation >= SAME else 0.0
        case _:
            return value


def _within_one(value: float) -> float:
    return min(max(value, -1.0), 1.0)
