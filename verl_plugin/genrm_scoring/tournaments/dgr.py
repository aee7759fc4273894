"""DGR: net margins after the fewest conflicts are taken out, in [-1, 1].

Verdicts with circles (a > b > c > a) fit no order. Take the orders that contradict least: the sum of the margins of
arcs (winner to loser) that point backward is the smallest possible, a minimum feedback arc set. An arc that points
backward is a conflict and does not count. There is often more than one such order, and to pick one would reward a
response for its number: so each arc counts for the share of best orders that keep it. The score is what a response's
arcs bring it less what they cost it, over its judged pairs.

After "TFAS" in RM-Gallery 0.1.7 (evaluators/pairwise.py), which takes the first best order it meets, and points the
arc of a tie by coin.
"""

from __future__ import annotations

from fractions import Fraction

from genrm_scoring.tournaments.best_orders import kept_shares
from genrm_scoring.tournaments.comparisons import WIN, Tally
from genrm_scoring.tournaments.standings import Conflicts


def dgr(table: Tally) -> tuple[tuple[float | None, ...], Conflicts]:
    arcs = [[max(row.get(v, 0), 0) for v in range(table.players)] for row in table.margins]
    kept = kept_shares(arcs)
    net = [Fraction(0)] * table.players
    removed = weight = Fraction(0)
    for (u, v), share in kept.shares.items():
        net[u] += arcs[u][v] * share
        net[v] -= arcs[u][v] * share
        removed += 1 - share
        weight += arcs[u][v] * (1 - share)
    scores = tuple(float(net[u] / (WIN * len(row))) if row else None for u, row in enumerate(table.margins))
    return scores, Conflicts(float(removed), float(weight / WIN), kept.exact)
