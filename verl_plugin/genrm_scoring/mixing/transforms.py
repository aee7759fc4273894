"""What a term's own number goes through before it is normalised: affine, clip, sigmoid, piecewise; pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from genrm_api.terms import Point, Transform, TransformKind

from genrm_scoring.errors import MixFailed


def transformed(value: float, steps: Sequence[Transform]) -> float:
    """`value` after all steps, in order.

    Raises:
        MixFailed: a step left the numbers that a float can hold.
    """
    for step in steps:
        value = _one(value, step)
        if not math.isfinite(value):
            raise MixFailed(f"transform {step.kind} makes {value}")
    return value


def _one(value: float, step: Transform) -> float:
    match step.kind:
        case TransformKind.AFFINE:
            return _line(value, step)
        case TransformKind.SIGMOID:
            return sigmoid(_line(value, step))
        case TransformKind.CLIP:
            low = -math.inf if step.minimum is None else step.minimum
            high = math.inf if step.maximum is None else step.maximum
            return min(max(value, low), high)
        case TransformKind.PIECEWISE:
            return piecewise(value, step.points or ())


def _line(value: float, step: Transform) -> float:
    return (1.0 if step.scale is None else step.scale) * value + (0.0 if step.offset is None else step.offset)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), for every x: the power never grows."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


def piecewise(x: float, points: Sequence[Point]) -> float:
    """Straight lines through `points`, which rise in score; level before the first and after the last."""
    after = bisect_right([point.score for point in points], x)
    if after in (0, len(points)):
        return points[0].value if after == 0 else points[-1].value
    left, right = points[after - 1], points[after]
    share = (x - left.score) / (right.score - left.score)
    return (1 - share) * left.value + share * right.value
