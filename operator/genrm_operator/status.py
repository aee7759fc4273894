"""The status of a RewardModel: pure, from what was observed.

Ready is meant as kstatus means it: a model that sleeps because nobody needs it is Ready.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from genrm_api.effective import effective_spec, scoring_digest
from genrm_api.engine import EngineName
from genrm_api.names import engine_selector
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import ConditionStatus, Reason
from pydantic import ValidationError

from genrm_operator import images, labels
from genrm_operator.demand import Demand, Desired
from genrm_operator.labels import Heard
from genrm_operator.lifecycle import PodState, count, pod_state
from genrm_operator.night import Night
from genrm_operator.observed import WORST_FIRST, Check, Pod
from genrm_operator.one_revision import expected
from genrm_operator.pinning import Pin, node_folder
from genrm_operator.slots import Turn
from genrm_operator.surging import NO_ROLLOUT, Surge
from genrm_operator.trouble import Trouble

Said = tuple[str, bool | None, str, str]
"""A condition: type, whether it is true, reason and message."""

TRUE: Final = {ConditionStatus.TRUE: True, ConditionStatus.FALSE: False, ConditionStatus.UNKNOWN: None}

MOST_SAID: Final = 4
"""Pods of which a condition's message tells."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything the status is made from. `problem` is (reason, sentence) when the spec cannot be carried out."""

    pods: Sequence[Pod]
    demand: Demand
    has_door: bool
    """Or hooks that stand for one."""
    problem: tuple[str, str] | None
    last_error: str | None
    last_wake_seconds: float | None
    usual_wake_seconds: float | None
    last_sleep_seconds: float | None
    engine: str | None
    pin: Pin | None = None
    """The weights of all pods."""
    image: str | None = None
    """Which one those have who score the runs that are under way."""
    warning: Trouble | None = None
    """What will go wrong some day, and does not yet."""
    shrinks_to: int | None = None
    """The replicas that the spec says, where fewer of them count from the next wake."""
    surge: Surge = NO_ROLLOUT
    """How a rollout gets on."""
    waits_for: tuple[str, ...] = ()
    """Runs that a change of the spec waits for."""
    golden_rows: str | None = None
    checks: Mapping[str, Check] = field(default_factory=dict)
    """What was found of the pods' scores, by uid."""
    labels: Heard | None = None
    """What an engine's tokenizer makes of the labels that runs read."""
    nights: Mapping[str, Night] = field(default_factory=dict)
    """What the pods' last sleeps gave back, by uid."""
    turns: Mapping[str, Turn] = field(default_factory=dict)
    """What it got of the slots that it asks for, by name."""

    @property
    def waits(self) -> Turn | None:
        """The slot that it waits for, one that may never come before the others."""
        waiting = (turn for turn in self.turns.values() if not turn.given)
        return max(waiting, key=lambda turn: (turn.deadlock, turn.blocked), default=None)


def compute(rm: RewardModel, seen: Seen, now: datetime) -> dict[str, Any]:
    """The whole status; transition times of unchanged conditions are carried over from `rm.status`."""
    pods = [pod for pod in seen.pods if not pod.deleting]
    states = [pod_state(pod, has_door=seen.has_door) for pod in pods if not pod.held]
    trouble = next((pod for pod in pods if pod.trouble is not None), None)
    phase = _phase(rm, seen, states)
    generation = rm.metadata.get("generation")
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": phase,
        "replicas": len(pods),
        "ready": sum(pod.ready for pod in pods),
        "awake": count(states, PodState.SERVING),
        "selector": ",".join(f"{k}={v}" for k, v in engine_selector(rm.name).items()),
        "endpoints": [_endpoint(pod, pod_state(pod, has_door=seen.has_door)) for pod in sorted(pods, key=_by_name)],
        "leases": [{"run": lease.run, "phase": str(lease.phase)} for lease in seen.demand.held],
        "lastWakeSeconds": seen.last_wake_seconds,
        "usualWakeSeconds": seen.usual_wake_seconds,
        "lastSleepSeconds": seen.last_sleep_seconds,
        "goldenRows": seen.golden_rows,
        "engine": seen.engine,
        "image": images.running(pods),
        **_weights(seen.pin),
        "pinned": _pinned(rm, seen),
    }
    conditions = _conditions(rm, seen, states, trouble, phase)
    status["conditions"] = [_dated(condition, rm, generation, now) for condition in conditions]
    return {key: value for key, value in status.items() if value is not None}


def external(rm: RewardModel, problem: tuple[str, str] | None, now: datetime) -> dict[str, Any]:
    """The status of an endpoint outside the cluster: what its spec says, because nobody here looks at it."""
    assert rm.spec.external is not None, "the CRD's rules require it"
    generation = rm.metadata.get("generation")
    sentence = f"{rm.spec.external.url} is outside the cluster; runs ask it, the operator does not"
    degraded = (True, *problem) if problem is not None else (False, Reason.AS_EXPECTED, "nothing is wrong")
    ready = (False, *problem) if problem is not None else (True, Reason.EXTERNAL, sentence)
    conditions = [("Ready", *ready), ("Degraded", *degraded)]
    return {
        "observedGeneration": generation,
        "phase": str(Reason.DEGRADED if problem is not None else Reason.EXTERNAL),
        "replicas": 0,
        "ready": 0,
        "awake": 0,
        "conditions": [_dated(condition, rm, generation, now) for condition in conditions],
    }


def unreadable(generation: int | None, error: ValidationError, now: datetime) -> dict[str, Any]:
    """The status of an object that this operator cannot read: written under an older schema, or past it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    condition = {
        "type": "Degraded",
        "status": "True",
        "observedGeneration": generation,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": str(Reason.UNREADABLE),
        "message": f"{where}: {first['msg']}; correct the field, this operator cannot read it",
    }
    return {"phase": "Degraded", "conditions": [condition]}


def _weights(pin: Pin | None) -> dict[str, Any]:
    if pin is None:
        return {}
    return {"resolvedRevision": pin.revision, "resolvedModel": pin.model, "weightBytes": pin.bytes}


def _pinned(rm: RewardModel, seen: Seen) -> dict[str, Any] | None:
    """What the runs that hold a Lease are scored by."""
    effective = effective_spec(rm)
    if not seen.demand.held or not effective.pin_during_lease:
        return None
    there = [pod for pod in seen.pods if not pod.deleting and not pod.astray and not pod.held]
    template = _one({pod.chat_template for pod in there})
    scored = _one({pod.revision for pod in there if pod.may_have_scored})
    before = rm.status.pinned if rm.status is not None else None
    found = {
        "revision": scored or (before.revision if before is not None else None),
        "weights": seen.pin.revision if seen.pin is not None else None,
        "image": seen.image,
        "dtype": _one({pod.dtype for pod in there}),
        "chatTemplate": None if template is None else f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
        "scoring": scoring_digest(effective.scoring),
    }
    return {name: value for name, value in found.items() if value is not None}


def _one(found: set[str | None]) -> str | None:
    """What all of them say."""
    return found.pop() if len(found) == 1 else None


def _by_name(pod: Pod) -> str:
    return pod.name


def _endpoint(pod: Pod, state: PodState) -> dict[str, Any]:
    boot_id = {"bootId": pod.door.boot_id} if pod.door else {}
    return {"pod": pod.name, "uid": pod.uid, "state": str(state), **boot_id}


def _phase(rm: RewardModel, seen: Seen, states: Sequence[PodState]) -> str:
    if seen.problem is not None or PodState.FAILED in states:
        return "Degraded"
    match seen.demand.desired:
        case Desired.OFF:
            return "Off" if not seen.pods else "Sleeping"
        case Desired.AWAKE:
            if rm.spec.replicas == 0:
                return "Sleeping" if states else "Off"
            if count(states, PodState.SERVING) == len(states) == expected(rm, seen.surge, seen.pods):
                return "Serving"
            if seen.waits is not None:
                return "Waiting"
            return "Waking" if count(states, PodState.ASLEEP, PodState.WAKING) else _starting(states)
        case Desired.ASLEEP:
            if not seen.has_door:
                return "Serving" if count(states, PodState.SERVING) else _starting(states)
            if count(states, PodState.ASLEEP, PodState.GATED) == len(states) == expected(rm, seen.surge, seen.pods):
                return "Asleep"
            if count(states, PodState.PENDING, PodState.STARTING, PodState.VERIFYING):
                return "Starting"
            return "Sleeping" if states else "Pending"


def _starting(states: Sequence[PodState]) -> str:
    return "Starting" if states else "Pending"


def _conditions(rm: RewardModel, seen: Seen, states: Sequence[PodState], trouble: Pod | None, phase: str) -> list[Said]:
    awake, asleep = count(states, PodState.SERVING), count(states, PodState.ASLEEP, PodState.GATED)
    want, because = rm.spec.replicas, seen.demand.because
    settled = phase in ("Serving", "Asleep", "Off")
    later = "" if seen.shrinks_to is None else f"; spec.replicas: {seen.shrinks_to} counts from the next wake"
    waits = "" if seen.waits is None or awake == want else f"; {seen.waits.waits}"
    rolls = "" if seen.surge.says is None else f"; {seen.surge.says}"
    held = sum(pod.held and not pod.deleting for pod in seen.pods)
    aside = "" if not held else f"; {held} of another revision may not score the run and rest"
    summary = f"{awake} of {want} awake, {asleep} asleep; {because}{later}{waits}{rolls}{aside}"
    unread = labels.trouble_of(rm, seen.labels)
    if seen.problem is not None:
        degraded = (True, *seen.problem)
    elif trouble is not None and trouble.trouble is not None:
        degraded = (True, trouble.trouble.reason, f"pod {trouble.name}: {trouble.trouble.message}")
    elif unread is not None:
        degraded = (True, unread.reason, unread.message)
    elif seen.last_error is not None:
        degraded = (True, "TransitionFailed", seen.last_error)
    elif seen.warning is not None:
        degraded = (True, seen.warning.reason, seen.warning.message)
    else:
        degraded = (False, "AsExpected", "nothing is wrong")
    stuck = seen.problem is not None or trouble is not None or unread is not None
    progress = Reason.RECREATING if seen.surge.recreates and not settled and not stuck else phase
    node, moved = node_folder(rm), images.moved([pod for pod in seen.pods if not pod.deleting])
    return [
        ("Ready", settled and not stuck, degraded[1] if stuck else phase, degraded[2] if stuck else summary),
        ("Available", awake > 0, "Serving" if awake else phase, f"{awake} of {want} pods serve"),
        ("Progressing", not settled and not stuck, progress, summary),
        ("Degraded", *degraded),
        (
            "Asleep",
            0 < want == asleep == len(states),
            phase,
            f"{asleep} of {want} pods sleep by their engines' own word",
        ),
        *([("HostPath", True, Reason.NODE_FOLDER, node)] if node is not None else []),
        *([("ImagesDiffer", True, Reason.IMAGE_MOVED, moved)] if moved is not None else []),
        *_scores(rm, seen),
        *([(labels.CONDITION, *valid)] if (valid := labels.standing(rm, seen.labels)) is not None else []),
        *_nights(rm, seen),
        *_slots(rm, seen),
        *([("RolloutWaiting", True, Reason.RUN_UNDER_WAY, _waits(seen.waits_for))] if seen.waits_for else []),
    ]


def _scores(rm: RewardModel, seen: Seen) -> list[Said]:
    """What was found when they were compared last; a new operator process knows only what the status says."""
    if not effective_spec(rm).lifecycle.verify_wake and rm.spec.scoring.canary is None:
        return []
    names = {pod.uid: pod.name for pod in seen.pods}
    found = sorted(((names[uid], check) for uid, check in seen.checks.items() if uid in names), key=itemgetter(0))
    checks = [(check.reason, f"pod {name} {check.message}") for name, check in found]
    if not checks:
        return _as_before(rm, "ScoresVerified")
    worst, said = min(checks, key=lambda check: WORST_FIRST.index(check[0]))
    if worst not in (Reason.NOT_CONFIRMED, Reason.AS_RECORDED, Reason.BETTER_PREFERRED):
        return [("ScoresVerified", False, worst, said)]
    more = f"; and {len(checks) - MOST_SAID} more" if len(checks) > MOST_SAID else ""
    return [("ScoresVerified", True, worst, "; ".join(said for _, said in checks[:MOST_SAID]) + more)]


def _nights(rm: RewardModel, seen: Seen) -> list[Said]:
    """Of pods whose GPUs' memory can be measured."""
    names = {pod.uid: pod.name for pod in seen.pods}
    nights = sorted(((names[uid], night) for uid, night in seen.nights.items() if uid in names), key=itemgetter(0))
    if not nights:
        return _as_before(rm, "SleepEffective")
    effective = [night.effective for _, night in nights]
    if False not in effective and None in effective:
        unseen = nights[effective.index(None)][0]
        return [("SleepEffective", None, Reason.NOT_MEASURABLE, f"pod {unseen} {_why_not_measurable(rm)}")]
    *_, before, after, name = max(_kept(nights))
    said = f"pod {name} kept {after / (1 << 30):.1f} of {before / (1 << 30):.1f} GiB in its last sleep"
    if False not in effective:
        return [("SleepEffective", True, Reason.MEMORY_FREED, f"{said}, the most of {len(nights)}")]
    ways_out = "spec.lifecycle.sleep.mode: Restart or ScaleToZero gives all of it back, None saves the effort"
    return [("SleepEffective", False, Reason.MEMORY_KEPT, f"{said}; {ways_out}")]


def _kept(nights: Iterable[tuple[str, Night]]) -> Iterator[tuple[bool, float, int, int, str]]:
    """The worst is the greatest."""
    for name, night in nights:
        if night.before is not None and night.after is not None:
            yield not night.effective, night.after / max(night.before, 1), night.before, night.after, name


def _why_not_measurable(rm: RewardModel) -> str:
    if rm.spec.gpu is None:
        return "computes without a GPU, so that there is no GPU memory to measure: that it sleeps is its engine's word"
    if rm.spec.engine.name is EngineName.CUSTOM:
        return (
            "has no door that could measure its GPUs' memory: that its sleep gives it back is the word of "
            "spec.engine.custom's hook alone"
        )
    return (
        "cannot read its GPUs' memory (NVML): that its sleep gives it back is its engine's word alone; have the "
        "container runtime give it the driver's capability utility, by NVIDIA_DRIVER_CAPABILITIES: compute,utility in "
        "spec.env where the image does not say so"
    )


def slot_word(seen: Seen) -> tuple[Reason, str]:
    """What became of what it asks of its slots, and a sentence."""
    if not seen.turns:
        return Reason.SLOT_NOT_ASKED, "at rest it asks for none"
    if (waits := seen.waits) is None:
        return Reason.SLOT_GIVEN, f"{', '.join(sorted(seen.turns))}: its own for now"
    reason = Reason.SLOT_DEADLOCK if waits.deadlock else Reason.SLOT_UNSEEN if waits.blocked else Reason.SLOT_AWAITED
    return reason, waits.waits or ""


def _slots(rm: RewardModel, seen: Seen) -> list[Said]:
    """Of a model that shares GPUs."""
    if not effective_spec(rm).slots:
        return []
    reason, sentence = slot_word(seen)
    return [("SlotBlocked", reason in (Reason.SLOT_DEADLOCK, Reason.SLOT_UNSEEN), reason, sentence)]


def remembered_nights(rm: RewardModel, pods: Sequence[Pod], nights: Mapping[str, Night]) -> Mapping[str, Night]:
    """The nights, and in a new operator process what the status says of those before: that some memory was kept."""
    return {**{pod.uid: Night(before=0, after=1) for pod in pods if doubts_sleep(rm)}, **nights}


def doubts_sleep(rm: RewardModel) -> bool:
    """Whether the status says that the sleep of some pod kept memory."""
    return any(true is False for _, true, *_ in _as_before(rm, "SleepEffective"))


def _as_before(rm: RewardModel, kind: str) -> list[Said]:
    before = next((c for c in (rm.status.conditions if rm.status else None) or () if c.type == kind), None)
    return [] if before is None else [(before.type, TRUE[before.status], before.reason, before.message)]


def _waits(runs: Sequence[str]) -> str:
    return (
        f"a change of the spec waits for {', '.join(runs)}: a run is scored by one revision; write "
        "spec.rollout.pinDuringLease: false not to wait"
    )


def _dated(condition: Said, rm: RewardModel, generation: Any, now: datetime) -> dict[str, Any]:
    kind, true, reason, message = condition
    status = next(str(word) for word, means in TRUE.items() if means is true)
    before = next((c for c in (rm.status.conditions if rm.status else None) or () if c.type == kind), None)
    since = before.last_transition_time if before and before.status == status else now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": _one_word(reason),
        "message": message,
    }


def _one_word(reason: str) -> str:
    return "".join(ch for ch in reason if ch.isalnum()) or "Unknown"


def differs(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    """Whether writing `new` would change anything."""
    return old is None or any(old.get(key) != value for key, value in new.items()) or bool(set(old) - set(new))
