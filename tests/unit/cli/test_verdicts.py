"""What answers about pairs say of a judge."""

from __future__ import annotations

import pytest
from genrm_api.judging import Combine
from genrm_cli.verdicts import Trial, report
from genrm_scoring.types import Answer, Judgement, Outcome, Verdict
from genrm_scoring.votes import combined


def said(value: float | None, outcome: Outcome = Outcome.PARSE_FAILED) -> Judgement:
    answer = Answer("", prompt_tokens=100, completion_tokens=10)
    if value is None:
        return Judgement(outcome, 2.0, 3, answer=answer, detail="no number" if outcome is Outcome.PARSE_FAILED else "")
    return Judgement(Outcome.OK, 1.0, 1, Verdict(str(value), value), answer)


def alone(chosen: float | None, rejected: float | None) -> Trial:
    return Trial(said(chosen), said(rejected), compares=False)


def pair(chosen_first: float | None, rejected_first: float | None) -> Trial:
    return Trial(said(chosen_first), said(rejected_first), compares=True)


@pytest.mark.parametrize(
    ("trials", "accuracy", "ties"),
    [
        ([alone(8, 3)], 1.0, 0.0),
        ([alone(3, 8)], 0.0, 0.0),
        ([alone(8, 3), alone(5, 5)], 0.75, 0.5),
        ([alone(8, 3), alone(None, 5), alone(1, None)], 1.0, 0.0),
        ([pair(1.0, 0.0)], 1.0, 0.0),
        ([pair(0.0, 1.0)], 0.0, 0.0),
        ([pair(1.0, 1.0)], 0.5, 1.0),  # it takes whoever comes first
        ([pair(0.9, 0.4), pair(0.5, 0.5)], 0.75, 0.5),
    ],
)
def test_a_judge_is_right_where_it_prefers_the_chosen(trials: list[Trial], accuracy: float, ties: float) -> None:
    found = report("judge", trials)
    assert (found.accuracy, found.ties) == (accuracy, ties)


@pytest.mark.parametrize(
    ("trials", "consistency", "first"),
    [
        ([alone(8, 3)], None, None),
        ([pair(1.0, 0.0)], 1.0, 0.0),
        ([pair(1.0, 1.0)], 0.0, 0.5),
        ([pair(0.0, 0.0)], 0.0, -0.5),
        ([pair(0.5, 0.5)], 1.0, 0.0),
        ([pair(0.5, 0.0)], 0.0, -0.25),
        ([pair(0.9, 0.3), pair(0.9, 0.7)], 0.5, 0.2),
    ],
)
def test_a_judge_of_two_is_asked_in_both_orders(
    trials: list[Trial], consistency: float | None, first: float | None
) -> None:
    found = report("judge", trials)
    assert found.consistency == consistency
    assert found.first == (None if first is None else pytest.approx(first))


def test_what_failed_is_counted_and_is_no_tie() -> None:
    late = Trial(said(None, Outcome.TIMEOUT), said(None), compares=False)
    found = report("judge", [late, alone(2, 1)])
    assert (found.pairs, found.answered, found.calls) == (2, 1, 8)
    assert found.failed == {Outcome.TIMEOUT: 1, Outcome.PARSE_FAILED: 1}
    assert (found.prompt_tokens, found.completion_tokens, found.seconds) == (100, 10, 1.5)
    assert report("judge", [late, Trial(said(None), said(1), compares=False)]).like == "no number"
    nothing = report("judge", [late])
    assert nothing.accuracy is nothing.ties is nothing.error is None and nothing.curve == ()
    with pytest.raises(ValueError, match="no pairs"):
        report("judge", [])


def test_what_votes_took_is_what_their_judgement_took() -> None:
    votes = combined([said(3), said(4), said(None)], Combine.MEAN)
    found = report("judge", [Trial(votes, said(1), compares=False)])
    assert (found.prompt_tokens, found.completion_tokens) == (200, 20), "300 of three votes, 100 of one answer"


def test_the_curve_puts_how_sure_it_was_against_how_often_it_was_right() -> None:
    unsure = [alone(1.1, 1.0), alone(1.0, 1.1)] * 10
    sure = [alone(9, 1)] * 20
    curve = report("judge", unsure + sure).curve
    assert sum(point.count for point in curve) == 40 and [p.sure for p in curve] == sorted(p.sure for p in curve)
    assert curve[0].right == pytest.approx(0.5) and curve[-1].right == 1.0


def test_pairs_of_which_it_was_equally_sure_stay_together() -> None:
    """Of a judge with few grades the bins are those grades."""
    ties, close, far = [alone(5, 5)] * 20, [alone(6, 5)] * 30 + [alone(5, 6)] * 10, [alone(9, 5)] * 40
    curve = report("judge", ties + far + close).curve
    assert [(point.sure, point.right, point.count) for point in curve] == [(0, 0.5, 20), (1, 0.75, 40), (4, 1.0, 40)]
    assert curve[0].error > curve[1].error > curve[2].error


def test_the_interval_is_wilsons() -> None:
    """Of 81 of 263: 0.308 with (0.255, 0.366), Newcombe (1998), table I, method 3."""
    found = report("judge", [alone(2, 1)] * 81 + [alone(1, 2)] * 182)
    assert found.error == pytest.approx((0.3662 - 0.2553) / 2, abs=1e-4)
