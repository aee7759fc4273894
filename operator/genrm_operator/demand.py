"""Who wants a RewardModel awake: its `lifecycle.state`, or in state Auto the unexpired Leases of runs.

| lifecycle.state | an unexpired Lease in phase prewake or scoring | desired |
|---|---|---|
| Off | any | no pods |
| Awake | any | awake |
| Asleep | any (a person's word wins; the run waits, and status says so) | asleep |
| Auto | yes | awake |
| Auto | no | asleep; awake where `sleep.mode` is None |

A Lease expires when its renewal has not changed for its TTL since *we* last saw it change, on our own clock. A new
operator process has seen nothing, so it counts a full TTL from its first sight.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genrm_api.leases import DemandLease, Sighting
from genrm_api.rewardmodel import LifecycleState


class Desired(enum.StrEnum):
    AWAKE = "awake"
    ASLEEP = "asleep"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Demand:
    desired: Desired
    because: str
    held: tuple[DemandLease, ...]
    """Unexpired Leases, whatever their phase, oldest run name first."""
    expired: tuple[DemandLease, ...]
    next_expiry: float | None
    """Monotonic seconds at which the answer may change without any event."""


def demand(
    state: LifecycleState,
    leases: Iterable[DemandLease],
    sightings: Mapping[str, Sighting],
    now: float,
    *,
    sleeps: bool = True,
) -> Demand:
    """Decide what is wanted; `sightings` is keyed by Lease name and has an entry for every Lease."""
    ordered = sorted(leases, key=lambda lease: lease.run)
    held = tuple(lease for lease in ordered if sightings[lease.name].expires_at(lease) > now)
    expired = tuple(lease for lease in ordered if lease not in held)
    wanting = [lease for lease in held if lease.phase.wants_awake]
    match state:
        case LifecycleState.OFF:
            desired, because = Desired.OFF, "spec.lifecycle.state is Off"
        case LifecycleState.AWAKE:
            desired, because = Desired.AWAKE, "spec.lifecycle.state is Awake"
        case LifecycleState.ASLEEP:
            desired, because = (
                Desired.ASLEEP,
                "spec.lifecycle.state is Asleep" + (f"; run {wanting[0].run} waits for it" if wanting else ""),
            )
        case LifecycleState.AUTO if wanting:
            more = f" and {len(wanting) - 1} more" if len(wanting) > 1 else ""
            desired, because = Desired.AWAKE, f"run {wanting[0].run}{more} is in phase {wanting[0].phase}"
        case LifecycleState.AUTO if not sleeps:
            desired, because = (
                Desired.AWAKE,
                "its engines never sleep: spec.lifecycle.sleep.mode is, or defaults to, None",
            )
        case LifecycleState.AUTO:
            desired, because = Desired.ASLEEP, "no run's Lease asks for it"
    expiries = [sightings[lease.name].expires_at(lease) for lease in held]
    return Demand(desired, because, held, expired, min(expiries, default=None))
