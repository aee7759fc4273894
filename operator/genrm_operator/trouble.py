"""Why an engine does not run, from what the kubelet, the scheduler and the Deployment's controller say of it: pure.

What changes with every try (a back-off that grows, a pod's generated name) is left out: the same trouble is the same
sentence, so that a crash loop writes no status in a loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LAST_WORDS_CHARACTERS: Final = 800


@dataclass(frozen=True, slots=True)
class Trouble:
    """`reason` is one word for programs, `message` a sentence for people."""

    reason: str
    message: str


_WAITING: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(
        ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        ("ImagePullFailed", "correct spec.engine.image, or name the registry's Secret in spec.imagePullSecrets"),
    ),
    **dict.fromkeys(
        ("CreateContainerConfigError", "CreateContainerError"),
        ("ContainerConfigError", "make the object that is missing, or correct the field that names it"),
    ),
    **dict.fromkeys(("RunContainerError", "StartError"), ("ContainerStartFailed", "correct spec.engine or the image")),
}
"""The kubelet's reason why a container waits → our reason, and what to do."""


def of_pod(obj: Mapping[str, Any]) -> Trouble | None:
    """What keeps this pod from running; `None` while all is well or still on its way."""
    status = obj.get("status") or {}
    if status.get("phase") == "Failed":
        return Trouble("PodFailed", ": ".join(word for word in (status.get("reason"), status.get("message")) if word))
    for container in status.get("containerStatuses") or []:
        if (found := _of_container(container)) is not None:
            return found
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or []
    scheduled = next((c for c in conditions if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False":
        return Trouble("Unschedulable", str(scheduled.get("message") or scheduled.get("reason")))
    return None


def _of_container(container: Mapping[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    if (known := _WAITING.get(waiting.get("reason", ""))) is not None:
        reason, advice = known
        return Trouble(reason, f"{_steady(waiting.get('message') or waiting['reason'])}; {advice}")
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended and not container.get("started"):  # an engine that came up again is well again
        return _crash(ended)
    return None


def _crash(ended: Mapping[str, Any]) -> Trouble:
    last_words = str(ended.get("message") or "").strip()[-LAST_WORDS_CHARACTERS:]
    if ended.get("reason") == "OOMKilled":
        return Trouble("OutOfMemory", "the engine was killed for memory; raise spec.resources.limits.memory")
    said = f"; its last words: {last_words}" if last_words else " and said nothing"
    return Trouble("EngineCrashed", f"the engine ended with exit code {ended.get('exitCode')}{said}")


def _steady(message: str) -> str:
    """An image that cannot be pulled alternates between the error and a back-off that quotes it."""
    return message.partition('": ErrImagePull: ')[2] or message


def of_deployment(obj: Mapping[str, Any]) -> Trouble | None:
    """Why no pod comes into being: a quota, a missing service account, a policy of the namespace."""
    conditions: Sequence[Mapping[str, Any]] = (obj.get("status") or {}).get("conditions") or []
    refused = next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)
    if refused is None:
        return None
    _pod_name, found, why = str(refused.get("message", "")).partition(" is forbidden: ")
    return Trouble("PodsRefused", f"the cluster refuses the engine pods: {why if found else refused.get('message')}")
