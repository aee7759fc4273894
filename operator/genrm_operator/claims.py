"""What is asked for in the queue for GPUs: a slot of a RewardModel that is to be awake, or all that a trainer needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from genrm_operator.observed import Place

Owner = tuple[str, str]
"""(namespace, name) of a RewardModel, or what a trainer is called (`slots.trainer`)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """GPUs that one owner asks for, all of them together. Times are monotonic seconds."""

    owner: Owner
    slot: str
    """Of a trainer that names several: their names, with commas."""
    places: frozenset[Place]
    runs: frozenset[str] = frozenset()
    """Whose Leases ask; none where a person does."""
    priority: int = 0
    since: float = 0.0
    """When it began to ask, or was told to give it back."""
    joined: Mapping[str, float] = field(default_factory=dict)
    """When each run began to ask; who is not here did as the claim did."""
    given_at: float | None = None
    """When it was given the slot; `None`: it waits."""
    served_at: float | None = None
    """When it was first seen to serve since: a turn is time to score, and not to start an engine."""
    starts: float = 0.0
    """Seconds that the start of its engine may take. Infinite of a trainer, whom nobody could put to rest."""

    @property
    def ends(self) -> bool:
        """Whether its turn does: that of a model, and not that of a trainer."""
        return not math.isinf(self.starts)

    def asked_at(self, run: str) -> float:
        return self.joined.get(run, self.since)

    def turn_ends(self, turn_seconds: float) -> float:
        assert self.given_at is not None, "only who has the slot has a turn"
        return (self.given_at + self.starts if self.served_at is None else self.served_at) + turn_seconds

    @property
    def key(self) -> tuple[Owner, str]:
        return self.owner, self.slot

    @property
    def name(self) -> str:
        return "/".join(self.owner)

    def shares(self, owner: Owner, places: frozenset[Place]) -> bool:
        return self.owner != owner and not self.places.isdisjoint(places)
