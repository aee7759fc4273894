"""Elo ratings, all pairs at once (Elo 1978): the score is (rating - 1500) / 400, so 1 means odds of ten to one.

Ratings that are updated game by game depend on the order of the games. Here each pass computes what every pair should
have brought at the ratings so far and adds all differences together. The passes stop at one that moves no rating by
0.01, or after 100: a response that wins everything would climb for ever.

Row sums are taken over sorted terms, so that not even their last digit depends on how responses are numbered.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from genrm_scoring.tournaments.comparisons import WIN, Tally

POINTS: Final = 400.0
"""Points to a factor of ten in the odds."""
K: Final = 32.0
PASSES: Final = 100
SMALLEST_MOVE: Final = 0.01
STABLE: Final = 640.0
"""Most of K times pairs of one response. A pass that moves everybody at once overshoots beyond
8 x 400 / (2 ln 10) = 695."""


def elo(table: Tally) -> tuple[float | None, ...]:
    n = table.players
    judged, won = np.zeros((n, n)), np.zeros((n, n))
    for u, row in enumerate(table.margins):
        for v, margin in row.items():
            judged[u, v], won[u, v] = 1.0, (margin + WIN) / (2 * WIN)
    most = max((len(row) for row in table.margins), default=0)
    k = min(K, STABLE / most) if most else K
    ratings = np.zeros(n)
    for _ in range(PASSES):
        expected = 1 / (1 + 10 ** ((ratings[None, :] - ratings[:, None]) / POINTS))
        moves = k * np.sort(judged * (won - expected), axis=1).sum(axis=1)
        ratings = ratings + moves
        if np.abs(moves).max(initial=0.0) < SMALLEST_MOVE:
            break
    return tuple(float(ratings[u] / POINTS) if row else None for u, row in enumerate(table.margins))
