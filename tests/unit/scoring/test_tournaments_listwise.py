"""Rankings of whole groups, anchors, and groups of one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from genrm_api.comparing import Aggregate, Anchor, Order
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.tournaments import Comparison, aggregate
from genrm_scoring.tournaments.anchor import anchor_text, without_anchor
from genrm_scoring.tournaments.listwise import compared, presentations
from genrm_scoring.types import Sample
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scoring.tournaments import hard

TEXTS = st.lists(st.binary(max_size=3), min_size=2, max_size=8, unique=True)


@given(TEXTS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_texts_are_shown_by_their_content_whatever_their_numbers(
    texts: list[bytes], votes: int, chance: object
) -> None:
    number = sorted(range(len(texts)), key=lambda _: chance.random())  # type: ignore[attr-defined]
    shuffled = [texts[u] for u in number]
    here = [[texts[u] for u in shown] for shown in presentations(texts, votes)]
    assert here == [[shuffled[u] for u in shown] for shown in presentations(shuffled, votes)]
    assert len(here) == votes and all(sorted(shown) == sorted(texts) for shown in here)


@given(TEXTS, st.integers(1, 6))
def test_over_two_votes_nobody_stands_nearer_to_the_top(texts: list[bytes], pairs: int) -> None:
    places = Counter[int]()
    for shown in presentations(texts, 2 * pairs):
        places.update({u: at for at, u in enumerate(shown)})
    assert set(places.values()) == {pairs * (len(texts) - 1)}


def test_as_sampled_the_lowest_number_comes_first() -> None:
    assert presentations([b"b", b"a", b"b", b"c"], 3, Order.GIVEN) == [(0, 1, 3), (3, 1, 0), (1, 3, 0)]


def test_with_as_many_pairs_of_votes_as_texts_everyone_is_first_and_last_twice() -> None:
    shown = presentations([b"a", b"b", b"c"], 6)
    assert Counter(order[0] for order in shown) == Counter(order[-1] for order in shown) == {0: 2, 1: 2, 2: 2}


def test_a_ranking_is_worth_its_place() -> None:
    texts = [b"a", b"b", b"c", b"d"]
    shown = (2, 0, 3, 1)
    scores = aggregate(Aggregate.WINRATE, 4, compared(texts, shown, [1, 3, 2, 0])).scores  # best: 0, then 1, 3, 2
    assert scores == pytest.approx((1, 2 / 3, 0, 1 / 3))


def test_rankings_that_contradict_each_other_are_averaged() -> None:
    texts = [b"a", b"b"]
    said = [*compared(texts, (0, 1), [0, 1]), *compared(texts, (1, 0), [0, 1])]
    standings = aggregate(Aggregate.WINRATE, 2, said)
    assert standings.scores == (0.5, 0.5) and standings.tally.disagreements == 1


def test_equal_texts_are_shown_once_and_share_their_score() -> None:
    texts = [b"a", b"b", b"a"]
    (shown,) = presentations(texts, 1)
    assert sorted(shown) == [0, 1]
    best_is_b = [shown.index(1), shown.index(0)]
    assert aggregate(Aggregate.WINRATE, 3, compared(texts, shown, best_is_b)).scores == (0.25, 1, 0.25)
    assert presentations([b"a", b"a"], 3) == []


@pytest.mark.parametrize("ranking", [[0, 1], [0, 1, 1], [1, 2, 3], []])
def test_a_ranking_of_something_else_is_refused(ranking: list[int]) -> None:
    with pytest.raises(ValueError, match="it must hold 0 to 2 once"):
        compared([b"a", b"b", b"c"], (0, 1, 2), ranking)


def test_the_anchor_is_a_yardstick_and_no_score() -> None:
    """Of three responses one beats the anchor, one ties with it in the end, one loses to it."""
    games = hard("0>3", "1=3", "3>2", "0>1", "0>2", "1>2")
    found = without_anchor(aggregate(Aggregate.WINRATE, 4, games))
    assert found.scores == pytest.approx((1, 0.5, 0)) and found.anchor_score == 0.5
    assert found.beats_anchor == 0.5 and found.policy_mean == 0.5
    found = without_anchor(aggregate(Aggregate.DGR, 4, hard("0>1", "1>3", "3>0", "0>2", "1>2", "3>2")))
    assert found.conflicts is not None and found.conflicts.removed == 1


def test_without_verdicts_the_anchor_says_nothing() -> None:
    found = without_anchor(aggregate(Aggregate.WINRATE, 3, []))
    assert (found.anchor_score, found.beats_anchor, found.policy_mean) == (None, None, None)
    found = without_anchor(aggregate(Aggregate.WINRATE, 3, [Comparison(0, 1, 1)]))
    assert (found.anchor_score, found.beats_anchor, found.policy_mean) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("anchor", "truth", "extra", "text"),
    [
        (Anchor.REFERENCE, "4", {}, "4"),
        (Anchor.REFERENCE, [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}], {}, "4"),
        (Anchor.CHOSEN, None, {"chosen": "four"}, "four"),
        (Anchor.CHOSEN, {"chosen": "4", "rejected": "5"}, {}, "4"),
        (Anchor.CHOSEN, {"chosen": [{"role": "assistant", "content": "4"}], "rejected": []}, {}, "4"),
        (Anchor.CHOSEN, {"chosen": "4"}, {"chosen": "four"}, "four"),
        (Anchor.BASELINE, "4", {"baseline": "five"}, "five"),
    ],
)
def test_the_anchor_is_a_text_of_the_data_set(anchor: Anchor, truth: Any, extra: dict[str, Any], text: str) -> None:
    assert anchor_text(anchor, Sample("2 + 2?", "r", ground_truth=truth, extra=extra)) == text


@pytest.mark.parametrize(
    ("anchor", "extra", "says"),
    [
        (Anchor.REFERENCE, {"reference": "x"}, "reference is wanted, and the data set has nothing as reward_model"),
        (Anchor.CHOSEN, {"chosen": ""}, "an empty text as extra_info.chosen"),
        (Anchor.BASELINE, {"baseline": ["x"]}, "a list of 1 as extra_info.baseline"),
    ],
)
def test_a_data_set_without_it_is_told_so(anchor: Anchor, extra: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        anchor_text(anchor, Sample("2 + 2?", "r", extra=extra))


def test_a_reference_that_is_an_object_is_told_by_its_keys() -> None:
    with pytest.raises(ConfigurationError, match=r"an object with chosen, rejected as reward_model\.ground_truth"):
        anchor_text(Anchor.REFERENCE, Sample("2 + 2?", "r", ground_truth={"chosen": "4", "rejected": "5"}))
