"""What the operator sees, as values: projections of API objects and the doors' own words.

The decisions (`demand`, `lifecycle`, `status`) read these and nothing else.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from genrm_api.names import (
    ANNOTATION_BOOT_ID,
    ANNOTATION_RELEASED,
    ANNOTATION_REVISION,
    CONDITION_VERIFIED,
    LABEL_REWARD_MODEL,
    LABEL_SERVING,
    LABEL_SLOT,
)
from genrm_api.status import Reason

from genrm_operator import trouble
from genrm_operator.night import Night
from genrm_operator.trouble import Trouble

DOOR_VOLUME: Final = "door"
PIN_VOLUME: Final = "weights-pin"
"""Names of the volumes in an engine pod that hold a ConfigMap of ours."""


ENGINE_CONTAINER: Final = "engine"
"""The container in an engine pod that is asked for scores."""


VERIFIED: Final = "Verified"
"""The reason of our condition on a pod whose engine was verified."""
JOINED: Final = "Joined"
"""The same, once the pod is where it is wanted for the first time."""

START_GATE_ENV: Final = "GENRM_START_GATE"
"""`1` in a pod whose engine waits to be let in before it starts."""

CLAIM: Final = "genrm-slot"
"""What the pod of a slot calls its ResourceClaim."""
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
"""Tells the container runtime which of the node's GPUs the pod of a slot sees."""

Place = tuple[str, str, str]
"""What a slot stands for: ("claim", namespace, its name), or ("device", node, number)."""

MEMORY_TAGS: Final = frozenset({"kv_cache", "weights"})
"""What doors call the parts of an engine's memory that are released."""


class DoorState(enum.StrEnum):
    GATED = "gated"
    """The engine waits for its release (`CLOSED`) before it starts."""
    CLOSED = "closed"
    SERVING = "serving"
    DRAINING = "draining"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class Weights:
    """What the engine was started with. `revision`: a commit, or `sha256:…` of a folder; `None` is unknown."""

    revision: str | None
    bytes: int | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Weights | None:
        found = document.get("weights")  # a door of before does not say
        if found is None:
            return None
        revision, size = found.get("revision"), found.get("bytes")
        return cls(None if revision is None else str(revision), None if size is None else max(int(size), 0))


@dataclass(frozen=True, slots=True)
class Door:
    """The document of `GET /genrm/door`. `engine_asleep` is the engine's own word, `None` if it gave none."""

    state: DoorState
    inside: int
    boot_id: str
    engine_asleep: bool | None
    version: str | None = None
    weights: Weights | None = None
    device: str | None = None
    """What the engine computes on. A door of before does not say."""
    idle_seconds: float = math.inf
    """Since a client's last request ended. A door of before does not say: it counts as idle since ever."""
    ordered: bool = False
    """An order to its engine is being carried out, whoever gave it."""
    holds_memory: bool = False
    """By its account of the orders it let through, the engine has not given back all that a sleep gives back."""
    epoch: int | None = None
    """The leadership that gave it its last order, 0 if none did. `None`: a door of before does not say."""
    night: Night | None = None
    """What the door kept of the sleep that it is in, or on its way to. `None`: it serves, or a door of before."""

    @property
    def last_night(self) -> Night | None:
        """What its sleep gave back, where that is over and done. `None`: there is nothing to say, or nobody has looked.

        At the gate no engine is left that could keep anything.
        """
        if self.night is None or self.state not in (DoorState.ASLEEP, DoorState.GATED):
            return None
        if self.state is DoorState.GATED and self.night.after is None and self.night.before is not None:
            return None
        return self.night.over()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Door:
        return cls(
            state=DoorState(document["state"]),
            inside=int(document["inside"]),
            boot_id=str(document["bootId"]),
            engine_asleep=document.get("asleep"),
            weights=Weights.from_document(document),
            device=document.get("device"),
            idle_seconds=float(document.get("idleSeconds", math.inf)),
            ordered=any(entry.get("status") is None for entry in document.get("ledger", ())),
            holds_memory=(memory := document.get("memory")) is not None and not set(memory["released"]) >= MEMORY_TAGS,
            epoch=int(document["epoch"] or 0) if "epoch" in document else None,
            night=Night.from_document(document),
        )


WORST_FIRST: Final = (
    Reason.SCORES_DIFFER,
    Reason.WORSE_PREFERRED,
    Reason.SCORES_DISPUTED,
    Reason.NOT_COMPARED,
    Reason.NOT_CONFIRMED,
    Reason.AS_RECORDED,
    Reason.BETTER_PREFERRED,
)
"""What may be found of an engine's scores."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one pod, in one boot of its engine. `fresh`: and it has not slept since."""

    boot_id: str
    reason: Reason
    message: str
    fresh: bool = True

    @property
    def fine(self) -> bool:
        """Whether it may serve."""
        return self.reason not in (Reason.SCORES_DIFFER, Reason.WORSE_PREFERRED)


class Transition(enum.StrEnum):
    """What is being done to a pod right now."""

    START = "start"
    """The engine is let past its start gate."""
    VERIFY = "verify"
    WAKE = "wake"
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Pod:
    """One engine pod. `ready` is the kubelet's word that the engine lives; `serving` is our label.

    For Kubernetes a pod is Ready only when its readiness gate is true too. That is our word, and left out of `ready`.
    """

    namespace: str
    name: str
    uid: str
    reward_model: str
    ip: str | None
    ready: bool
    deleting: bool
    serving: bool
    labelled_boot_id: str | None
    gated: bool
    """Whether the pod has our readiness gate."""
    verified_boot_id: str | None
    """The boot id in which its engine was verified. Its gate may still be shut."""
    door_map: str | None
    """The ConfigMap from which its door comes."""
    restarts: int
    trouble: Trouble | None
    """Why the engine does not run; `None` while all is well."""
    pin_map: str | None = None
    """The ConfigMap in which it would find which weights to use."""
    image: str | None = None
    """The engine's image, as the pod names it."""
    image_id: str | None = None
    """The same, as the container runtime resolved it."""
    revision: str | None = None
    """What its answers are stamped with: a digest of its template."""
    dtype: str | None = None
    """As its engine was told; `None`: what the weights say."""
    chat_template: str | None = None
    """The same: a text, or the path of one."""
    arguments: str | None = None
    """A digest of what its engine is started with: command, arguments, variables; not with which of equal GPUs."""
    slot: str | None = None
    places: frozenset[Place] = frozenset()
    """The GPUs of its slot (`slots`), once they are known."""
    runs: bool = True
    """The kubelet's word that the engine's container runs, or no word that it does not."""
    released_boot_id: str | None = None
    """The boot id for which its engine was let past its gate last."""
    passed: bool = False
    """Whether the gate is true, for whatever reason."""
    door: Door | None = None
    astray: bool = False
    """Whether it started with other weights than the model's (`pinning`), or with another image than those who score
    a run (`images`)."""
    held: bool = False
    """Whether a run is under way that is scored by another revision (`one_revision`)."""
    outvoted: bool = False
    """Whether others have shown since it was let in that it computes something else (`canary`)."""
    may_be_up: bool = True
    """Whether it may have the GPUs that it shares (`slots`)."""
    busy: Transition | None = None
    retry_at: float = 0.0
    """Monotonic seconds before which a failed transition is not tried again."""

    @property
    def may_have_scored(self) -> bool:
        """Without a gate nobody writes down what was verified: there the engine's life is all that is known."""
        return self.serving or self.verified_boot_id is not None or (self.ready and not self.gated)

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Pod:
        meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        containers = status.get("containerStatuses") or []
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        verified = conditions.get(CONDITION_VERIFIED, {})
        passed = verified.get("status") == "True"
        maps = {v["name"]: v["configMap"]["name"] for v in spec.get("volumes") or [] if "configMap" in v}
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            reward_model=labels.get(LABEL_REWARD_MODEL, ""),
            ip=status.get("podIP"),
            ready=conditions.get("ContainersReady", {}).get("status") == "True",
            deleting=bool(meta.get("deletionTimestamp")),
            serving=labels.get(LABEL_SERVING) == "true",
            labelled_boot_id=annotations.get(ANNOTATION_BOOT_ID),
            gated=any(gate["conditionType"] == CONDITION_VERIFIED for gate in spec.get("readinessGates") or []),
            verified_boot_id=verified.get("message") if verified.get("reason") in (VERIFIED, JOINED) else None,
            passed=passed,
            door_map=maps.get(DOOR_VOLUME),
            pin_map=maps.get(PIN_VOLUME),
            restarts=sum(c.get("restartCount", 0) for c in containers),
            trouble=trouble.of_pod(obj),
            image=next((c.get("image") for c in spec.get("containers") or [] if c["name"] == ENGINE_CONTAINER), None),
            image_id=next((c.get("imageID") or None for c in containers if c["name"] == ENGINE_CONTAINER), None),
            revision=annotations.get(ANNOTATION_REVISION),
            dtype=_told(spec, "--dtype"),
            chat_template=_told(spec, "--chat-template"),
            slot=labels.get(LABEL_SLOT),
            arguments=_arguments(spec),
            places=_places(meta["namespace"], spec),
            runs=next(("running" in c.get("state", {}) for c in containers if c["name"] == ENGINE_CONTAINER), True),
            released_boot_id=annotations.get(ANNOTATION_RELEASED),
        )


def _places(namespace: str, spec: Mapping[str, Any]) -> frozenset[Place]:
    """By what the pod itself says: it may outlive the RewardModel that named its slot."""
    claims = (c for c in spec.get("resourceClaims") or () if c["name"] == CLAIM)
    if (claim := next((c.get("resourceClaimName") for c in claims), None)) is not None:
        return frozenset({("claim", namespace, claim)})
    containers = (c for c in spec.get("containers") or [] if c["name"] == ENGINE_CONTAINER)
    env = {v["name"]: v.get("value") or "" for c in containers for v in c.get("env") or ()}
    if START_GATE_ENV not in env or (node := spec.get("nodeName")) is None:
        return frozenset()
    return frozenset(("device", node, device) for device in env.get(VISIBLE, "").split(",") if device)


def _arguments(spec: Mapping[str, Any]) -> str | None:
    engine = next((c for c in spec.get("containers") or [] if c["name"] == ENGINE_CONTAINER), None)
    if engine is None:
        return None
    ours = [v for v in engine.get("env") or [] if not v["name"].startswith(("GENRM_", "NVIDIA_VISIBLE_DEVICES"))]
    words = json.dumps([engine.get("command"), engine.get("args"), ours], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _told(spec: Mapping[str, Any], flag: str) -> str | None:
    """What follows this flag in the engine's arguments; in them a text's `$(` is `$$(`."""
    args = next((c.get("args") or [] for c in spec.get("containers") or [] if c["name"] == ENGINE_CONTAINER), [])
    value = next((value for word, value in itertools.pairwise(args) if word == flag), None)
    return None if value is None else str(value).replace("$$(", "$(")


def stand_in(pod: Pod, asleep: bool | None, *, inside: int = 0, shut: DoorState | None = None) -> Door:
    """What a door would say, of an engine that has hooks and no door. `asleep` as `Door.engine_asleep`.

    Nothing closes the way to such an engine, so it is open while it is awake and the operator has begun nothing with
    it: `shut` says what it has, `DRAINING` or, once the engine was given an order, `CLOSED`. The boot id is the
    container's: one that started again is another, and whoever asks for it has asked the new one. An engine that did
    not answer keeps its place if it had one in this boot, and gets none if it had not.
    """
    boot_id = f"{pod.uid}.{pod.restarts}"
    if asleep:
        state = DoorState.ASLEEP
    elif shut is not None:
        state = shut
    elif asleep is False or (pod.serving and pod.labelled_boot_id == boot_id):
        state = DoorState.SERVING
    else:
        state = DoorState.CLOSED
    return Door(state, inside, boot_id, asleep)


@dataclass(frozen=True, slots=True)
class SidePod:
    """A pod that is not asked for scores itself: of a router, or a worker of an engine that spans nodes.

    `ready` is the kubelet's word.
    """

    namespace: str
    name: str
    uid: str
    reward_model: str
    ip: str | None
    ready: bool
    deleting: bool
    trouble: Trouble | None

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Self:
        meta, status = obj["metadata"], obj.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            reward_model=(meta.get("labels") or {}).get(LABEL_REWARD_MODEL, ""),
            ip=status.get("podIP"),
            ready=ready,
            deleting=bool(meta.get("deletionTimestamp")),
            trouble=trouble.of_pod(obj),
        )
