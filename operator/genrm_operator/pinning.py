"""Which weights a model's pods serve: the same for all of them, for as long as `spec.model` says the same. Pure.

A branch of the hub moves. The first pod to start asks what it is and says so in its door's document; that becomes
`status.resolvedRevision`, and a ConfigMap, the *pin*, that pods find mounted at every later start. The ConfigMap is
named by what was asked for, so a change of `spec.model` begins anew, while pods of before keep theirs. It is mounted as
an optional one from the beginning: writing it later changes no template and replaces no pod.

Two pods may look at the same time, while the branch moves: the one that differs from the pin is *astray*. It is never
verified. A pod that asked the hub is deleted, and the next one finds the pin. A folder cannot be told to be another
one, so a pod that reads other files stays as it is, and the condition Degraded says what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from genrm_api.effective import effective_spec
from genrm_api.engine import EngineName
from genrm_api.lifecycle import LifecycleState, SleepMode
from genrm_api.model import COMMIT_PATTERN
from genrm_api.names import pin_configmap_name
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason
from genrm_api.values import amount

from genrm_operator.observed import Pod, Weights
from genrm_operator.replacing import MOST_REPLACED, REPLACED_SECONDS
from genrm_operator.trouble import Trouble

PIN_FILE: Final = "weights.json"
"""As the launcher looks for it (docs/reference/door.md)."""

ENGINE_BYTES: Final = 4 << 30
"""Of host memory, for an engine beside its weights: Python, CUDA's own, buffers, /dev/shm. A round number, no measured
one."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What all pods serve. `model` is what was asked for, `bytes` the size of the weights if anybody knows it."""

    model: str
    revision: str
    bytes: int | None = None

    def text(self) -> str:
        return json.dumps({"revision": self.revision, "bytes": self.bytes}, separators=(",", ":"))


def asked_for(rm: RewardModel) -> str:
    """The weights as the spec names them: what a pin is for."""
    weights = rm.spec.model
    return weights.uri if (revision := weights.effective_revision) is None else f"{weights.uri}@{revision}"


def config_map(rm: RewardModel) -> str:
    """Name of the ConfigMap that a pod of this spec mounts."""
    return pin_configmap_name(rm.name, hashlib.sha256(asked_for(rm).encode()).hexdigest())


def written(rm: RewardModel) -> Pin | None:
    """The pin that the status holds, or the spec itself by naming a commit."""
    if not _is_told(rm):
        return None
    model, status = asked_for(rm), rm.status
    if status is not None and status.resolved_revision is not None and status.resolved_model == model:
        return Pin(model, status.resolved_revision, status.weight_bytes)
    revision = rm.spec.model.revision
    return Pin(model, revision) if revision is not None and re.fullmatch(COMMIT_PATTERN, revision) else None


def settle(rm: RewardModel, pods: Sequence[Pod]) -> Pin | None:
    """The pin from now on: the written one, else what the pods say. A pod that was verified comes first."""
    if not _is_told(rm):
        return None
    said = [
        pod.door.weights
        for pod in sorted(pods, key=lambda pod: (pod.verified_boot_id is None, pod.name))
        if pod.door is not None and pod.door.weights is not None and _has_a_say(rm, pod)
    ]
    pin = written(rm)
    if pin is None or (_of_a_folder(rm) and not pods and _switched_off(rm)):
        known = (weights for weights in said if _names_weights(rm, weights.revision))
        first = next(known, None)
        return None if first is None else Pin(asked_for(rm), str(first.revision), first.bytes)
    if pin.bytes is None:
        sizes = (weights.bytes for weights in said if weights.revision == pin.revision)
        return dataclasses.replace(pin, bytes=next((size for size in sizes if size is not None), None))
    return pin


def judge(rm: RewardModel, pods: Sequence[Pod], pin: Pin | None) -> list[Pod]:
    """The pods, with a word on those that must not serve because they started with other weights."""
    if pin is None:
        return list(pods)
    return [
        dataclasses.replace(pod, astray=True, trouble=_trouble(rm, pod, pin)) if _is_astray(rm, pod, pin) else pod
        for pod in pods
    ]


def to_delete(rm: RewardModel, pods: Sequence[Pod], maps: Collection[str]) -> list[Pod]:
    """The astray pods whose successors would find the pin.

    Args:
        maps: the ConfigMaps that exist: without the pin a successor would go astray like its predecessor.
    """
    if _of_a_folder(rm) or config_map(rm) not in maps:
        return []
    return sorted((pod for pod in pods if pod.astray and not pod.deleting), key=lambda pod: pod.name)


def host_memory(rm: RewardModel, pin: Pin | None) -> Trouble | None:
    """Why the pod may be killed when it sleeps: at level 1 the weights move to host memory, and stay there for good.

    Only said where there are GPUs: without them the weights are there from the start, asleep or awake.
    """
    asked = rm.spec.resources
    limit = asked.limits.memory if asked is not None and asked.limits is not None else None
    if pin is None or pin.bytes is None or limit is None or amount(limit) >= (needed := host_memory_bytes(pin.bytes)):
        return None
    effective = effective_spec(rm)
    lives = effective.lifecycle
    sleeps = lives.sleep_mode is SleepMode.ENGINE and lives.sleep_level == 1 and lives.state is not LifecycleState.AWAKE
    if not effective.gpus or not sleeps:
        return None
    return Trouble(
        Reason.HOST_MEMORY_TOO_SMALL,
        f"spec.resources.limits.memory: {limit} is less than a model asleep at level 1 needs: its weights of "
        f"{_gib(pin.bytes)} stay in host memory; write {_gib(needed)} or more, or spec.lifecycle.sleep.mode: None",
    )


def host_memory_bytes(weights: int) -> int:
    """What a pod needs whose weights are in host memory: they, a tenth more, and the engine itself."""
    return weights + weights // 10 + ENGINE_BYTES


def _gib(size: int) -> str:
    return f"{-(-size // (1 << 30))}Gi"


def node_folder(rm: RewardModel) -> str | None:
    """What a folder of the node means for the namespace; `None` for every other model."""
    if rm.spec.is_external or not rm.spec.model.uri.startswith("file://"):
        return None
    return (
        f"spec.model.uri: {rm.spec.model.uri} is a hostPath volume, so this namespace cannot enforce the Pod Security "
        'profile "restricted" or "baseline"; write pvc:// or hf:// where it has to'
    )


def _is_told(rm: RewardModel) -> bool:
    """Whether a launcher of ours starts the engine."""
    return not rm.spec.is_external and rm.spec.engine.name is not EngineName.CUSTOM


def _of_a_folder(rm: RewardModel) -> bool:
    return not rm.spec.model.uri.startswith("hf://")


def _switched_off(rm: RewardModel) -> bool:
    return rm.spec.replicas == 0 or rm.spec.lifecycle.state is LifecycleState.OFF


def _names_weights(rm: RewardModel, revision: str | None) -> bool:
    pattern = r"sha256:[0-9a-f]{64}" if _of_a_folder(rm) else COMMIT_PATTERN
    return revision is not None and re.fullmatch(pattern, revision) is not None


def _has_a_say(rm: RewardModel, pod: Pod) -> bool:
    """Whether it was made for the weights that the spec asks for now, and not for those of before a change."""
    return not pod.deleting and pod.pin_map == config_map(rm)


def _is_astray(rm: RewardModel, pod: Pod, pin: Pin) -> bool:
    weights: Weights | None = None if pod.door is None else pod.door.weights
    if weights is None or not _has_a_say(rm, pod) or (weights.revision is None and _of_a_folder(rm)):
        return False
    return weights.revision != pin.revision


def _trouble(rm: RewardModel, pod: Pod, pin: Pin) -> Trouble:
    assert pod.door is not None and pod.door.weights is not None
    found = pod.door.weights.revision
    if _of_a_folder(rm):
        why = (
            f"reads other files ({found}) than the first pod did ({pin.revision}), and does not serve; put the same "
            "ones everywhere, or, if the new ones are right, write spec.lifecycle.state: Off and then what it was"
        )
    else:
        ours = found or "a revision that it could not find out"
        why = (
            f"started with {ours}, and the model is {pin.revision} (status.resolvedRevision): the branch moved, or the "
            f"hub was away; it does not serve and is replaced, at most {MOST_REPLACED} times in "
            f"{REPLACED_SECONDS / 60:.0f} minutes; write a commit in spec.model.revision to be rid of it"
        )
    return Trouble(Reason.WEIGHTS_DIFFER, why)


def manifest_data(rm: RewardModel) -> dict[str, str] | None:
    """What the ConfigMap holds; `None` before anybody knows."""
    pin = written(rm)
    return None if pin is None else {PIN_FILE: pin.text()}
