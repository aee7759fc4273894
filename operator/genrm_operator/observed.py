"""What the operator sees, as values: projections of API objects and the doors' own words.

The decisions (`demand`, `lifecycle`, `status`) read these and nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genrm_api.names import ANNOTATION_BOOT_ID, LABEL_REWARD_MODEL, LABEL_SERVING


class DoorState(enum.StrEnum):
    CLOSED = "closed"
    SERVING = "serving"
    DRAINING = "draining"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class Door:
    """The document of `GET /genrm/door`. `engine_asleep` is the engine's own word, `None` if it gave none."""

    state: DoorState
    inside: int
    boot_id: str
    engine_asleep: bool | None
    version: str | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Door:
        return cls(
            state=DoorState(document["state"]),
            inside=int(document["inside"]),
            boot_id=str(document["bootId"]),
            engine_asleep=document.get("asleep"),
        )


class Transition(enum.StrEnum):
    """What is being done to a pod right now."""

    WAKE = "wake"
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Pod:
    """One engine pod. `ready` is the kubelet's word that the engine lives; `serving` is our label."""

    namespace: str
    name: str
    uid: str
    reward_model: str
    ip: str | None
    ready: bool
    deleting: bool
    serving: bool
    labelled_boot_id: str | None
    restarts: int
    trouble: str | None
    """Why the container does not run, in the kubelet's and the engine's last words; `None` while all is well."""
    door: Door | None = None
    busy: Transition | None = None
    retry_at: float = 0.0
    """Monotonic seconds before which a failed transition is not tried again."""

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Pod:
        meta, status = obj["metadata"], obj.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        containers = status.get("containerStatuses") or []
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            reward_model=labels.get(LABEL_REWARD_MODEL, ""),
            ip=status.get("podIP"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            deleting=bool(meta.get("deletionTimestamp")),
            serving=labels.get(LABEL_SERVING) == "true",
            labelled_boot_id=annotations.get(ANNOTATION_BOOT_ID),
            restarts=sum(c.get("restartCount", 0) for c in containers),
            trouble=_trouble(containers, conditions),
        )


_WAITING_IS_NORMAL = ("ContainerCreating", "PodInitializing")


def _trouble(containers: list[Mapping[str, Any]], conditions: Mapping[str, Mapping[str, Any]]) -> str | None:
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _WAITING_IS_NORMAL:
            ended = (container.get("lastState") or {}).get("terminated") or {}
            last_words = (ended.get("message") or "").strip()[-800:]
            words = [waiting["reason"], waiting.get("message") or "", last_words]
            return ": ".join(word for word in words if word)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason')}: {scheduled.get('message')}"
    return None
