"""What a step's report says of its samples, and when a number is warned of."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest
from genrm_scoring.telemetry import Compared, Jumps, Scored, StepReport, above, correlation, summarised
from genrm_scoring.types import Outcome, Score, ScoreSource, TermScore
from hypothesis import assume, given
from hypothesis import strategies as st

NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 3))


def judged(value: float, group: str = "a", length: int = 100, terms: tuple[TermScore, ...] = ()) -> Scored:
    return Scored(group, length, Score(value, Outcome.OK, ScoreSource.JUDGE, terms))


def failed(outcome: Outcome, length: int = 100) -> Scored:
    return Scored("a", length, Score(None, outcome, ScoreSource.DROPPED))


def skipped(length: int) -> Scored:
    gated = TermScore("judged", None, Outcome.SKIPPED, ScoreSource.DROPPED)
    return Scored("a", length, Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, (gated,)))


def test_failures_are_told_by_the_length_of_the_response() -> None:
    report = summarised(
        [judged(1, length=10), failed(Outcome.TRUNCATED, 5000), failed(Outcome.TIMEOUT, 5000), judged(1, length=4096),
         skipped(4096), failed(Outcome.PARSE_FAILED, 10**6)]
    )  # fmt: skip
    assert report.outcomes == {
        Outcome.OK: 2, Outcome.TRUNCATED: 1, Outcome.TIMEOUT: 1, Outcome.SKIPPED: 1, Outcome.PARSE_FAILED: 1,
    }  # fmt: skip
    assert list(report.by_length) == [0, 4096, 16384]
    assert (report.by_length[0].count, report.by_length[0].failed) == (1, 0)
    middle = report.by_length[4096]
    assert (middle.count, middle.failed, middle.truncated, middle.timed_out) == (4, 0.5, 0.25, 0.25)
    assert report.rates()["failed"] == 0.5 and report.rates()["parse_failed"] == pytest.approx(1 / 6)


def test_length_counts_within_a_group_only() -> None:
    """Long answers to a hard prompt with low scores are no preference for short ones."""
    step = [judged(v, "easy", n) for v, n in ((9, 10), (10, 20))] + [
        judged(v, "hard", n) for v, n in ((1, 500), (2, 510))
    ]
    assert summarised(step).length_correlation == pytest.approx(1)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=20))
def test_the_correlation_is_pearsons(pairs: list[tuple[float, float]]) -> None:
    xs, ys = ([pair[side] for pair in pairs] for side in (0, 1))
    assume(min(statistics.pstdev(xs), statistics.pstdev(ys)) > 0.01)
    found = correlation([x - statistics.fmean(xs) for x in xs], [y - statistics.fmean(ys) for y in ys])
    assert found == pytest.approx(statistics.correlation(xs, ys), abs=1e-6)


def test_what_has_no_spread_has_no_correlation_and_is_no_zero() -> None:
    report = summarised([judged(1, length=5), judged(1, length=9)])
    assert report.length_correlation is None and "length_correlation" not in report.rates()
    assert summarised([]).rates() == {}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_agreement_is_the_chance_of_the_right_order(low: list[int], high: list[int]) -> None:
    pairs = [(h > w) + (h == w) / 2 for h in high for w in low]
    assert above(low, high) == pytest.approx(statistics.fmean(pairs))


def test_judge_and_rule_are_compared_by_their_own_numbers() -> None:
    def step(*pairs: tuple[float, float]) -> list[Scored]:
        return [
            judged(0, terms=(
                TermScore("correct", rule, Outcome.OK, ScoreSource.RULE, raw=rule),
                TermScore("judged", -judge, Outcome.OK, ScoreSource.JUDGE, raw=judge),
            ))
            for rule, judge in pairs
        ]  # fmt: skip

    assert summarised(step((1, 9), (0, 2), (1, 5), (0, 1))).agreement == {"judged/correct": 1}
    assert summarised(step((1, 1), (0, 2))).rates()["agreement/judged/correct"] == 0
    assert summarised(step((1, 1), (1, 2))).agreement == {"judged/correct": None}


def test_groups_that_teach_nothing_are_counted() -> None:
    step = [judged(1, "a"), judged(1 + 1e-9, "a"), judged(1, "b"), judged(2, "b"), judged(5, "alone")]
    by_policy = Scored("c", 1, Score(3, Outcome.TIMEOUT, ScoreSource.POLICY))
    assert summarised([*step, by_policy, by_policy]).zero_spread == 0.5


def test_ties_and_cycles_come_from_tournaments() -> None:
    report = summarised([judged(1)], [Compared(pairs=6, ties=3, cycles=0), Compared(pairs=4, ties=0, cycles=2)])
    assert (report.tie_rate, report.cycle_rate) == (0.3, 0.5)
    assert summarised([judged(1)]).tie_rate is None


def test_what_a_judge_makes_of_both_orders_comes_from_tournaments() -> None:
    first = Compared(6, 0, 0, both_ways=4, disagreements=3, first_preferred=0.9, first_bias=2.0)
    report = summarised([judged(1)], [first, Compared(2, 0, 0, both_ways=2, first_preferred=0.5), Compared(1, 0, 0)])
    assert (report.disagreement_rate, report.first_preferred, report.first_bias) == (0.5, pytest.approx(0.7), 2.0)
    assert {"disagreement_rate", "first_preferred", "first_bias"} <= set(report.rates())
    assert summarised([judged(1)], [Compared(1, 0, 0)]).disagreement_rate is None, "nothing was asked both ways"


def test_judgements_are_counted_beside_the_scores_that_hide_them() -> None:
    cut = {Outcome.OK: 3, Outcome.TRUNCATED: 1}
    rates = summarised([judged(1)], judgements={"a": cut, "b": {Outcome.TIMEOUT: 4}}).rates()
    assert rates["failed"] == rates["truncated"] == 0
    assert (rates["judgements_failed"], rates["judgements_truncated"]) == (5 / 8, 1 / 8)
    assert (rates["judgements_timed_out"], rates["judgements_parse_failed"]) == (4 / 8, 0)
    assert (rates["judgements_failed/a"], rates["judgements_failed/b"]) == (1 / 4, 1)
    assert "judgements_failed/a" not in summarised([judged(1)], judgements={"a": cut}).rates()
    assert "judgements_failed" not in summarised([judged(1)]).rates()


def test_a_closed_gate_is_no_failure_of_its_term() -> None:
    def term(outcome: Outcome) -> tuple[TermScore, ...]:
        by = ScoreSource.JUDGE if outcome is Outcome.OK else ScoreSource.POLICY
        return (TermScore("judged", 1.0, outcome, by),)

    found = [judged(1, terms=term(o)) for o in (Outcome.OK, Outcome.SKIPPED, Outcome.SKIPPED, Outcome.TIMEOUT)]
    report = summarised(found)
    assert report.terms == {"judged": {Outcome.OK: 1, Outcome.SKIPPED: 2, Outcome.TIMEOUT: 1}}
    assert report.rates()["term_failed/judged"] == 0.5
    assert "term_failed/judged" not in summarised(found[1:3]).rates()


STEADY = StepReport(100, 0, {Outcome.OK: 100}, {}, None, {}, None, None, None)


def test_a_jump_is_warned_of_once_with_its_numbers_and_so_is_the_next_one() -> None:
    jumps = Jumps()
    levels = [0.1] * 8 + [0.6] * 8 + [0.1] * 8
    said = [jumps.look(replace(STEADY, zero_spread=level)) for level in levels]
    assert [number for number, sentences in enumerate(said) if sentences] == [8, 16]
    (sentence,) = said[8]
    assert sentence.startswith("zero_spread is 0.60 in this step of 100 samples, and was 0.10 ± 0.00 in the 8 before")


def test_what_always_moves_is_no_jump_and_neither_is_the_beginning() -> None:
    jumps, luck = Jumps(), random.Random(7)
    assert not any(jumps.look(replace(STEADY, tie_rate=luck.gauss(0.4, 0.1))) for _ in range(60))
    assert not any(Jumps().look(replace(STEADY, tie_rate=rate)) for rate in (0.0, 1.0, 0.0, 1.0, 0.5))
