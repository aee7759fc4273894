"""Transforms: the shapes, and that none leaves the numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genrm_api.terms import Transform
from genrm_scoring.errors import MixFailed
from genrm_scoring.mixing.transforms import transformed
from hypothesis import given
from hypothesis import strategies as st

BGE = {"kind": "piecewise", "points": [{"score": 0.65, "value": 0.1}, {"score": 0.85, "value": 1}]}
"""VeRL-with-RMs' similarity: at most .65 is worth .1, at least .85 is worth 1."""


def steps(*found: dict[str, Any]) -> list[Transform]:
    return [Transform.model_validate(step) for step in found]


@pytest.mark.parametrize(
    ("step", "x", "y"),
    [
        (BGE, 0.0, 0.1),
        (BGE, 0.65, 0.1),
        (BGE, 0.75, 0.55),
        (BGE, 0.85, 1.0),
        (BGE, 2.0, 1.0),
        ({"kind": "affine", "scale": 2, "offset": -1}, 3.0, 5.0),
        ({"kind": "affine", "offset": 4}, 3.0, 7.0),
        ({"kind": "affine"}, 3.0, 3.0),
        ({"kind": "clip", "minimum": -1, "maximum": 1}, -9.0, -1.0),
        ({"kind": "clip", "minimum": -1}, 9.0, 9.0),
        ({"kind": "clip", "maximum": 1}, 9.0, 1.0),
        ({"kind": "sigmoid"}, 0.0, 0.5),
        ({"kind": "sigmoid", "scale": 2, "offset": 1}, 1.0, 1 / (1 + math.exp(-3))),
        ({"kind": "sigmoid"}, -1e300, 0.0),
        ({"kind": "sigmoid"}, 1e300, 1.0),
    ],
)
def test_each_kind_is_its_formula(step: dict[str, Any], x: float, y: float) -> None:
    assert transformed(x, steps(step)) == pytest.approx(y)


def test_steps_follow_one_another() -> None:
    assert (
        transformed(3, steps({"kind": "affine", "scale": 2}, {"kind": "clip", "maximum": 5}, {"kind": "affine"})) == 5
    )
    assert transformed(3, ()) == 3


def test_what_leaves_the_numbers_is_no_number() -> None:
    with pytest.raises(MixFailed, match="transform affine makes inf"):
        transformed(1e200, steps({"kind": "affine", "scale": 1e200}, {"kind": "clip", "maximum": 1}))


@given(st.floats(0, 1), st.floats(0, 1))
def test_lines_that_rise_keep_the_order(a: float, b: float) -> None:
    low, high = (transformed(x, steps(BGE)) for x in sorted((a, b)))
    assert 0.1 <= low <= high + 1e-12 and high <= 1
