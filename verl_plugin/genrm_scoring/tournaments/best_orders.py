"""Which arcs of a tournament survive in the orders that contradict it least, and in what share of them.

Only circles force anything out. Players in circles with each other form *knots* (strongly connected components); an arc
from one knot to another points forward in every best order. Players between whom no such arcs decide, directly or one
after another, form *blocks*: the best orders are those of the blocks, one block after the other, so each is solved
alone, and one without a circle loses no arc.

A block of at most 20 players is exact: the share is over all its best orders (`subset_dp`). In a larger one each knot
of at most 20 is; a larger knot gets one good order instead (`local_search`), and the result says that it is not exact.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from genrm_scoring.tournaments.local_search import good_order
from genrm_scoring.tournaments.subset_dp import LARGEST, optimal_orders

Arcs = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Kept:
    """`shares[u, v]`: in what share of the best orders the arc u -> v points forward; one entry an arc of weight > 0.

    `exact`: the weight taken out is the least possible.
    """

    shares: dict[tuple[int, int], Fraction]
    exact: bool


def kept_shares(arcs: Arcs) -> Kept:
    """`arcs[u][v]` >= 0 is the weight of u over v, an integer."""
    n = len(arcs)
    shares = {(u, v): Fraction(1) for u in range(n) for v in range(n) if u != v and arcs[u][v] > 0}
    knots = _knots(_closure([sum(1 << v for v in range(n) if (u, v) in shares) for u in range(n)]))
    exact = True
    for block in _blocks(knots, shares):
        circles = [knot for knot in knots if len(knot) > 1 and knot[0] in block]
        for part in [block] if circles and len(block) <= LARGEST else circles:
            exact = exact and len(part) <= LARGEST
            inside = [[arcs[u][v] for v in part] for u in part]
            found = _counted(inside) if len(part) <= LARGEST else _searched(inside)
            shares |= {(part[a], part[b]): share for (a, b), share in found.items()}
    return Kept(shares, exact)


def _counted(arcs: Arcs) -> dict[tuple[int, int], Fraction]:
    best = optimal_orders(arcs)
    return {(u, v): Fraction(best.before[u][v], best.count) for u, v in _pairs(arcs)}


def _searched(arcs: Arcs) -> dict[tuple[int, int], Fraction]:
    place = {player: at for at, cell in enumerate(good_order(arcs)) for player in cell}
    shares = {1: Fraction(1), 0: Fraction(1, 2), -1: Fraction(0)}
    return {(u, v): shares[(place[u] < place[v]) - (place[u] > place[v])] for u, v in _pairs(arcs)}


def _pairs(arcs: Arcs) -> list[tuple[int, int]]:
    return [(u, v) for u in range(len(arcs)) for v in range(len(arcs)) if u != v and arcs[u][v] > 0]


def _closure(arcs: Sequence[int]) -> list[int]:
    """For each player, the mask of those that a way of arcs leads to (Warshall); `arcs` are masks too."""
    reach = list(arcs)
    for via in range(len(reach)):
        reach = [mask | reach[via] if mask >> via & 1 else mask for mask in reach]
    return reach


def _knots(reach: Sequence[int]) -> list[list[int]]:
    """Players that lead to each other."""
    left, knots = list(range(len(reach))), []
    while left:
        u = left[0]
        knots.append([v for v in left if v == u or (reach[u] >> v & 1 and reach[v] >> u & 1)])
        left = [v for v in left if v not in knots[-1]]
    return knots


def _blocks(knots: Sequence[Sequence[int]], arcs: Collection[tuple[int, int]]) -> list[list[int]]:
    """Players that are linked by pairs of which the arcs between knots put neither first."""
    knot = {player: at for at, players in enumerate(knots) for player in players}
    ahead = [0] * len(knot)
    for u, v in arcs:
        if knot[u] != knot[v]:
            ahead[u] |= 1 << v
    ahead = _closure(ahead)
    left, blocks = set(knot), []
    while left:
        block, fringe = set(), {min(left)}
        while fringe:
            block |= fringe
            fringe = {v for v in left - block if any(not (ahead[u] >> v | ahead[v] >> u) & 1 for u in fringe)}
        blocks.append(sorted(block))
        left -= block
    return blocks
