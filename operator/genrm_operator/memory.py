"""What the operator remembers of one RewardModel between two looks. Losing it costs time, never correctness."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from genrm_api.leases import DemandLease, Grant, Phase, Sighting, micro_time
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason, RewardModelStatus

from genrm_operator.canary import Recordings
from genrm_operator.demand import Demand, Desired, Idle, Past
from genrm_operator.labels import Heard
from genrm_operator.night import Night
from genrm_operator.observed import Door, Pod, Transition
from genrm_operator.one_revision import EVERYBODY, Choice
from genrm_operator.pinning import Pin
from genrm_operator.rollout import Kept
from genrm_operator.surging import NO_ROLLOUT, Surge
from genrm_operator.trouble import Trouble

WAKES: Final = 16
"""How many of the last wakes are remembered."""
USUAL: Final = 0.9
"""The share of them that take no longer than what counts as usual."""
SPARE_SECONDS: Final = 0.5
SPARE_SHARE: Final = 0.1
"""Added to a usual wake, so that one that takes a little longer is still in time."""
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Before a failed transition is tried again. Short: a wake that fails once is usually a pod that is just starting."""
APPLY_BACKOFF_SECONDS = (5.0, 10.0, 20.0)
"""Before a child that the API server refused is applied again, unless a resync comes first. What refuses one often
refuses thousands: a quota, a full range of Service addresses, a webhook that is down."""


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
    ordered: asyncio.Event = field(default_factory=asyncio.Event)
    """Its engine is being told to sleep: from there on it is not called off."""


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """What children follow from: a spec, and what those that are there say of themselves."""

    uid: str
    generation: int | None
    kept: Mapping[str, Kept]
    """By Deployment."""
    maps: frozenset[str]
    arrived: frozenset[str] = frozenset()
    """Slots whose pod runs as wanted."""
    replicas: int = 1
    """As they count now."""
    may_run: bool = True
    pin: Pin | None = None
    """The weights that the status names."""
    pinned: bool = False
    """A run is under way."""
    recreates: str | None = None
    """The revision for whose pods old ones go first."""
    finishes: str | None = None
    """The change that goes on although a run is under way, which pods of it score (`one_revision`): what it is made
    from."""

    def carried_out(self, manifests: Sequence[Mapping[str, Any]]) -> MadeFrom:
        """The same once these are applied: nothing new, or they would be made again for being there."""
        kept = {m["metadata"]["name"]: found for m in manifests if (found := Kept.of(m)) is not None}
        maps = {m["metadata"]["name"] for m in manifests if m["kind"] == "ConfigMap"}
        return dataclasses.replace(self, kept={**self.kept, **kept}, maps=self.maps | maps)


@dataclass(frozen=True, slots=True)
class Made:
    """Children, and what they were made from: as long as that is the same they are not made again."""

    out_of: Collection[MadeFrom]
    manifests: Sequence[Mapping[str, Any]]
    digests: Sequence[str]
    waits: bool
    """A change of the spec is not in them yet, for the sake of a run."""
    made_from: str | None = None
    """What the spec asks for (`rollout.inputs`)."""

    @classmethod
    def of(cls, out_of: MadeFrom, manifests: Sequence[Mapping[str, Any]], made_from: str, *, waits: bool) -> Self:
        digests = [hashlib.sha256(json.dumps(m, sort_keys=True).encode()).hexdigest() for m in manifests]
        return cls((out_of, out_of.carried_out(manifests)), manifests, digests, waits, made_from)


@dataclass(slots=True)
class Memory:
    sightings: dict[str, Sighting] = field(default_factory=dict)
    applied: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(kind, name) → digest of the manifest we applied and fingerprint of the object it became."""
    _read: tuple[dict[str, Any], RewardModel] | None = None
    made: Made | None = None
    """The children as they were made last."""
    surge: Surge = NO_ROLLOUT
    """How a rollout gets on, as of the last look."""
    choice: Choice = EVERYBODY
    """Who scores the run that is under way, as of the last look."""
    relabelled: float | None = None
    """When the label of a pod was last written, as long as `endpoints` has something to do about it."""
    refused_applies: int = 0
    """How many looks in a row could not apply all of them."""
    running: dict[str, Running] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    """Of transitions to where pods are wanted now."""
    unfit: dict[str, int] = field(default_factory=dict)
    """How often in a row an engine, by uid of its pod, did not wake or computed other scores, although its door
    answered. Nights between two tries do not change that: only a wake or a verification that succeeds does."""
    restarts: dict[str, int] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    doors: dict[str, Door] = field(default_factory=dict)
    """What they said in the last look, by uid of the pod."""
    pin: Pin | None = None
    """The weights of all pods, as of the last look."""
    image: str | None = None
    """Which one those have who score the runs that are under way."""
    golden: Recordings = field(default_factory=Recordings)
    labels: Heard | None = None
    """What an engine's tokenizer makes of the labels that runs read."""
    nights: dict[str, Night] = field(default_factory=dict)
    """What the last sleep of each pod gave back, by uid."""
    tight: dict[str, float] = field(default_factory=dict)
    """Pods whose GPUs have no room for their engines, as `room` has it."""
    inherited: dict[str, float] = field(default_factory=dict)
    """Pods of whose engines somebody else, an operator of before, had ordered something that still goes on: since when
    that is known."""
    shut: dict[str, float | None] = field(default_factory=dict)
    """Pods without a door with which something was begun, as `hooked` has it."""
    replaced: deque[float] = field(default_factory=deque)
    """When pods were deleted so that others come."""
    announced_warning: str | None = None
    announced_expired: set[tuple[str, str]] | None = None
    """Leases by name and renewal; `None` before the first look."""
    announced_problem: str | None = None
    announced_slot: Reason | None = None
    announced_troubles: set[Trouble] = field(default_factory=set)
    desired: Desired | None = None
    desired_since: float = 0.0
    from_nothing: bool = False
    """There were no pods before, as wanted: their start is a part of the wake."""
    wants: tuple[Demand, int | None] | None = None
    """What was decided last, and for which generation of the spec."""
    idle: Idle | None = None
    settled: bool = False
    """Every pod is where `desired` wants it, and that was announced."""
    last_wake_seconds: float | None = None
    wakes: deque[float] = field(default_factory=lambda: deque(maxlen=WAKES))
    """Seconds of the last ones."""
    last_sleep_seconds: float | None = None
    engine: str | None = None
    waiting: dict[str, float] = field(default_factory=dict)
    """Leases of runs that score and are not granted it yet: since when."""
    engine_wakes: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When the engine of each pod was last told to wake, and when it had; by uid."""
    engine_boot_id: str | None = None
    """Of the engine that was asked for its version."""

    def is_of_another(self, obj: Mapping[str, Any]) -> bool:
        """Whether it was learned of a RewardModel that was deleted, and whose name `obj` has now."""
        return self._read is not None and self._read[0]["metadata"]["uid"] != obj["metadata"]["uid"]

    def read(self, obj: dict[str, Any]) -> RewardModel:
        """The RewardModel that `obj` is; what has not changed is not read again.

        Raises:
            ValidationError: it is none for this version of the API.
        """
        if self._read is None or _spec_of(self._read[0]) != _spec_of(obj):
            self._read = (obj, RewardModel.model_validate(obj))
        elif self._read[0] is not obj:  # most changes are our own, of the status; the spec has a hundred rules
            status = obj.get("status")
            changed = {
                "metadata": obj["metadata"],
                "status": None if status is None else RewardModelStatus.model_validate(status),
            }
            self._read = (obj, self._read[1].model_copy(update=changed))
        return self._read[1]

    def past(self, rm: RewardModel) -> Past:
        """What was wanted before: as remembered, or in a new process as the status has it."""
        generation = rm.metadata.get("generation")
        usual = self.usual_wake_seconds(rm)
        allow = None if usual is None else usual * (1 + SPARE_SHARE) + SPARE_SECONDS
        if self.wants is None:
            was = rm.status
            off = was is not None and (was.phase, was.observed_generation) == (Reason.OFF, generation)
            rested = was is not None and was.phase in (Reason.OFF, Reason.SLEEPING, Reason.ASLEEP)
            return Past(awake=not rested, off=off, idle=self.idle, wake_seconds=allow)
        wants, then = self.wants
        awake = wants.desired is Desired.AWAKE and not wants.for_run
        off = wants.desired is Desired.OFF and then == generation
        return Past(awake, off, self.idle, wants.prewoken, allow)

    def usual_wake_seconds(self, rm: RewardModel) -> float | None:
        """What nine of ten of the last wakes took at most; in a new process what the status says."""
        if not self.wakes:
            return rm.status.usual_wake_seconds if rm.status is not None else None
        return sorted(self.wakes)[math.ceil(len(self.wakes) * USUAL) - 1]

    def wait(self, held: Iterable[DemandLease], now: float) -> None:
        """Note which runs begin to wait for it."""
        names = [lease.name for lease in held if lease.phase is Phase.SCORING and lease.granted is None]
        self.waiting = {name: self.waiting.get(name, now) for name in names}

    def grant(self, lease: DemandLease, now: float, date: datetime) -> Grant:
        """The answer to a run, now that every replica serves."""
        since = self.waiting.get(lease.name, now)
        shares = [ended - max(began, since) for began, ended in self.engine_wakes.values() if ended > since]
        return Grant(micro_time(date), now - since, max(shares, default=None))

    def apply_refused(self) -> float:
        """Seconds until it is tried again."""
        self.refused_applies += 1
        return APPLY_BACKOFF_SECONDS[min(self.refused_applies, len(APPLY_BACKOFF_SECONDS)) - 1]

    def beside(self, pods: Iterable[Pod], doors: Mapping[str, Door | None] | None = None) -> list[Pod]:
        """The pods with what is being done to them, and, where they have none, with the doors of an earlier look."""

        def enriched(pod: Pod) -> Pod:
            running, failure = self.running.get(pod.uid), self.failures.get(pod.uid)
            return dataclasses.replace(
                pod,
                door=pod.door or (doors or {}).get(pod.uid),
                busy=running.transition if running else None,
                retry_at=failure.retry_at if failure else 0.0,
            )

        return [enriched(pod) for pod in pods]

    def fail(self, uid: str, message: str, now: float, *, unfit: bool = False) -> None:
        """`unfit`: its door answered, and the engine did not wake or computed something else."""
        times = 1 if (before := self.failures.get(uid)) is None else before.times + 1
        delay = BACKOFF_SECONDS[min(times, len(BACKOFF_SECONDS)) - 1]
        self.failures[uid] = Failure(times, now + delay, message)
        if unfit:
            self.unfit[uid] = self.unfit.get(uid, 0) + 1

    def hear(self, doors: Mapping[str, Door], now: float) -> None:
        """What the doors say in this look, by uid of the pod."""
        for uid, door in doors.items():
            if not door.ordered:
                self.inherited.pop(uid, None)
            elif uid not in self.doors:  # we have ordered nothing of whom we had not heard
                self.inherited.setdefault(uid, now)
        self.doors = dict(doors)

    def succeed(self, uid: str, transition: Transition) -> None:
        self.failures.pop(uid, None)
        if transition in (Transition.WAKE, Transition.VERIFY):
            self.unfit.pop(uid, None)

    def want(self, desired: Desired) -> None:
        """Something else is wanted: that way nothing has failed yet, and nothing waits for another try."""
        if desired is not self.desired:
            self.failures.clear()

    def forget_pods(self, alive: set[str]) -> None:
        golden, wakes = self.golden.checks, self.engine_wakes
        stores = (self.failures, self.unfit, self.restarts, self.shut, golden, self.nights, wakes, self.inherited)
        for store in stores:
            for uid in set(store) - alive:
                del store[uid]
        self.unreachable &= alive


def _spec_of(obj: Mapping[str, Any]) -> tuple[Any, ...]:
    meta = obj["metadata"]
    return meta["uid"], meta.get("generation")
