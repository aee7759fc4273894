"""Ask whoever has the fewest of our own requests; leave alone for a while who was not there.

An endpoint that refuses or drops connections is ejected for `eject_seconds`; one that says it does not serve (its door
is closed, the endpoint list just does not know yet) for `not_serving_seconds`. Endpoints that are equally busy are told
apart by a hash of the affinity key and their address: questions that share a prefix tend to meet, and the many
processes of one run do not all start with the same endpoint.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from genrm_scoring.endpoints import Endpoint
from genrm_scoring.errors import AttemptFailed, AttemptTimeout, EndpointLost, NoEndpoint, NotServing


@dataclass(slots=True)
class _State:
    in_flight: int = 0
    ejected_until: float = float("-inf")


class LeastInFlight:
    def __init__(self, eject_seconds: float = 5.0, not_serving_seconds: float = 0.3) -> None:
        self._eject_seconds = eject_seconds
        self._not_serving_seconds = not_serving_seconds
        self._states: dict[Endpoint, _State] = {}

    def pick(self, endpoints: Sequence[Endpoint], avoid: Collection[Endpoint], affinity: bytes, now: float) -> Endpoint:
        there = [e for e in endpoints if self._ejected_until(e) <= now]
        if not there:
            raise NoEndpoint(min((self._ejected_until(e) for e in endpoints), default=None))
        fresh = [e for e in there if e not in avoid] or there
        return min(fresh, key=lambda e: (self.in_flight(e), zlib.crc32(affinity + e.url.encode()), e.url))

    def started(self, endpoint: Endpoint, now: float) -> None:
        self._states.setdefault(endpoint, _State()).in_flight += 1

    def finished(self, endpoint: Endpoint, failure: AttemptFailed | None, now: float) -> None:
        state = self._states[endpoint]
        state.in_flight -= 1
        if isinstance(failure, EndpointLost):
            state.ejected_until = now + self._eject_seconds
        elif isinstance(failure, NotServing | AttemptTimeout):
            state.ejected_until = now + self._not_serving_seconds
        elif state.in_flight == 0 and state.ejected_until <= now:
            del self._states[endpoint]

    def in_flight(self, endpoint: Endpoint) -> int:
        state = self._states.get(endpoint)
        return state.in_flight if state else 0

    def _ejected_until(self, endpoint: Endpoint) -> float:
        state = self._states.get(endpoint)
        return state.ejected_until if state else float("-inf")
