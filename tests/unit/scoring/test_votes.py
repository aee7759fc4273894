"""Several answers to one question come to one verdict, or to none."""

from __future__ import annotations

import random

import pytest
from genrm_api.judging import Calibrate, CalibrateKind, Combine
from genrm_scoring.calibration import calibrated, sigmoid
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.errors import ParseFailed
from genrm_scoring.types import FailedAttempt, Judgement, Outcome, Verdict
from genrm_scoring.votes import average, combined
from hypothesis import given
from hypothesis import strategies as st


def vote(value: float | None, outcome: Outcome = Outcome.PARSE_FAILED, **facts: float) -> Judgement:
    if value is None:
        return Judgement(outcome, 0.5, 1, detail=f"{outcome} it was")
    return Judgement(Outcome.OK, 1.0, 2, Verdict(f"{value:g}", value, facts))


@pytest.mark.parametrize(
    ("values", "how", "value"),
    [
        ([1, 2, 6], Combine.MEAN, 3.0),
        ([1, 2, 6], Combine.MEDIAN, 2.0),
        ([1, 2, 6, 7], Combine.MEDIAN, 4.0),
        ([1, 0, 1], Combine.MODE, 1.0),
        ([1, 0], Combine.MODE, 0.5),
        ([1, 0, 0, 1, 0.5], Combine.MODE, 0.5),
        ([1, 2, 9], Combine.TRIMMED, 2.0),
        ([1, 2], Combine.TRIMMED, 1.5),
        ([0, 1, 2, 3, 4, 5, 6, 90], Combine.TRIMMED, 3.5),
        ([4], Combine.TRIMMED, 4.0),
    ],
)
def test_votes_come_to_what_the_spec_says(values: list[float], how: Combine, value: float) -> None:
    assert average(values, how) == value


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=16), st.sampled_from(Combine), st.randoms())
def test_the_order_of_votes_changes_nothing_and_the_value_lies_among_them(
    values: list[float], how: Combine, dice: random.Random
) -> None:
    mixed = dice.sample(values, len(values))
    assert average(values, how) == average(mixed, how)
    assert min(values) - 1e-6 <= average(values, how) <= max(values) + 1e-6


def test_failed_votes_are_counted_and_do_not_count() -> None:
    judgement = combined([vote(1.0), vote(0.0), vote(None), vote(1.0)], Combine.MODE)
    assert judgement.outcome is Outcome.OK and judgement.verdict is not None
    assert judgement.verdict.value == 1.0
    assert judgement.verdict.label == "2 x 1, 1 x 0"
    assert judgement.verdict.facts == {"votes": 3.0, "votes_failed": 1.0}
    assert (judgement.attempts, judgement.seconds, len(judgement.votes)) == (7, 1.0, 4)


@pytest.mark.parametrize("failed", [2, 3, 4])
def test_without_a_majority_of_verdicts_there_is_none(failed: int) -> None:
    votes = [vote(1.0)] * (4 - failed) + [vote(None, Outcome.TRUNCATED)] + [vote(None)] * (failed - 1)
    judgement = combined(votes, Combine.MEAN)
    assert judgement.verdict is None
    assert judgement.outcome is Outcome.PARSE_FAILED  # of two that are equally common the one listed first
    assert judgement.detail.startswith(f"{failed} of 4 votes failed, like: parse_failed it was")


def test_the_failures_of_all_votes_are_kept() -> None:
    failure = FailedAttempt(Endpoint("http://a"), "Disconnected", "reset", 0.1)
    lost = Judgement(Outcome.TRANSPORT, 1.0, 1, failures=(failure,))
    assert combined([lost, lost], Combine.MEAN).failures == (failure, failure)


def test_facts_that_all_votes_have_are_averaged() -> None:
    verdict = combined([vote(1.0, a=1.0, b=1.0), vote(1.0, a=2.0)], Combine.MEAN).verdict
    assert verdict is not None and verdict.facts == {"a": 1.5, "votes": 2.0, "votes_failed": 0.0}


def test_calibration_is_what_its_formula_says() -> None:
    affine = Calibrate(kind=CalibrateKind.AFFINE, scale=2, offset=1)
    assert calibrated(3.0, affine) == 7.0
    assert calibrated(3.0, None) == 3.0
    assert calibrated(0.0, Calibrate(kind=CalibrateKind.SIGMOID, scale=5, offset=0)) == 0.5
    assert (sigmoid(1e6), sigmoid(-1e6)) == (1.0, 0.0)


def test_a_number_that_calibration_loses_is_no_score() -> None:
    with pytest.raises(ParseFailed):
        calibrated(1e300, Calibrate(kind=CalibrateKind.AFFINE, scale=1e300))


def test_a_verdict_is_a_number() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="worth nothing"):
            Verdict("x", value)
