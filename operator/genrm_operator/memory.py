"""What the operator remembers of one RewardModel between two looks. Losing it costs time, never correctness."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from genrm_api.leases import Sighting
from genrm_api.rewardmodel import RewardModel

from genrm_operator.demand import Desired
from genrm_operator.observed import Transition
from genrm_operator.pinning import Pin
from genrm_operator.trouble import Trouble

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Before a failed transition is tried again. Short: a wake that fails once is usually a pod that is just starting."""


@dataclass(slots=True)
class Failure:
    """A pod's last transition failed `times` in a row."""

    times: int
    retry_at: float
    message: str


@dataclass(slots=True)
class Running:
    transition: Transition
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Made:
    """Children, and what they were made from: as long as that is the same they are not made again."""

    out_of: tuple[Any, ...]
    manifests: Sequence[Mapping[str, Any]]
    digests: Sequence[str]

    @classmethod
    def of(cls, out_of: tuple[Any, ...], manifests: Sequence[Mapping[str, Any]]) -> Self:
        digests = [hashlib.sha256(json.dumps(m, sort_keys=True).encode()).hexdigest() for m in manifests]
        return cls(out_of, manifests, digests)


@dataclass(slots=True)
class Memory:
    sightings: dict[str, Sighting] = field(default_factory=dict)
    applied: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(kind, name) → digest of the manifest we applied and fingerprint of the object it became."""
    _read: tuple[dict[str, Any], RewardModel] | None = None
    made: Made | None = None
    """The children as they were made last."""
    running: dict[str, Running] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    pin: Pin | None = None
    """The weights of all pods, as of the last look."""
    replaced: deque[float] = field(default_factory=deque)
    """When pods were deleted because they started with other weights."""
    announced_warning: str | None = None
    announced_expired: set[tuple[str, str]] = field(default_factory=set)
    announced_problem: str | None = None
    announced_troubles: set[Trouble] = field(default_factory=set)
    desired: Desired | None = None
    desired_since: float = 0.0
    settled: bool = False
    """Every pod is where `desired` wants it, and that was announced."""
    last_wake_seconds: float | None = None
    last_sleep_seconds: float | None = None
    engine: str | None = None
    engine_boot_id: str | None = None
    """Of the engine that was asked for its version."""

    def read(self, obj: dict[str, Any]) -> RewardModel:
        """The RewardModel that `obj` is; an object that has not changed is not read again.

        Raises:
            ValidationError: it is none for this version of the API.
        """
        if self._read is None or self._read[0] is not obj:
            self._read = (obj, RewardModel.model_validate(obj))
        return self._read[1]

    def fail(self, uid: str, message: str, now: float) -> None:
        times = self.failures[uid].times + 1 if uid in self.failures else 1
        delay = BACKOFF_SECONDS[min(times, len(BACKOFF_SECONDS)) - 1]
        self.failures[uid] = Failure(times, now + delay, message)

    def forget_pods(self, alive: set[str]) -> None:
        for store in (self.failures, self.restarts):
            for uid in set(store) - alive:
                del store[uid]
