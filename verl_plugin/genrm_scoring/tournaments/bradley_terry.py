"""Bradley-Terry strengths by maximum a posteriori, with the judge's bias for the first place taken out.

The model: logit P(first preferred) = s_first - s_second + b. The strengths s are drawn from N(0, 2^2) and the bias b,
one for all pairs of the group, from N(0, 1), all in logits. Without a prior a response that wins every pair has no
finite strength, the usual case in a group of four; with one there is always exactly one maximum, and the strengths sum
to 0. A tie, or a probability, enters as a share of a win (cross-entropy against the preference).

Bradley and Terry, Biometrika 1952; a common order effect: Davidson and Beaver, Biometrics 1977. Solved by Newton's
method to about 1e-12. The curvature at the maximum is the posterior's precision (Laplace), by which schedule `active`
asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from genrm_scoring.tournaments.comparisons import Comparison

STRENGTH_SD: Final = 2.0
BIAS_SD: Final = 1.0
STEPS: Final = 100
SMALLEST_STEP: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Posterior:
    """`strengths` (n,) and `bias` in logits; `covariance` (n + 1, n + 1) of both, the bias last."""

    strengths: NDArray[np.float64]
    bias: float
    covariance: NDArray[np.float64]


def posterior(players: int, comparisons: Sequence[Comparison]) -> Posterior:
    questions = np.zeros((len(comparisons), players + 1))
    preferences = np.array([c.preference for c in comparisons])
    for row, comparison in zip(questions, comparisons, strict=True):
        row[comparison.first], row[comparison.second], row[players] = 1.0, -1.0, float(comparison.asked)
    prior = np.full(players + 1, STRENGTH_SD**-2)
    prior[players] = BIAS_SD**-2

    def height(at: NDArray[np.float64]) -> float:
        logits = questions @ at
        return float(preferences @ logits - np.logaddexp(0, logits).sum() - prior @ at**2 / 2)

    found = np.zeros(players + 1)
    precision = np.diag(prior)
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-(questions @ found)))
        precision = (questions.T * (expected * (1 - expected))) @ questions + np.diag(prior)
        step = np.linalg.solve(precision, questions.T @ (preferences - expected) - prior * found)
        enough = height(found) - 1e-12 * abs(height(found))
        while height(found + step) < enough:
            step = step / 2
        found = found + step
        if np.abs(step).max() < SMALLEST_STEP:
            break
    return Posterior(found[:players], float(found[players]), np.linalg.inv(precision))
