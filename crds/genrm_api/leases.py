"""Demand is a Lease: how a training run says what it needs, and how anyone reads it.

A run holds one native `coordination.k8s.io/v1` Lease per RewardModel for its whole life, in the model's namespace. The
name is a hash of run and target, so that two clients of the same run meet in one object and two runs never do. The
phase annotation says what is needed: `idle` wakes nothing, `scoring` keeps the engines awake, and `prewake` wants them
awake in so many seconds from when it was written. The holder renews `spec.renewTime`; who reads a Lease never compares
that time with its own clock, it only notes what changed since the last look (`Sighting`).

A Lease that names slots of the RewardModel beside is not for its engines: the run wants these slots' GPUs for itself,
as trainers do whose own engines sleep in between. It gets all of them together.
"""

from __future__ import annotations

import enum
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.names import (
    ANNOTATION_ASKED,
    ANNOTATION_CREATED_BY,
    ANNOTATION_EXPIRED,
    ANNOTATION_GRANTED,
    ANNOTATION_NEEDED_IN,
    ANNOTATION_PHASE,
    ANNOTATION_PODS,
    ANNOTATION_PRIORITY,
    ANNOTATION_REFUSED,
    ANNOTATION_RUN,
    ANNOTATION_SLOTS,
    API_VERSION,
    LABEL_REWARD_MODEL,
    LABEL_SLOT,
    SEVERAL_SLOTS,
)

DEFAULT_TTL_SECONDS: Final = 30


class Phase(enum.StrEnum):
    """What a run needs of its reward model now."""

    IDLE = "idle"
    PREWAKE = "prewake"
    SCORING = "scoring"

    @property
    def wants_awake(self) -> bool:
        return self is not Phase.IDLE


def slots_named(slots: str | Iterable[str]) -> tuple[str, ...]:
    """One slot or several, each once and in one order: who names the same GPUs means the same Lease."""
    return (slots,) if isinstance(slots, str) else tuple(sorted(set(slots)))


def lease_name(run: str, reward_model: str, slots: str | Iterable[str] = ()) -> str:
    """Name of the Lease that `run` holds on `reward_model`, or on the GPUs of these slots of it: stable, DNS-1123, at
    most 63 characters."""
    what = f"{run}\0{reward_model}" + (f"\0{','.join(named)}" if (named := slots_named(slots)) else "")
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return f"genrm-{reward_model[:40]}-{digest}"


def lease_manifest(
    run: str,
    reward_model: str,
    namespace: str,
    phase: Phase,
    now: datetime,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    reward_model_uid: str | None = None,
    created_by: str = "",
    priority: int = 0,
    slots: str | Iterable[str] = (),
    pods: Sequence[str] = (),
) -> dict[str, Any]:
    """The Lease object that `run` creates (`now` must be timezone-aware).

    With the uid the Lease is owned by the RewardModel, so that what a crashed run leaves behind goes with the model.
    `created_by` is the user who creates it: where the chart's admission policies are on, nobody else may change it.
    `priority`: of those who wait for the same GPUs the larger comes first. With `slots` it is for the GPUs of these, on
    which the processes of `pods` have memory while it is granted.
    """
    annotations = {ANNOTATION_PHASE: str(phase), ANNOTATION_RUN: run}
    if created_by:
        annotations[ANNOTATION_CREATED_BY] = created_by
    if priority:
        annotations[ANNOTATION_PRIORITY] = str(priority)
    if pods:
        annotations[ANNOTATION_PODS] = ",".join(pods)
    labels = {LABEL_REWARD_MODEL: reward_model}
    if named := slots_named(slots):
        labels[LABEL_SLOT] = named[0] if len(named) == 1 else SEVERAL_SLOTS
    if len(named) > 1:
        annotations[ANNOTATION_SLOTS] = ",".join(named)
    owner = {"apiVersion": API_VERSION, "kind": "RewardModel", "name": reward_model, "uid": reward_model_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": lease_name(run, reward_model, named),
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            **({"ownerReferences": [owner]} if reward_model_uid else {}),
        },
        "spec": {
            "holderIdentity": run[:200],
            "leaseDurationSeconds": ttl_seconds,
            "acquireTime": micro_time(now),
            "renewTime": micro_time(now),
        },
    }


def micro_time(at: datetime) -> str:
    """Kubernetes `MicroTime`: RFC 3339 with exactly six fractional digits, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class Grant:
    """The operator's answer to a run: `2026-11-21T10:00:00.000000Z waited=2.100 engine=1.900`."""

    at: str
    """RFC 3339."""
    waited: float | None = None
    """Seconds for which the operator saw the run in phase `scoring` before every replica served; 0 if they did."""
    engine: float | None = None
    """What of these the engines' own wakes took, the longest of all replicas; `None`: none was woken by a call."""

    def __str__(self) -> str:
        facts = {"waited": self.waited, "engine": self.engine}
        return " ".join([self.at, *(f"{name}={value:.3f}" for name, value in facts.items() if value is not None)])

    @classmethod
    def read(cls, word: str) -> Grant:
        """What another version of the operator left out, or says besides, is no error."""
        at, _, said = word.partition(" ")
        facts = dict(re.findall(r"(\w+)=([0-9]+(?:\.[0-9]+)?)(?= |$)", said))
        waited, engine = (float(facts[name]) if name in facts else None for name in ("waited", "engine"))
        return cls(at, waited, engine)


@dataclass(frozen=True, slots=True)
class DemandLease:
    """What matters of a Lease object. `renewal` is opaque: only whether it changes counts."""

    namespace: str
    name: str
    reward_model: str
    run: str
    phase: Phase
    ttl_seconds: int
    renewal: str
    granted: str | None = None
    """The operator's answer, see `names.ANNOTATION_GRANTED`."""
    needed_in: float | None = None
    """Seconds, of phase `prewake`; `None`: at once."""
    priority: int = 0
    """Of those who wait for the same GPUs the larger comes first."""
    refused: str | None = None
    """The operator's answer, see `names.ANNOTATION_REFUSED`."""
    slots: tuple[str, ...] = ()
    """Whose GPUs it is for; none: for the engines."""
    asked: str | None = None
    """See `names.ANNOTATION_ASKED`."""
    pods: tuple[str, ...] = ()
    """See `names.ANNOTATION_PODS`."""
    expired: str | None = None
    """See `names.ANNOTATION_EXPIRED`."""

    @property
    def has_expired(self) -> bool:
        """An operator has seen it expire, and it was not renewed since."""
        return self.expired == self.renewal

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> DemandLease:
        """Read a Lease. An unknown phase counts as `scoring`: a newer client's word must not cost it its engines."""
        meta, spec = obj["metadata"], obj.get("spec") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        try:
            phase = Phase(annotations.get(ANNOTATION_PHASE, Phase.IDLE))
        except ValueError:
            phase = Phase.SCORING
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            reward_model=labels.get(LABEL_REWARD_MODEL, ""),
            run=annotations.get(ANNOTATION_RUN) or spec.get("holderIdentity") or meta["name"],
            phase=phase,
            ttl_seconds=int(spec.get("leaseDurationSeconds") or DEFAULT_TTL_SECONDS),
            renewal=str(spec.get("renewTime")),
            granted=annotations.get(ANNOTATION_GRANTED),
            needed_in=_seconds(annotations.get(ANNOTATION_NEEDED_IN)) if phase is Phase.PREWAKE else None,
            priority=_integer(annotations.get(ANNOTATION_PRIORITY)),
            refused=annotations.get(ANNOTATION_REFUSED),
            slots=_slots(annotations.get(ANNOTATION_SLOTS), labels.get(LABEL_SLOT)),
            asked=annotations.get(ANNOTATION_ASKED),
            pods=tuple(filter(None, annotations.get(ANNOTATION_PODS, "").split(","))),
            expired=annotations.get(ANNOTATION_EXPIRED),
        )


def _slots(several: str | None, one: str | None) -> tuple[str, ...]:
    """What names nothing counts as the label says: a Lease for GPUs is never taken for one that wakes engines."""
    named = slots_named(filter(None, (name.strip() for name in (several or "").split(","))))
    return named or (() if one is None else (one,))


def _integer(text: str | None) -> int:
    """What is no integer, or none that anybody means, counts as nothing said."""
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,9}", text) else 0


def _seconds(text: str | None) -> float | None:
    """What is no number of seconds counts as nothing said: awake too early harms less than too late."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the reader last saw change in a Lease, and when, on the reader's own monotonic clock (seconds)."""

    renewal: str
    since: float
    """When `renewal` changed."""
    wish: tuple[Phase, float | None]
    """Phase and `needed_in`."""
    wished_at: float | None = None
    """When `wish` changed. `None`: it was there when the reader came, and nobody knows how long."""

    @classmethod
    def first(cls, lease: DemandLease, now: float) -> Sighting:
        """It has a whole TTL from now on, for nobody knows how long it was there; unless somebody saw it expire."""
        since = -math.inf if lease.has_expired else now
        return cls(lease.renewal, since, (lease.phase, lease.needed_in))

    def update(self, lease: DemandLease, now: float) -> Sighting:
        wish = (lease.phase, lease.needed_in)
        if (lease.renewal, wish) == (self.renewal, self.wish):
            return self
        since = self.since if lease.renewal == self.renewal else now
        return Sighting(lease.renewal, since, wish, self.wished_at if wish == self.wish else now)

    def expires_at(self, lease: DemandLease) -> float:
        return self.since + lease.ttl_seconds

    def needed_at(self) -> float | None:
        """When the engines must be awake; `None`: now."""
        needed_in = self.wish[1]
        return None if needed_in is None or self.wished_at is None else self.wished_at + needed_in
