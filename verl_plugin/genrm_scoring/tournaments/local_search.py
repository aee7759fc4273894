"""A good order of many players, without a trace of their numbers: for circles of more than 20.

Players are first told apart by what their arcs look like: by their net weight, then by the weights between them and
each kind of player, until no kind splits further (colour refinement). Players that stay alike share a *cell* and a
place; between them half an order goes either way. Cells start by net weight, best first. One cell at a time is taken
out and put where it saves most, until nothing saves; then, with at most 64 cells, the order is cut at every place, the
two halves swapped, and sorted on from there, as long as one of these ends better. Every choice, and every choice among
equals, is by weights and places, so relabelling the players relabels the result.

Insertion is the usual local search for linear orders (Marti and Reinelt, "The Linear Ordering Problem", 2011). How far
it stays behind the optimum: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

CUT_UP_TO: Final = 64
"""Cells. The search from every cut takes the fourth power of their number: seconds at 64, a minute at 128."""


def good_order(weights: Sequence[Sequence[int]]) -> list[list[int]]:
    """Cells of players, first to last; `weights[u][v]` >= 0 is what u before v is worth."""
    cells = _cells(weights)
    w = np.array(weights, dtype=np.int64)
    worth = np.array([[w[np.ix_(a, b)].sum() for b in cells] for a in cells])
    gain = worth - worth.T
    best, saved = _by_insertion(gain, np.arange(len(cells)))
    while len(best) <= CUT_UP_TO:
        starts = (np.roll(best, -cut) for cut in range(1, len(best)))
        order, more = max((_by_insertion(gain, start) for start in starts), key=itemgetter(1), default=(best, saved))
        if more <= saved:
            break
        best, saved = order, more
    return [cells[place] for place in best]


def _cells(weights: Sequence[Sequence[int]]) -> list[list[int]]:
    players = range(len(weights))
    keys: list[tuple[object, ...]] = [(sum(row[u] for row in weights) - sum(weights[u]),) for u in players]
    kinds = 0
    while True:
        ranked = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        ranks = [ranked[key] for key in keys]
        if len(ranked) == kinds:
            return [[u for u in players if ranks[u] == rank] for rank in range(kinds)]
        kinds = len(ranked)
        keys = [
            (ranks[u], *sorted((ranks[v], weights[u][v], weights[v][u]) for v in players if v != u)) for u in players
        ]


def _by_insertion(gain: NDArray[np.int64], order: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """An order that no single move betters, from `order` on, and what its forward pairs gain together.

    `gain[a, b]` is what is won if a stands before b instead of behind it.
    """
    while True:
        # saved[a, b]: place a's cell moves to place b, past all between; sums away from the diagonal
        behind = -np.cumsum(np.triu(gain[np.ix_(order, order)], 1), axis=1)
        ahead = np.cumsum(np.tril(gain[np.ix_(order, order)], -1)[:, ::-1], axis=1)[:, ::-1]
        saved = np.triu(behind, 1) + np.tril(ahead, -1)
        at, to = divmod(int(saved.argmax()), len(gain))
        if saved[at, to] <= 0:
            return order, int(np.triu(gain[np.ix_(order, order)]).sum())
        order = np.insert(np.delete(order, at), to, order[at])
