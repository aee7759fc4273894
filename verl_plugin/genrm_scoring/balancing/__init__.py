"""Which endpoint takes the next attempt.

A policy is a small state machine without I/O: it is told which endpoints serve and what became of each attempt, and
names an endpoint. Time is a parameter, seconds on any one clock that never goes back. One policy a file.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from genrm_scoring.balancing.least_in_flight import LeastInFlight
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.errors import AttemptFailed

__all__ = ["Balancer", "LeastInFlight"]


class Balancer(Protocol):
    def pick(self, endpoints: Sequence[Endpoint], avoid: Collection[Endpoint], affinity: bytes, now: float) -> Endpoint:
        """Name the endpoint for one attempt; one in `avoid` (it failed this judgement) only if there is no other.

        Raises:
            NoEndpoint: nobody serves, or all that do are ejected.
        """
        ...

    def started(self, endpoint: Endpoint, now: float) -> None:
        """An attempt is on its way; `finished` follows exactly once."""
        ...

    def finished(self, endpoint: Endpoint, failure: AttemptFailed | None, now: float) -> None:
        """It ended; `None` if the endpoint did its part (or the attempt was given up by us)."""
        ...
