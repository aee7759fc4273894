"""Statistics of a run: what they are, that they are one whatever the order, and that they survive a checkpoint."""

from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise

import pytest
from genrm_api.comparing import Normalise
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.mixing.running import Moments, Running, normalised
from genrm_scoring.normalise import normalise
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.floats(-1000, 1000), min_size=1, max_size=20)
KINDS = [Normalise.MINMAX, Normalise.MAXABS, Normalise.ZSCORE]


def after(*steps: list[float], half_life: int | None = None) -> Running:
    state = Running()
    for values in steps:
        state = state.seen(values).step_ended(half_life)
    return state


@given(VALUES, st.data())
def test_pieces_make_the_same_statistics_as_the_whole(values: list[float], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    pieces = [values[a:b] for a, b in pairwise([0, *cuts, len(values)])]
    joined = Moments()
    for piece in data.draw(st.permutations(pieces)):
        joined = joined.merged(Moments.of(piece))
    assert joined.weight == len(values) and (joined.low, joined.high) == (min(values), max(values))
    assert joined.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert joined.squares / joined.weight == pytest.approx(statistics.pvariance(values), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(values=VALUES)
def test_a_run_of_one_group_is_normalised_as_that_group(kind: Normalise, values: list[float]) -> None:
    known = Running().seen(values).known
    assert [normalised(kind, value, known) for value in values] == pytest.approx(normalise(kind, values), abs=1e-6)


@given(VALUES, VALUES)
def test_processes_that_share_a_step_make_one_state(one: list[float], other: list[float]) -> None:
    began = after([1.0, 2.0])
    apart = began.seen(one).merged(began.seen(other))
    together = began.seen(one).seen(other)
    assert apart.coming == together.coming and apart.settled == began.settled


def test_with_a_half_life_the_past_fades() -> None:
    state = after([0.0] * 8, [10.0] * 8, half_life=8)
    assert state.settled.weight == 12 and state.settled.mean == pytest.approx(80 / 12)
    assert after([0.0] * 8, [10.0] * 8).settled.mean == 5
    for _ in range(20):
        state = state.seen([10.0] * 8).step_ended(8)
    assert state.settled.mean == pytest.approx(10, abs=1e-4)


def test_a_step_without_scores_forgets_nothing() -> None:
    state = after([1.0, 3.0])
    assert state.step_ended(1) == state


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Normalise.MINMAX, 5.0, 0.5),
        (Normalise.MINMAX, 99.0, 1.0),
        (Normalise.MAXABS, 4.0, 0.5),
        (Normalise.MAXABS, -99.0, -1.0),
        (Normalise.ZSCORE, 2.0, 0.0),
        (Normalise.ZSCORE, 14.0, 2.0),
        (Normalise.NONE, 14.0, 14.0),
    ],
)
def test_what_was_seen_is_the_scale(kind: Normalise, value: float, expected: float) -> None:
    assert normalised(kind, value, Moments.of([-4.0, 8.0])) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_differs_all_become_zero_and_where_nothing_is_known_nothing_changes(kind: Normalise) -> None:
    assert normalised(kind, 0.0, Moments.of([0.0, 0.0])) == 0
    assert normalised(kind, 0.7, Moments()) == 0.7


@given(st.lists(VALUES, max_size=3), VALUES)
def test_a_checkpoint_brings_the_state_back_exactly(steps: list[list[float]], coming: list[float]) -> None:
    state = after(*steps, half_life=7).seen(coming)
    assert Running.restored(json.loads(json.dumps(state.saved()))) == state


@pytest.mark.parametrize("saved", [
    {}, {"settled": {}, "coming": {}}, {"settled": 3, "coming": 4},
    {**Running().saved(), "coming": {**Running().saved()["coming"], "mean": "x"}},
    {**Running().saved(), "coming": {**Running().saved()["coming"], "mean": math.nan}},
])  # fmt: skip
def test_what_is_no_state_is_refused_with_a_sentence(saved: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="running normalisation: the checkpoint holds"):
        Running.restored(saved)
