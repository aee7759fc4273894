"""Failure policies over the scores of a group, mixed or not."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.judging import OnFailure
from genrm_scoring.errors import FailureRaised
from genrm_scoring.failure import drop_group, settle, survivors_needed, whole_enough
from genrm_scoring.types import Outcome, Score, ScoreSource
from hypothesis import given
from hypothesis import strategies as st

LATE = Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED, detail="late")


def judged(value: float) -> Score:
    return Score(value, Outcome.OK, ScoreSource.JUDGE)


@pytest.mark.parametrize(
    ("policy", "values", "source"),
    [
        ({}, [None, 1, 4], ScoreSource.DROPPED),
        ({"policy": "group_drop"}, [None, None, None], ScoreSource.DROPPED),
        ({"policy": "value", "value": 0}, [0, 1, 4], ScoreSource.POLICY),
        ({"policy": "group_mean"}, [2.5, 1, 4], ScoreSource.POLICY),
    ],
)
def test_a_policy_says_what_a_failure_is_worth(
    policy: dict[str, Any], values: list[float | None], source: ScoreSource
) -> None:
    found = settle([LATE, judged(1), judged(4)], OnFailure.model_validate(policy))
    assert [score.value for score in found] == values
    assert (found[0].source, found[0].outcome, found[0].detail) == (source, Outcome.TIMEOUT, "late")


def test_a_group_without_failures_is_left_alone_by_every_policy() -> None:
    group = (judged(1), judged(4))
    assert settle(group, OnFailure.model_validate({"policy": "raise"})) == group


def test_policy_raise_ends_the_run() -> None:
    with pytest.raises(FailureRaised, match="ended as timeout under policy raise: late"):
        settle([judged(1), LATE], OnFailure.model_validate({"policy": "raise"}))


def test_a_mean_leaves_out_what_policies_wrote() -> None:
    by_policy = Score(100, Outcome.TIMEOUT, ScoreSource.POLICY)
    found = settle([LATE, by_policy, judged(1)], OnFailure.model_validate({"policy": "group_mean"}))
    assert [score.value for score in found] == [1, 100, 1]


def test_who_is_dropped_for_a_sibling_keeps_its_outcome_and_says_whose_fault_it_is() -> None:
    failed, sibling = settle([LATE, judged(1)], OnFailure.model_validate({"policy": "group_drop"}))
    assert failed == LATE
    assert (sibling.outcome, sibling.source) == (Outcome.OK, ScoreSource.GROUP_DROPPED)
    assert "ended as timeout" in sibling.detail


@given(st.integers(1, 16), st.integers(0, 16))
def test_a_group_is_left_with_enough_to_compare_or_with_nothing(n: int, lost: int) -> None:
    lost = min(lost, n)
    group = whole_enough([LATE] * lost + [judged(1)] * (n - lost))
    left = sum(score.value is not None for score in group)
    assert left in (0, n) or (left >= 2 and 2 * left >= n)
    assert left == n - lost or n - lost < survivors_needed(n)


def test_a_mean_of_numbers_near_the_largest_is_a_number() -> None:
    found = settle([LATE, *[judged(1.7e308)] * 3], OnFailure.model_validate({"policy": "group_mean"}))
    assert found[0].value == pytest.approx(1.7e308)


def test_dropping_a_group_twice_changes_nothing() -> None:
    once = drop_group([LATE, judged(1)], "a reason")
    assert drop_group(once, "a reason") == once
