"""Random verdicts for the tests of tournaments, and the rules said once more in the plainest way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

from genrm_scoring.tournaments import Comparison
from hypothesis import strategies as st

HARD = st.sampled_from([0.0, 1.0, 0.5])
SOFT = st.floats(0, 1)


@st.composite
def verdicts(
    draw: st.DrawFn, least: int = 1, most: int = 7, preference: st.SearchStrategy[float] = HARD | SOFT
) -> tuple[int, list[Comparison]]:
    """A group and what was said of it: pairs asked never, once, both ways, several times."""
    players = draw(st.integers(least, most))
    pairs = list(itertools.permutations(range(players), 2))
    asked = draw(st.lists(st.sampled_from(pairs), max_size=players * players)) if pairs else []
    return players, [Comparison(u, v, draw(preference)) for u, v in asked]


@st.composite
def round_robins(draw: st.DrawFn, most: int = 7) -> tuple[int, list[Comparison]]:
    """A group of which every pair was asked once."""
    players = draw(st.integers(1, most))
    pairs = itertools.combinations(range(players), 2)
    return players, [Comparison(*draw(st.permutations(pair)), draw(HARD)) for pair in pairs]


def hard(*games: str) -> list[Comparison]:
    """`hard("0>1", "1=2")`: 0 came first and won, 1 came first and tied with 2."""
    found = []
    for game in games:
        first, result, second = game
        found.append(Comparison(int(first), int(second), {">": 1.0, "<": 0.0, "=": 0.5}[result]))
    return found


def best_orders_by_trying_all(arcs: Sequence[Sequence[int]]) -> tuple[int, list[tuple[int, ...]]]:
    players = range(len(arcs))

    def cost(order: Sequence[int]) -> int:
        return sum(arcs[v][u] for u, v in itertools.combinations(order, 2))

    orders = list(itertools.permutations(players))
    least = min(map(cost, orders))
    return least, [order for order in orders if cost(order) == least]


def shares_by_trying_all(arcs: Sequence[Sequence[int]]) -> dict[tuple[int, int], Fraction]:
    """For each arc, in what share of the best orders it points forward."""
    _, orders = best_orders_by_trying_all(arcs)
    pairs = [(u, v) for u, v in itertools.permutations(range(len(arcs)), 2) if arcs[u][v] > 0]
    return {(u, v): Fraction(sum(o.index(u) < o.index(v) for o in orders), len(orders)) for u, v in pairs}
