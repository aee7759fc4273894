"""The orders of up to 20 players that contradict least, all of them: exact, counted, never listed.

Let f(S) be the least weight of backward arcs among the players of S when S comes first. Whoever is last in S, say v,
adds its arcs into the rest: f(S) = min over v of f(S - v) + sum of w(v, u), u in S - v. That is 2^n numbers, each of n
(Lawler, "A comment on minimum feedback arc sets", IEEE Trans. Circuit Theory 1964; the dynamic program is Held and
Karp's). A step S - v -> S is *tight* if it attains f(S). The tight paths from the empty set to the full one are the
best orders, so two more passes count them: F(S) ways to S, B(S) ways on from it. u is before v in as many orders as
pass a tight step R -> R + v with u in R: the sum of F(R) B(R + v).

Everything is an integer: weights in int32, counts in int64, which 20! fits and 21! does not. The subsets are taken
layer by layer (by size), a slice of a layer at a time, so that numpy does the work in a few hundred calls on arrays
that stay in the cache. It keeps one core busy for up to a second: call it off the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 20
"""Players. One more and the counts leave 64 bits."""
SLICE: Final = 4096
"""Subsets at a time: times 20 players and 4 bytes it fits a second-level cache."""
NEVER: Final = 2**31 - 1

Ints = NDArray[np.int32]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OptimalOrders:
    """`cost`: weight of the backward arcs in each of the `count` best orders. `before[u][v]`: how many of these have u
    before v."""

    cost: int
    count: int
    before: tuple[tuple[int, ...], ...]


def optimal_orders(weights: Sequence[Sequence[int]]) -> OptimalOrders:
    """All orders with the least weight of backward arcs; `weights[u][v]` >= 0 is what u before v is worth.

    Raises:
        ValueError: more than 20 players, a negative weight, or weights that add up to 2^31 - 1 or more.
    """
    n = len(weights)
    lattice = _Lattice(_checked(weights))
    cost, last = lattice.least()
    ways_to, ways_on = lattice.ways(last)
    count = int(ways_to[-1])
    before = [[0] * n for _ in range(n)]
    for v in range(n):
        for u, orders in zip((u for u in range(n) if u != v), _through(v, n, last, ways_to, ways_on), strict=True):
            before[u][v] = orders
    return OptimalOrders(cost, count, tuple(map(tuple, before)))


def best_orders(weights: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """The orders that `optimal_orders` counts, one by one, in lexicographic order; there may be very many.

    Raises:
        ValueError: as `optimal_orders`.
    """
    lattice = _Lattice(_checked(weights))
    _, last = lattice.least()
    _, ways_on = lattice.ways(last)

    def onward(subset: int, order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(order) == lattice.n:
            yield order
        for v in range(lattice.n):
            more = subset | 1 << v
            if more != subset and last[more] >> v & 1 and ways_on[more]:
                yield from onward(more, (*order, v))

    return onward(0, ())


def _checked(weights: Sequence[Sequence[int]]) -> Ints:
    n = len(weights)
    if n > LARGEST:
        raise ValueError(f"{n} players; exact orders are counted for at most {LARGEST}")
    w = np.array(weights, dtype=np.int64).reshape(n, n)
    np.fill_diagonal(w, 0)
    if w.min(initial=0) < 0 or w.sum() >= NEVER:
        raise ValueError(
            f"weights from {w.min()} that add up to {w.sum()}; they must be >= 0 and below 2^31 - 1 in all"
        )
    return w.astype(np.int32)


class _Lattice:
    """Subsets of n players as bit masks, and what it costs to put a player behind one."""

    def __init__(self, weights: Ints) -> None:
        self.n = n = len(weights)
        self._bits = np.int32(1) << np.arange(n, dtype=np.int32)[:, None]
        self._half = n // 2
        self._low = _subset_sums(weights[:, : self._half])
        self._high = _subset_sums(weights[:, self._half :])
        size = np.zeros(1, dtype=np.int8)
        for _ in range(n):
            size = np.concatenate([size, size + np.int8(1)])
        self._by_size = np.argsort(size, kind="stable").astype(np.int32)

    def _slices(self, sizes: Iterable[int]) -> Iterator[Ints]:
        starts = np.cumsum([0] + [comb(self.n, k) for k in range(self.n + 1)])
        for k in sizes:
            for at in range(int(starts[k]), int(starts[k + 1]), SLICE):
                yield self._by_size[at : min(at + SLICE, int(starts[k + 1]))]

    def _behind(self, subsets: Ints) -> Ints:
        """(n, m): for each player, the weight of its arcs into each subset; its own bit does not matter."""
        low, high = subsets & np.int32((1 << self._half) - 1), subsets >> np.int32(self._half)
        return np.take(self._low, low, axis=1) + np.take(self._high, high, axis=1)

    def least(self) -> tuple[int, Ints]:
        """f of all players, and for each subset the mask of those who may be last in it."""
        least = np.zeros(1 << self.n, dtype=np.int32)
        last = np.zeros(1 << self.n, dtype=np.int32)
        for subsets in self._slices(range(1, self.n + 1)):
            rest = subsets & ~self._bits
            costs = np.where(rest == subsets, np.int32(NEVER), least[rest] + self._behind(subsets))
            found = costs.min(axis=0)
            least[subsets] = found
            last[subsets] = np.where(costs == found, self._bits, np.int32(0)).sum(axis=0, dtype=np.int32)
        return int(least[-1]), last

    def ways(self, last: Ints) -> tuple[Counts, Counts]:
        """The tight ways to each subset and on from it, where one leads on to all players; both 0 elsewhere."""
        to, on = np.zeros(1 << self.n, dtype=np.int64), np.zeros(1 << self.n, dtype=np.int64)
        to[0] = on[-1] = 1
        for subsets in self._slices(range(self.n, 0, -1)):
            subsets = subsets[on[subsets] > 0]
            tight = last[subsets] & self._bits != 0
            rest = (subsets & ~self._bits)[tight]
            np.add.at(on, rest, np.broadcast_to(on[subsets], tight.shape)[tight])
        for subsets in self._slices(range(1, self.n + 1)):
            subsets = subsets[on[subsets] > 0]
            tight = last[subsets] & self._bits != 0
            to[subsets] = np.where(tight, to[subsets & ~self._bits], 0).sum(axis=0)
        return to, on


def _subset_sums(weights: Ints) -> Ints:
    """(n, 2^k) from (n, k): each row's sum over each subset of the columns."""
    sums = np.zeros((len(weights), 1), dtype=np.int32)
    for column in weights.T:
        sums = np.concatenate([sums, sums + column[:, None]], axis=1)
    return sums


def _through(v: int, n: int, last: Ints, ways_to: Counts, ways_on: Counts) -> list[int]:
    """For every other player, in their order: the best orders that have it before v."""
    apart = -1, 2, 1 << v
    tight = last.reshape(apart)[:, 1, :] & np.int32(1 << v) != 0
    orders = np.where(tight, ways_to.reshape(apart)[:, 0, :] * ways_on.reshape(apart)[:, 1, :], 0).ravel()
    found = []
    for _ in range(n - 1):  # the subsets that have the highest player left are the upper half
        without, having = orders[: len(orders) // 2], orders[len(orders) // 2 :]
        found.append(int(having.sum()))
        orders = without + having
    return found[::-1]
