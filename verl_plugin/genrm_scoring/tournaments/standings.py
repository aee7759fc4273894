"""What a tournament comes to: a score for each response, and what was learned about the judge on the way."""

from __future__ import annotations

from dataclasses import dataclass

from genrm_scoring.tournaments.comparisons import Tally


@dataclass(frozen=True, slots=True)
class Conflicts:
    """What stood in the way of an order that all verdicts agree with.

    `removed` arcs (winner to loser) point backward in a best order, on the mean over the best orders; `weight` is what
    they weigh together, in wins. `exact`: no order does with less; otherwise the best one found.
    """

    removed: float
    weight: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Standings:
    """`scores[i]` is None if response i has no verdict at all: nothing was said of it, which is not a zero.

    `first_bias` is the judge's love for the response it reads first, in logits; only rule `bt` estimates it. Only rule
    `dgr` has `conflicts`.
    """

    scores: tuple[float | None, ...]
    tally: Tally
    conflicts: Conflicts | None = None
    first_bias: float | None = None
