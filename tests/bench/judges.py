"""A judge with known faults, and groups of responses with known qualities: what `make bench-judges` measures rules
with.

The qualities t of a group are drawn from N(0, 1). Asked about a (shown first) and b, the judge's logit for a is k (t_a
- t_b) + bias + e_ab: k is its sharpness, bias its love for the first place, and e_ab = -e_ba an error of N(0, sd^2)
that it makes about this pair however often it is asked. A hard verdict is one draw; a logprob verdict is the
probability itself, from which the draw's noise is gone and the other two faults are not.

A pointwise or listwise judge is another thing, and this one is kind to it: its opinion of each response is k t + N(0,
sd^2 / 2) + Gumbel noise, so that two opinions order a pair as a hard verdict does (Plackett-Luce), and they never
contradict each other. In a list the place counts: from bias at the top to 0 at the end. A pointwise opinion is a grade
from 1 to 10.

All questions to one group have fixed answers, so rules are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from genrm_scoring.tournaments import Comparison
from genrm_scoring.tournaments.seating import Question
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    sharpness: float = 3.0
    bias: float = 0.8
    error: float = 0.0


@dataclass(frozen=True)
class Group:
    """`truth` (n,); `chance[a, b]` of a when shown before b; `coin[a, b]` uniform; `opinion` (votes, n)."""

    truth: Floats
    chance: Floats
    coin: Floats
    opinion: Floats
    judge: Judge

    @classmethod
    def draw(cls, players: int, judge: Judge, seed: int, votes: int = 4) -> Group:
        """The same seed gives the same qualities and coins, and errors of the same shape, to every judge."""
        rng = np.random.default_rng([players, seed])
        truth = rng.normal(size=players)
        error = np.triu(rng.normal(size=(players, players)), 1)
        coin = rng.random((players, players))
        own = rng.normal(size=players) / np.sqrt(2)
        gumbel = rng.gumbel(size=(votes, players))
        logit = judge.sharpness * (truth[:, None] - truth[None, :]) + judge.bias + judge.error * (error - error.T)
        opinion = judge.sharpness * truth + judge.error * own + gumbel
        return cls(truth, 1 / (1 + np.exp(-logit)), coin, opinion, judge)

    @property
    def players(self) -> int:
        return len(self.truth)

    def hard(self, question: Question) -> float:
        return float(self.coin[question] < self.chance[question])

    def logprob(self, question: Question) -> float:
        return float(self.chance[question])

    def said(self, questions: Sequence[Question], logprobs: bool = False) -> list[Comparison]:
        return [Comparison(*q, self.logprob(q) if logprobs else self.hard(q)) for q in questions]

    def ranking(self, shown: Sequence[int], vote: int) -> list[int]:
        """Places in `shown`, the best first."""
        liking = self.opinion[vote][list(shown)] + self.judge.bias * np.linspace(1, 0, len(shown))
        return [int(place) for place in np.argsort(-liking)]

    def grades(self) -> list[float]:
        """One grade each: two deviations of the truth on either side fill the scale from 1 to 10."""
        scaled = 5.5 + 4.5 * (self.opinion[0] - np.euler_gamma) / (2 * self.judge.sharpness)
        return [float(grade) for grade in np.clip(np.round(scaled), 1, 10)]


def kendall(truth: Floats, scores: Floats) -> float:
    """Kendall's tau-a: pairs ordered rightly less pairs ordered wrongly, over all pairs; a tie in scores is neither."""
    upper = np.triu_indices(len(truth), 1)
    agree = np.sign(truth[:, None] - truth[None, :]) * np.sign(scores[:, None] - scores[None, :])
    return float(agree[upper].mean())


def cosine(truth: Floats, scores: Floats) -> float:
    """Between what group-normalised training (GRPO) makes of the scores and of the truth, its advantages; 0 if all
    scores tie."""
    a, b = truth - truth.mean(), scores - scores.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if np.linalg.norm(b) > 1e-9 else 0.0
