"""How often a run may ask again.

One judgement may be retried `per_judgement` times. Over all judgements retries spend from a common purse that every
judgement pays into, so that a fleet which fails everything is asked at most about twice as often as a healthy one
instead of being buried under retries; the purse holds enough for the loss of a pod with all that was in flight on it.
"""

from __future__ import annotations


class RetryBudget:
    def __init__(self, per_judgement: int = 5, earned: float = 1.0, start: float = 16.0, most: float = 1024.0) -> None:
        self._per_judgement = per_judgement
        self._earned = earned
        self._most = most
        self._left = start

    def judgement_started(self) -> None:
        self._left = min(self._most, self._left + self._earned)

    def spend(self, already: int) -> bool:
        """Whether a judgement that was retried `already` times may be retried once more; if so, it is paid for."""
        if already >= self._per_judgement or self._left < 1.0:
            return False
        self._left -= 1.0
        return True
