"""Stops a run whose scores are mostly failures.

A training run goes on over dropped samples as if nothing were wrong; if most of them are, it learns from what happens
to be left. The breaker counts, step by step, how many scores failed, and once more than the allowed share of at least
so many did, it raises an error that shows three of them. What counts is how a score ended, not what a policy made of
it: a run whose failures all get a number is as blind as one that drops them. A sample that gates kept from being asked
has not failed.

A small state machine: it is told what happened, and does no I/O. A run with several processes has one, where all scores
come by.
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.errors import BreakerTripped
from genrm_scoring.types import Outcome, Score

EXAMPLES: Final = 3
LONGEST_EXAMPLE: Final = 300
"""Characters."""


class Breaker:
    """
    Args:
        most: the largest share of failed scores of a step, 0 to 1, with which the run goes on; 1: it always does.
        at_least: scores of a step before which nothing is decided.
    """

    def __init__(self, most: float, at_least: int) -> None:
        self._most, self._at_least = most, at_least
        self.begin_step()

    def begin_step(self) -> None:
        self.judged = self.failed = 0
        self._examples: list[tuple[Outcome, str]] = []

    def saw(self, who: str, score: Score) -> None:
        """
        Args:
            who: the sample, as a person would look it up: prompt and number of the response.

        Raises:
            BreakerTripped: too many of this step's scores have failed.
        """
        self.judged += 1
        if score.failed:
            self.failed += 1
            self._remember(who, score)
        # Also after one that did not fail: it may be the one that makes them enough to decide by.
        if self.judged >= self._at_least and self.failed > self._most * self.judged:
            raise BreakerTripped(self.failed, self.judged, self._most, [example for _, example in self._examples])

    def _remember(self, who: str, score: Score) -> None:
        """Examples of different kinds say more than three of one: a new kind takes the place of a repeated one."""
        kinds = [kind for kind, _ in self._examples]
        if len(kinds) == EXAMPLES:
            repeated = [place for place, kind in enumerate(kinds) if kinds.index(kind) < place]
            if score.outcome in kinds or not repeated:
                return
            del self._examples[repeated[-1]]
        sentence = f"{who}: {score.outcome}: {score.detail or 'no detail is known'}"
        short = sentence if len(sentence) <= LONGEST_EXAMPLE else sentence[:LONGEST_EXAMPLE] + "…"
        self._examples.append((score.outcome, short))
