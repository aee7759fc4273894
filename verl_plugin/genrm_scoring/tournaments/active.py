"""Which pairs to ask next, given what is known: those whose answers settle most of the order.

The strengths have a posterior, Gaussian in good approximation (`bradley_terry`). For every pair of responses it says
how open their order still is: the density of their difference at zero. The answer to a question has variance p(1 - p);
it narrows the posterior of every difference by a known amount, whatever the answer will be. The best question is the
one that narrows most where the order is open: near neighbours in quality that little is known of, and never a pair
whose winner is plain.

Questions are taken greedily, each as if the ones before had been asked, so a whole round is chosen before its first
answer comes. (Greedy Bayesian design: Chaloner and Verdinelli, Statistical Science 1995; pairs by what they tell of a
ranking: Mikhailiuk et al., "Active sampling for pairwise comparisons", ICPR 2020.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from genrm_scoring.tournaments.bradley_terry import Posterior


def most_telling(known: Posterior, pairs: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """At most `count` of `pairs`, the most telling one first; of equals, the earlier one."""
    left = list(pairs)
    chosen: list[tuple[int, int]] = []
    covariance = known.covariance[:-1, :-1].copy()
    apart = known.strengths[:, None] - known.strengths[None, :]
    while left and len(chosen) < count:
        u, v = np.array(left).T
        spreads = np.diag(covariance)[:, None] + np.diag(covariance)[None, :] - 2 * covariance
        np.fill_diagonal(spreads, 1.0)
        is_open = np.exp(-(apart**2) / (2 * spreads)) / np.sqrt(spreads)
        np.fill_diagonal(is_open, 0.0)
        # the chance of a win, averaged over what is not known of the difference (MacKay, Neural Computation 1992)
        logit = apart[u, v] / np.sqrt(1 + math.pi * spreads[u, v] / 8)
        noise = 4 * np.cosh(logit / 2) ** 2
        towards = covariance[u] - covariance[v]
        narrowed = (towards**2) @ is_open.sum(axis=1) - ((towards @ is_open) * towards).sum(axis=1)
        best = int(np.argmax(narrowed / (noise + spreads[u, v])))
        covariance -= np.outer(towards[best], towards[best]) / (noise[best] + spreads[u[best], v[best]])
        chosen.append(left.pop(best))
    return chosen
