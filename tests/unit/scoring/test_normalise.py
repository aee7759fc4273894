"""Scores of a group on a common scale."""

from __future__ import annotations

import math

import pytest
from genrm_api.comparing import Normalise
from genrm_scoring.normalise import normalise
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.floats(-1e6, 1e6), max_size=12)


@pytest.mark.parametrize(
    ("kind", "values", "normalised"),
    [
        (Normalise.NONE, [3, 1, 2], [3, 1, 2]),
        (Normalise.MINMAX, [3, 1, 2], [1, -1, 0]),
        (Normalise.MAXABS, [3, -1.5, 0], [1, -0.5, 0]),
        (Normalise.ZSCORE, [3, 1], [1, -1]),
        (Normalise.RANK, [10, 30, 20, 20], [-1, 1, 0, 0]),
        (Normalise.RANK, [1, 1, 2], [-0.5, -0.5, 1]),
        (Normalise.RANK, [7], [0]),
        (Normalise.MINMAX, [7], [0]),
        (Normalise.MINMAX, [1, 1 + 1e-7], [0, 0]),
        (Normalise.ZSCORE, [5, 5, 5], [0, 0, 0]),
        (Normalise.MAXABS, [0, 1e-7], [0, 0]),
    ],
)
def test_the_scales_by_hand(kind: Normalise, values: list[float], normalised: list[float]) -> None:
    assert normalise(kind, values) == pytest.approx(normalised, abs=1e-12)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_the_values_is_no_matter(values: list[float], chance: object) -> None:
    shuffled = sorted(range(len(values)), key=lambda _: chance.random())  # type: ignore[attr-defined]
    for kind in Normalise:
        normalised = normalise(kind, values)
        assert normalise(kind, [values[u] for u in shuffled]) == [normalised[u] for u in shuffled]


@given(VALUES)
def test_no_scale_turns_two_values_around(values: list[float]) -> None:
    for kind in Normalise:
        found = normalise(kind, values)
        assert [v for _, v in sorted(zip(values, found, strict=True))] == sorted(found)


@given(VALUES)
def test_scores_stay_within_their_scale(values: list[float]) -> None:
    for kind in (Normalise.MINMAX, Normalise.MAXABS, Normalise.RANK):
        assert all(-1 <= value <= 1 for value in normalise(kind, values))
    assert math.fsum(normalise(Normalise.ZSCORE, values)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="among the values"):
        normalise(Normalise.NONE, [1.0, bad])
