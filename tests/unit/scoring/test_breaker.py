"""The breaker: when it stops a run, when it does not, and what it says."""

from __future__ import annotations

import pytest
from genrm_scoring.breaker import Breaker
from genrm_scoring.errors import BreakerTripped, RunStopped
from genrm_scoring.types import Outcome, Score, ScoreSource, TermScore
from hypothesis import given
from hypothesis import strategies as st

GOOD = Score(1.0, Outcome.OK, ScoreSource.JUDGE)


def bad(outcome: Outcome = Outcome.TIMEOUT, detail: str = "120 s are over") -> Score:
    return Score(None, outcome, ScoreSource.DROPPED, detail=detail)


def feed(breaker: Breaker, *scores: Score) -> int | None:
    """How many scores it let pass before it tripped; `None` if it did not."""
    for number, score in enumerate(scores):
        try:
            breaker.saw(f"prompt a, response {number}", score)
        except BreakerTripped:
            return number
    return None


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 20), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_it_trips_exactly_when_too_large_a_share_of_enough_scores_failed(
    fails: list[bool], at_least: int, most: float
) -> None:
    expected = next((n for n in range(len(fails)) if n + 1 >= at_least and sum(fails[: n + 1]) > most * (n + 1)), None)
    assert feed(Breaker(most, at_least), *(bad() if fail else GOOD for fail in fails)) == expected


def test_the_score_that_makes_them_enough_need_not_have_failed_itself() -> None:
    assert feed(Breaker(0.5, 4), bad(), bad(), bad(), GOOD) == 3


def test_a_new_step_counts_anew() -> None:
    breaker = Breaker(0.5, 4)
    assert feed(breaker, GOOD, bad(), bad()) is None
    breaker.begin_step()
    assert feed(breaker, bad(), bad(), bad()) is None
    assert feed(breaker, bad()) == 0


def test_a_policys_number_hides_no_failure() -> None:
    by_policy = Score(0.0, Outcome.TIMEOUT, ScoreSource.POLICY)
    assert feed(Breaker(0.5, 2), by_policy, by_policy) == 1


def test_what_a_gate_skipped_and_what_a_sibling_dropped_has_not_failed() -> None:
    gated = TermScore("judged", None, Outcome.SKIPPED, ScoreSource.DROPPED)
    skipped = Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, (gated,))
    dropped = Score(None, Outcome.OK, ScoreSource.GROUP_DROPPED)
    assert feed(Breaker(0.1, 1), skipped, dropped, skipped, dropped) is None


def test_who_was_not_asked_because_something_is_missing_has_failed() -> None:
    assert feed(Breaker(0.5, 2), bad(Outcome.SKIPPED), bad(Outcome.SKIPPED)) == 1


def test_the_message_has_the_numbers_and_three_examples_of_as_many_kinds() -> None:
    breaker = Breaker(0.5, 6)
    with pytest.raises(RunStopped) as tripped:
        for number, score in enumerate(
            [bad(), bad(), bad(), bad(Outcome.TRUNCATED, "8192 tokens"), bad(Outcome.REFUSED, "x" * 999), bad()]
        ):
            breaker.saw(f"prompt a, response {number}", score)
    first, *examples = str(tripped.value).splitlines()
    assert "6 of the first 6 scores of this step failed (100%), more than breaker.maxFailedFraction 0.5" in first
    assert len(examples) == 3
    assert examples[0] == "  prompt a, response 0: timeout: 120 s are over"
    assert any("truncated: 8192 tokens" in example for example in examples)
    assert any("refused: xxx" in example and len(example) < 310 for example in examples)
