"""What a score is turned into before it leaves: `spec.scoring.calibrate`. Pure."""

from __future__ import annotations

import math

from genrm_api.judging import Calibrate, CalibrateKind

from genrm_scoring.errors import ParseFailed


def calibrated(value: float, calibrate: Calibrate | None) -> float:
    """affine: scale x value + offset. sigmoid: 1 / (1 + exp(-(that))).

    Raises:
        ParseFailed: there is no such number.
    """
    if calibrate is None:
        return value
    scaled = calibrate.scale * value + calibrate.offset
    if not math.isfinite(scaled):
        raise ParseFailed(f"{value:g}, calibrated, is no number")
    if calibrate.kind is CalibrateKind.AFFINE:
        return scaled
    return sigmoid(scaled)


def sigmoid(x: float) -> float:
    """The logistic function, without overflow on either side."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1 + grown)
