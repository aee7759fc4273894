"""Who wants a RewardModel awake: its `lifecycle.state`, or in state Auto the unexpired Leases of runs.

| lifecycle.state | an unexpired Lease in phase prewake or scoring | desired |
|---|---|---|
| Off | any | no pods |
| Awake | any | awake |
| Asleep | any (a person's word wins; the run waits, and status says so) | at rest |
| Auto | yes | awake |
| Auto | no | at rest; awake where `sleep.mode` is None, and as long as `idle.sleepAfter` says |
| Auto, and no Lease at all, in any phase, for `idle.offAfter` without a request | no | no pods |

At rest is asleep, or no pods where `sleep.mode` is ScaleToZero. What a run gives back rests at once: `idle.sleepAfter`
is for a model that is awake without one. What `idle.offAfter` took away comes back with a Lease (where `sleep.mode` is
ScaleToZero, with one that wants it awake), or with a change of the spec.

Phase prewake says in how many seconds the engines must be awake. It is no demand until they have to begin to wake, by
what their wakes have taken lately.

A Lease expires when its renewal has not changed for its TTL since *we* last saw it change, on our own clock. A new
operator process has seen nothing, so it counts a full TTL from its first sight, but for Leases that one before has seen
expire (`expiry`). How long a model is idle its doors say.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from genrm_api.effective import EffectiveLifecycle
from genrm_api.leases import DemandLease, Phase, Sighting
from genrm_api.lifecycle import LifecycleState, SleepMode

LOOK_AGAIN_SECONDS: Final = 1.0
"""When what is known of idleness is older than the deadline that it speaks of."""


class Desired(enum.StrEnum):
    AWAKE = "awake"
    ASLEEP = "asleep"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Idle:
    """How long no client had asked, as the doors said at `at` (monotonic seconds): the least of all replicas."""

    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Past:
    """What was wanted before, as far as it counts now."""

    awake: bool = False
    """Its engines were wanted awake, and not for a run."""
    off: bool = False
    """Its pods were taken away, and the spec has not changed since."""
    idle: Idle | None = None
    """`None`: no door has said it yet."""
    prewoken: frozenset[str] = frozenset()
    """Leases in phase prewake for which it was awake: a wake that has begun is not called off for a better estimate."""
    wake_seconds: float | None = None
    """What to allow for a wake; `None`: nobody knows, so it begins as soon as somebody speaks of it."""


@dataclass(frozen=True, slots=True)
class Demand:
    desired: Desired
    because: str
    held: tuple[DemandLease, ...]
    """Unexpired Leases, whatever their phase, oldest run name first."""
    expired: tuple[DemandLease, ...]
    next_expiry: float | None
    """Monotonic seconds at which the answer may change without any event."""
    for_run: bool = False
    """Awake, because a run asks for it."""
    prewoken: frozenset[str] = frozenset()
    """Leases in phase prewake for which it is awake."""
    wanting: tuple[DemandLease, ...] = ()
    """Leases that want it awake now."""


def demand(
    lives: EffectiveLifecycle,
    leases: Iterable[DemandLease],
    sightings: Mapping[str, Sighting],
    now: float,
    past: Past = Past(),
) -> Demand:
    """Decide what is wanted; `sightings` is keyed by Lease name and has an entry for every Lease."""
    ordered = sorted(leases, key=lambda lease: lease.run)
    held = tuple(lease for lease in ordered if sightings[lease.name].expires_at(lease) > now)
    expired = tuple(lease for lease in ordered if lease not in held)
    ends = [sightings[lease.name].expires_at(lease) for lease in held]
    wanting, later = [], []
    for lease in (lease for lease in held if lease.phase.wants_awake):
        begins = _begins(sightings[lease.name], past.wake_seconds)
        if begins <= now or (lease.phase is Phase.PREWAKE and lease.name in past.prewoken):
            wanting.append(lease)
        else:
            later.append(lease.run)
            ends.append(begins)
    prewoken = frozenset(lease.name for lease in wanting if lease.phase is Phase.PREWAKE)
    for_run = False
    match lives.state:
        case LifecycleState.OFF:
            desired, because = Desired.OFF, "spec.lifecycle.state is Off"
        case LifecycleState.AWAKE:
            desired, because = Desired.AWAKE, "spec.lifecycle.state is Awake"
        case LifecycleState.ASLEEP:
            waits = f"; run {wanting[0].run} waits for it" if wanting else ""
            desired, because = _rest(lives), f"spec.lifecycle.state is Asleep{waits}"
        case LifecycleState.AUTO if wanting:
            more = f" and {len(wanting) - 1} more" if len(wanting) > 1 else ""
            desired, because = Desired.AWAKE, f"run {wanting[0].run}{more} is in phase {wanting[0].phase}"
            for_run = True
        case LifecycleState.AUTO:
            desired, because, due = _unasked(lives, held, past)
            because += f"; run {later[0]} needs it later" if later else ""
            ends += [max(at, now + LOOK_AGAIN_SECONDS) for at in due]
    return Demand(desired, because, held, expired, min(ends, default=None), for_run, prewoken, tuple(wanting))


def _begins(sighting: Sighting, wake_seconds: float | None) -> float:
    """When the wake for a Lease must begin."""
    needed_at = sighting.needed_at()
    return -math.inf if needed_at is None or wake_seconds is None else needed_at - wake_seconds


def _rest(lives: EffectiveLifecycle) -> Desired:
    return Desired.OFF if lives.sleep_mode is SleepMode.SCALE_TO_ZERO else Desired.ASLEEP


def _unasked(lives: EffectiveLifecycle, held: Sequence[DemandLease], past: Past) -> tuple[Desired, str, list[float]]:
    """In state Auto, when no run wants it awake: what is desired, why, and when idleness alone may change that."""
    idle, due = past.idle, []
    if lives.off_after is not None and not held:
        if past.off or (idle is not None and idle.seconds >= lives.off_after):
            return Desired.OFF, "idle for spec.lifecycle.idle.offAfter; a run's Lease brings the pods back", []
        due += [] if idle is None else [idle.at + lives.off_after - idle.seconds]
    if lives.sleep_mode is SleepMode.NONE:
        return Desired.AWAKE, "its engines never sleep: spec.lifecycle.sleep.mode is, or defaults to, None", due
    if lives.sleep_after is not None and past.awake and (idle is None or idle.seconds < lives.sleep_after):
        due += [] if idle is None else [idle.at + lives.sleep_after - idle.seconds]
        return Desired.AWAKE, "not yet idle for spec.lifecycle.idle.sleepAfter", due
    return _rest(lives), "no run's Lease asks for it", due
