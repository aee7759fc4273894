"""When a run will need its reward model again, from how long it did not before: pure.

Between the last judgement of a step and the first of the next lie an update and a rollout. Who says ahead when that
will be over (phase `prewake`) lets the engines sleep until they have to begin to wake, and waits for none. Too late
costs the run seconds, too early only costs sleep: so what counts is the shortest of the last pauses, and a little less.
How much was tried out by `make bench-prewake`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

REMEMBERED: Final = 8
"""Pauses. A run changes its habits while it trains, so that those of an hour ago say nothing."""
SPARE_SHARE: Final = 0.03


class Forecast:
    """Seconds from the last judgement of a step to the first one of the next."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, seconds: float) -> None:
        self._seen.append(seconds)

    def needed_in(self) -> float | None:
        """What may pass at least before the model is needed; `None`: nobody knows yet."""
        return min(self._seen) * (1 - SPARE_SHARE) if self._seen else None
