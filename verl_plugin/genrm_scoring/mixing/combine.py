"""How the numbers of a sample's terms become one; pure.

`add` and `mul` fold in the order of the terms: `((initial + w1·v1) · w2·v2) + …`, each term in its own way. Without an
`initial` the first term that takes part begins, so that nothing is ever added to a zero, or multiplied by one, that
nobody wrote. The others look at all terms at once. A term that takes no part is left out, also of the sum of the
weights under geomean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from genrm_api.rewardfleet import FleetCombine
from genrm_api.terms import TermCombine

from genrm_scoring.errors import MixFailed


@dataclass(frozen=True, slots=True)
class Part:
    """One term's number. `join` is how it folds."""

    name: str
    value: float
    weight: float
    join: TermCombine


def combined(how: FleetCombine, parts: Sequence[Part], initial: float | None) -> float:
    """The number that `parts`, at least one, make in any way but by an expression.

    Raises:
        MixFailed: they make none.
    """
    try:
        found = _combined(how, parts, initial)
    except (ArithmeticError, ValueError) as e:
        raise MixFailed(f"{how} of {_shown(parts)}: {e}") from e
    if not math.isfinite(found):
        raise MixFailed(f"{how} of {_shown(parts)} is {found}")
    return found


def _combined(how: FleetCombine, parts: Sequence[Part], initial: float | None) -> float:
    match how:
        case FleetCombine.ADD | FleetCombine.MUL:
            return _folded(parts, initial)
        case FleetCombine.MIN:
            return min(part.weight * part.value for part in parts)
        case FleetCombine.MAX:
            return max(part.weight * part.value for part in parts)
        case FleetCombine.POWER:
            return math.prod(_power(part.value, part.weight) for part in parts)
        case FleetCombine.GEOMEAN:
            whole = math.fsum(part.weight for part in parts)
            return math.prod(_power(part.value, part.weight / whole) for part in parts)
        case FleetCombine.EXPRESSION:
            raise AssertionError("an expression combines by itself")


def _folded(parts: Sequence[Part], initial: float | None) -> float:
    total = initial
    for part in parts:
        weighted = part.weight * part.value
        if total is None:
            total = weighted
        elif part.join is TermCombine.MUL:
            total *= weighted
        else:
            total += weighted
    assert total is not None
    return total


def _power(value: float, exponent: float) -> float:
    if value < 0:
        raise ValueError(f"{value:g} is negative, and has no power {exponent:g}")
    return math.pow(value, exponent)


def _shown(parts: Sequence[Part]) -> str:
    return ", ".join(f"{part.name} {part.value:g}" for part in parts)
