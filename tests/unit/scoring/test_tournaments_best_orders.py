"""The least contradicted orders: against trying all, and what happens where there are too many players for that."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest
from genrm_scoring.tournaments.best_orders import kept_shares
from genrm_scoring.tournaments.local_search import good_order
from genrm_scoring.tournaments.subset_dp import best_orders, optimal_orders
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scoring.tournaments import best_orders_by_trying_all, shares_by_trying_all

Arcs = list[list[int]]


@st.composite
def tournaments(draw: st.DrawFn, least: int = 1, most: int = 6) -> Arcs:
    """Between two players an arc one way, none, or (what verdicts never make) both."""
    players = draw(st.integers(least, most))
    weight = st.sampled_from([0, 0, 1, 1, 2, 5])
    return [[0 if u == v else draw(weight) for v in range(players)] for u in range(players)]


def random_tournament(players: int, chance: random.Random, clear: float = 0.5) -> Arcs:
    """Player u beats a later one with probability `clear`."""
    arcs = [[0] * players for _ in range(players)]
    for u, v in itertools.combinations(range(players), 2):
        winner, loser = (u, v) if chance.random() < clear else (v, u)
        arcs[winner][loser] = 1
    return arcs


def backward(arcs: Arcs, order: list[int]) -> int:
    return sum(arcs[v][u] for u, v in itertools.combinations(order, 2))


@given(tournaments())
def test_the_best_orders_are_found_and_counted(arcs: Arcs) -> None:
    cost, orders = best_orders_by_trying_all(arcs)
    found = optimal_orders(arcs)
    assert (found.cost, found.count) == (cost, len(orders))
    for u, v in itertools.permutations(range(len(arcs)), 2):
        assert found.before[u][v] == sum(order.index(u) < order.index(v) for order in orders)
    assert list(best_orders(arcs)) == orders


@settings(max_examples=10)
@given(tournaments(least=7, most=7))
def test_the_best_orders_of_seven(arcs: Arcs) -> None:
    cost, orders = best_orders_by_trying_all(arcs)
    found = optimal_orders(arcs)
    assert (found.cost, found.count) == (cost, len(orders))


@given(tournaments())
def test_an_arc_is_kept_in_the_share_of_best_orders_that_keep_it(arcs: Arcs) -> None:
    one_way = [[max(arcs[u][v] - arcs[v][u], 0) for v in range(len(arcs))] for u in range(len(arcs))]
    kept = kept_shares(one_way)
    assert kept.exact
    assert kept.shares == shares_by_trying_all(one_way)


def test_counts_are_exact_up_to_twenty_factorial() -> None:
    """A circle of three among twenty who know nothing of each other: 3 of 3! orders are good."""
    arcs = [[0] * 20 for _ in range(20)]
    arcs[0][1] = arcs[1][2] = arcs[2][0] = 1
    found = optimal_orders(arcs)
    assert (found.cost, found.count) == (1, math.factorial(20) // 2)
    assert Fraction(found.before[0][1], found.count) == Fraction(2, 3)
    assert Fraction(found.before[0][19], found.count) == Fraction(1, 2)


def test_blocks_make_more_than_twenty_exact() -> None:
    """Ten circles of three, each better than the next: the share of each circle's arcs is two thirds."""
    players = 30
    arcs = [[1 if u // 3 < v // 3 else 0 for v in range(players)] for u in range(players)]
    for base in range(0, players, 3):
        arcs[base][base + 1] = arcs[base + 1][base + 2] = arcs[base + 2][base] = 1
    kept = kept_shares(arcs)
    assert kept.exact and kept.shares[0, 3] == 1
    assert {kept.shares[b, b + 1] for b in range(0, players, 3)} == {Fraction(2, 3)}


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([[0] * 21 for _ in range(21)], "21 players"),
        ([[0, -1], [0, 0]], "weights from -1"),
        ([[0, 2**31], [0, 0]], "below 2\\^31 - 1"),
    ],
)
def test_what_cannot_be_counted_is_refused(weights: Arcs, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        optimal_orders(weights)


@given(st.integers(2, 24), st.floats(0.5, 0.9), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_relabelling_relabels_a_good_order(players: int, clear: float, chance: random.Random) -> None:
    arcs = random_tournament(players, chance, clear)
    label = list(range(players))
    chance.shuffle(label)
    relabelled = [[0] * players for _ in range(players)]
    for u, v in itertools.product(range(players), repeat=2):
        relabelled[label[u]][label[v]] = arcs[u][v]
    assert [sorted(label[u] for u in cell) for cell in good_order(arcs)] == [sorted(c) for c in good_order(relabelled)]


def test_a_good_order_is_nearly_a_best_one() -> None:
    chance = random.Random(1)
    optimum = found = 0
    for _ in range(20):
        arcs = random_tournament(12, chance)
        optimum += optimal_orders(arcs).cost
        found += backward(arcs, [u for cell in good_order(arcs) for u in cell])
    assert optimum <= found <= 1.02 * optimum


def test_players_that_nothing_tells_apart_share_a_place() -> None:
    """Around a circle everybody looks the same."""
    circle = [[1 if (v - u) % 25 in range(1, 13) else 0 for v in range(25)] for u in range(25)]
    assert [sorted(cell) for cell in good_order(circle)] == [list(range(25))]
    kept = kept_shares(circle)
    assert not kept.exact and set(kept.shares.values()) == {Fraction(1, 2)}
