"""What verdicts on pairs become: tables by hand, and that no response's number means anything."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from genrm_api.comparing import Aggregate
from genrm_scoring.tournaments import Comparison, aggregate, tally
from genrm_scoring.tournaments.bradley_terry import BIAS_SD, STRENGTH_SD, posterior
from genrm_scoring.tournaments.comparisons import WIN
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scoring.tournaments import hard, shares_by_trying_all, verdicts

EXACT = [Aggregate.WINRATE, Aggregate.COPELAND, Aggregate.DGR]
A_LINE = hard("0>1", "0>2", "1>2")
A_CIRCLE = hard("0>1", "1>2", "2>0")


@pytest.mark.parametrize(
    ("rule", "games", "scores"),
    [
        (Aggregate.WINRATE, A_LINE, [1, 0.5, 0]),
        (Aggregate.WINRATE, hard("0>1", "0=2", "1=2"), [0.75, 0.25, 0.5]),
        (Aggregate.WINRATE, [Comparison(0, 1, 0.9), Comparison(2, 0, 0.2)], [0.85, 0.1, 0.2]),
        (Aggregate.COPELAND, A_LINE, [1, 0, -1]),
        (Aggregate.COPELAND, hard("0>1", "0=2", "1=2"), [0.5, -0.5, 0]),
        (Aggregate.COPELAND, [Comparison(0, 1, 0.51), Comparison(0, 2, 0.99)], [1, -1, -1]),
        (Aggregate.DGR, A_LINE, [1, 0, -1]),
        (Aggregate.DGR, A_CIRCLE, [0, 0, 0]),
        # 3 loses to all and is in no circle: each of the three keeps two thirds of its arc in the circle
        (Aggregate.DGR, [*A_CIRCLE, *hard("0>3", "1>3", "2>3")], [1 / 3, 1 / 3, 1 / 3, -1]),
        # the weakest arc of the circle goes: 2 over 0
        (Aggregate.DGR, [Comparison(0, 1, 1), Comparison(1, 2, 1), Comparison(2, 0, 0.75)], [0.5, 0, -0.5]),
    ],
)
def test_the_rules_by_hand(rule: Aggregate, games: list[Comparison], scores: list[float]) -> None:
    assert aggregate(rule, len(scores), games).scores == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("rule", list(Aggregate))
def test_who_has_no_verdict_has_no_score(rule: Aggregate) -> None:
    scores = aggregate(rule, 3, hard("2>0")).scores
    assert scores[1] is None and scores[0] is not None and scores[2] is not None and scores[2] > scores[0]
    assert aggregate(rule, 2, []).scores == (None, None)


@pytest.mark.parametrize("rule", list(Aggregate))
def test_a_group_that_ties_throughout_has_equal_scores(rule: Aggregate) -> None:
    scores = aggregate(rule, 4, hard("0=1", "0=2", "3=0", "1=2", "1=3", "2=3")).scores
    assert scores == pytest.approx([0.5 if rule is Aggregate.WINRATE else 0.0] * 4, abs=1e-12)


@given(verdicts(), st.randoms(use_true_random=False))
def test_renumbering_the_responses_renumbers_their_scores(
    group: tuple[int, list[Comparison]], chance: random.Random
) -> None:
    players, comparisons = group
    number = list(range(players))
    chance.shuffle(number)
    renumbered = [Comparison(number[c.first], number[c.second], c.preference) for c in comparisons]
    chance.shuffle(renumbered)
    for rule in Aggregate:
        here, there = aggregate(rule, players, comparisons).scores, aggregate(rule, players, renumbered).scores
        moved = [there[number[u]] for u in range(players)]
        if rule in EXACT:
            assert moved == list(here)
        else:
            assert [s is None for s in moved] == [s is None for s in here]
            assert [s for s in moved if s is not None] == pytest.approx([s for s in here if s is not None], abs=1e-9)


@given(verdicts(most=6))
def test_dgr_is_the_mean_over_all_best_orders(group: tuple[int, list[Comparison]]) -> None:
    players, comparisons = group
    margins = tally(players, comparisons).margins
    arcs = [[max(margins[u].get(v, 0), 0) for v in range(players)] for u in range(players)]
    net = [Fraction(0)] * players
    for (u, v), share in shares_by_trying_all(arcs).items():
        net[u] += share * arcs[u][v]
        net[v] -= share * arcs[u][v]
    expected = [None if not margins[u] else float(net[u] / (WIN * len(margins[u]))) for u in range(players)]
    assert list(aggregate(Aggregate.DGR, players, comparisons).scores) == expected


def test_dgr_says_how_much_it_took_out() -> None:
    conflicts = aggregate(Aggregate.DGR, 3, A_CIRCLE).conflicts
    assert conflicts is not None and (conflicts.removed, conflicts.weight, conflicts.exact) == (1, 1, True)
    conflicts = aggregate(Aggregate.DGR, 3, A_LINE).conflicts
    assert conflicts is not None and (conflicts.removed, conflicts.weight, conflicts.exact) == (0, 0, True)


def test_two_verdicts_that_contradict_each_other_are_a_tie() -> None:
    both = hard("0>1", "1>0", "0>2", "2<0")
    table = tally(3, both)
    assert table.margins[0] == {1: 0, 2: WIN}
    assert (table.pairs, table.ties, table.both_ways, table.disagreements) == (2, 1, 2, 1)
    assert aggregate(Aggregate.WINRATE, 3, both).scores == (0.75, 0.5, 0)


def test_a_lost_vote_does_not_tilt_a_pair() -> None:
    """Three of four votes for whoever comes first, and one lost: the two ways round still cancel."""
    votes = [Comparison(0, 1, p) for p in (1, 1, 0.5, 0.5)] + [Comparison(1, 0, p) for p in (1, 1, 0.25)]
    assert tally(2, votes).margins[0] == {1: 0}


def test_what_was_not_asked_says_nothing_of_the_judge() -> None:
    same = Comparison(0, 1, 0.5, asked=False)
    table = tally(3, [same, *hard("0>2", "1>2")])
    assert (table.identical, table.ties, table.first_preferred) == (1, 0, 1.0)
    without = aggregate(Aggregate.BT, 3, hard("0>2", "1>2"))
    assert aggregate(Aggregate.BT, 3, [same, *hard("0>2", "1>2")]).first_bias == pytest.approx(without.first_bias)


@given(verdicts(preference=st.sampled_from([0.0, 1.0])))
def test_circles_of_three_are_counted(group: tuple[int, list[Comparison]]) -> None:
    players, comparisons = group
    table = tally(players, comparisons)
    beats = [[table.margins[u].get(v, 0) > 0 for v in range(players)] for u in range(players)]
    triples = [
        (u, v, w) for u in range(players) for v in range(players) for w in range(players)
        if beats[u][v] and beats[v][w] and beats[w][u]
    ]  # fmt: skip
    assert table.circular_triads == len(triples) // 3


def test_bradley_terry_is_where_the_slope_of_the_posterior_is_zero() -> None:
    comparisons = [*hard("0>1", "1>2", "2>0", "0=3"), Comparison(3, 1, 0.8)]
    found = posterior(4, comparisons)
    slope = [-s / STRENGTH_SD**2 for s in found.strengths]
    of_bias = -found.bias / BIAS_SD**2
    for c in comparisons:
        logit = found.strengths[c.first] - found.strengths[c.second] + found.bias
        missing = c.preference - 1 / (1 + math.exp(-logit))
        slope[c.first] += missing
        slope[c.second] -= missing
        of_bias += missing
    assert [*slope, of_bias] == pytest.approx([0] * 5, abs=1e-10)
    assert sum(found.strengths) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("players", [2, 4, 16, 64])
def test_who_wins_everything_has_a_finite_strength(players: int) -> None:
    sweep = [Comparison(u, v, 1) for u in range(players) for v in range(u + 1, players)]
    for rule in (Aggregate.BT, Aggregate.ELO):
        scores = [s for s in aggregate(rule, players, sweep).scores if s is not None]
        assert scores == sorted(scores, reverse=True) and all(map(math.isfinite, scores)) and len(set(scores)) > 1


def test_bradley_terry_takes_a_love_for_the_first_place_out() -> None:
    """Four equal responses, each first in half of its pairs, and the first one always wins."""
    games = hard("0>1", "1>2", "2>3", "3>0", "0>2", "2>0", "1>3", "3>1")
    standings = aggregate(Aggregate.BT, 4, games)
    assert standings.scores == pytest.approx([0] * 4, abs=1e-9)
    assert standings.first_bias is not None and standings.first_bias > 1
    assert standings.tally.first_preferred == 1


@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_elo_settles_or_stays_finite(players: int, chance: random.Random) -> None:
    games = [Comparison(u, v, chance.choice([0, 0.5, 1])) for u in range(players) for v in range(u)]
    scores = [s for s in aggregate(Aggregate.ELO, players, games).scores if s is not None]
    assert len(scores) == players and sum(scores) == pytest.approx(0, abs=1e-6)
    assert all(abs(score) < 20 for score in scores)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Comparison(1, 1, 0.5), "with itself"),
        (lambda: Comparison(0, 1, 1.5), "preference 1.5"),
        (lambda: Comparison(0, 1, float("nan")), "preference nan"),
        (lambda: tally(2, [Comparison(0, 2, 1)]), "responses 0 to 1"),
    ],
)
def test_what_is_no_verdict_is_refused(build: object, says: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=says):
        build()
