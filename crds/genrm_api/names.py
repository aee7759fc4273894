"""Labels, annotations, ports and child names: what two programs must spell alike to find each other."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "genrm.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "genrm.dev/v1alpha1"
REWARD_MODELS: Final = "rewardmodels"
REWARD_FLEETS: Final = "rewardfleets"

LABEL_REWARD_MODEL: Final = f"{GROUP}/reward-model"
"""On every child, pod and Lease of a RewardModel; the value is its name."""
LABEL_SERVING: Final = f"{GROUP}/serving"
"""`"true"` on a pod only while its engine is verified awake. Services select on it."""
LABEL_COMPONENT: Final = f"{GROUP}/component"
COMPONENT_ENGINE: Final = "engine"
COMPONENT_ROUTER: Final = "router"
COMPONENT_WORKER: Final = "worker"
"""On a pod that holds a part of an engine that spans nodes, and answers nobody: the engine pod leads it."""
LABEL_SLOT: Final = f"{GROUP}/slot"
"""On an engine pod: the slot of `spec.gpu.slots` whose GPUs it has. On a Lease: the run wants these GPUs for itself."""
SEVERAL_SLOTS: Final = "several_slots"
"""What `LABEL_SLOT` says on a Lease for more than one, which `ANNOTATION_SLOTS` names. No slot can be called so: who
reads only the label refuses the Lease, and does not give a part of what it wants."""

ANNOTATION_BOOT_ID: Final = f"{GROUP}/boot-id"
"""On a serving pod: the boot id of the door that was verified. With another boot id the label means nothing."""
ANNOTATION_REVISION: Final = f"{GROUP}/revision"
"""On an engine pod: what its answers are stamped with."""
ANNOTATION_RELEASED: Final = f"{GROUP}/released"
"""On the pod of a slot: the boot id of the door that was let past its start gate last. Written before it is."""
CONDITION_VERIFIED: Final = f"{GROUP}/verified"
"""A pod's readiness gate: true once it was verified and is where it is wanted, awake or asleep; its message is the boot
id that was verified."""
ANNOTATION_LABELLED: Final = f"{GROUP}/labelled"
"""On a Service of a RewardModel with several pods: when the operator touched it last, so that its
EndpointSlices are written again."""
ANNOTATION_PHASE: Final = f"{GROUP}/phase"
"""On a Lease: what the run needs, one of `leases.Phase`."""
ANNOTATION_NEEDED_IN: Final = f"{GROUP}/needed-in-seconds"
"""On a Lease in phase `prewake`: in how many seconds from this write the engines must be awake. Absent: now."""
ANNOTATION_RUN: Final = f"{GROUP}/run"
ANNOTATION_CREATED_BY: Final = f"{GROUP}/created-by"
"""On a Lease: the user that created it, as the API server knows them. The chart's admission policies hold to it."""
ANNOTATION_GRANTED: Final = f"{GROUP}/granted"
"""On a Lease, written by the operator: since when every replica serves for it, as `leases.Grant`; absent while not. On
one for a slot's GPUs: what `ANNOTATION_ASKED` says, so that no answer to an earlier wish is taken for one."""
ANNOTATION_ASKED: Final = f"{GROUP}/asked"
"""On a Lease for a slot's GPUs: a word that is new with each wish for them."""
ANNOTATION_SLOTS: Final = f"{GROUP}/slots"
"""On a Lease for the GPUs of several slots: their names, with commas. It is given all of them at once, or none."""
ANNOTATION_PODS: Final = f"{GROUP}/pods"
"""On a Lease for a slot's GPUs: names of pods, with commas, whose processes have memory there while it is granted."""
ANNOTATION_REFUSED: Final = f"{GROUP}/refused"
"""On a Lease, written by the operator: why what it asks for can never be, a sentence; absent while it can."""
ANNOTATION_EXPIRED: Final = f"{GROUP}/expired"
"""On a Lease, written by the operator: the `renewTime` after which none came for a TTL. As long as these are the same
it has expired for every operator that comes after, too."""
ANNOTATION_PRIORITY: Final = f"{GROUP}/priority"
"""On a Lease: an integer, 0 if absent; of those who wait for the same GPUs the larger comes first."""

FIELD_MANAGER: Final = "genrm-operator"
ENGINE_PORT: Final = 8000
ENGINE_PORT_NAME: Final = "http"

DOOR_PATH: Final = "/genrm/door"
ROUTER_PATH: Final = "/genrm/router"
WARDEN_PORT: Final = 8001
"""Of a router pod: where the operator says who its workers are."""
HEADER_REVISION: Final = "genrm-revision"
HEADER_BOOT_ID: Final = "genrm-boot-id"
HEADER_EPOCH: Final = "genrm-epoch"

_HEADLESS_SUFFIX: Final = "-pods"
_ROUTER_SUFFIX: Final = "-router"
_NODES_SUFFIX: Final = "-nodes"
CHILD_SUFFIXES: Final = {
    _HEADLESS_SUFFIX: "headless Service",
    _ROUTER_SUFFIX: "router",
    _NODES_SUFFIX: "set of nodes",
}
"""What a child's name has behind its RewardModel's, and which child it is. A RewardModel may not be called so itself:
its Service and Deployment have its bare name. (The door's ConfigMap meets only other ConfigMaps.)"""


def engine_selector(reward_model: str) -> dict[str, str]:
    """Labels that select every engine pod of one RewardModel, asleep or not."""
    return {LABEL_REWARD_MODEL: reward_model, LABEL_COMPONENT: COMPONENT_ENGINE}


def router_selector(reward_model: str) -> dict[str, str]:
    """Labels that select the router pods of one RewardModel."""
    return {LABEL_REWARD_MODEL: reward_model, LABEL_COMPONENT: COMPONENT_ROUTER}


def worker_selector(reward_model: str) -> dict[str, str]:
    """Labels that select the pods which hold the other parts of engines that span nodes."""
    return {LABEL_REWARD_MODEL: reward_model, LABEL_COMPONENT: COMPONENT_WORKER}


def router_name(reward_model: str) -> str:
    """Deployment and Service of the router."""
    return reward_model + _ROUTER_SUFFIX


def service_name(reward_model: str) -> str:
    """The Service that clients outside our plugins use: one virtual address, serving pods only."""
    return reward_model


def headless_service_name(reward_model: str) -> str:
    """The headless Service whose EndpointSlices name the serving pods one by one; discovery watches these."""
    return reward_model + _HEADLESS_SUFFIX


def deployment_name(reward_model: str) -> str:
    return reward_model


def slot_deployment_name(reward_model: str, slot: str) -> str:
    """The Deployment of one slot's pod.

    The hash is always there: without it slot `router` would be the router, and slot `b` of model `a` the model `a-b`.
    """
    digest = hashlib.sha256(f"{reward_model}/{slot}".encode()).hexdigest()[:8]
    return f"{f'{reward_model}-{slot}'[:SLOT_STEM_CHARACTERS].rstrip('-')}-{digest}"


SLOT_STEM_CHARACTERS: Final = 43
"""With the hash 52 characters, which is what a Deployment's name may have if its pods are to be called by all of it."""


def leader_worker_set_name(reward_model: str) -> str:
    """Not the model's own name: LeaderWorkerSet makes a headless Service of the name that it is given."""
    return reward_model + _NODES_SUFFIX


def pin_configmap_name(reward_model: str, digest: str) -> str:
    """Says which weights every start of an engine uses. A template that runs names it, so that this may not change."""
    return f"{reward_model}-weights-{digest[:10]}"


def golden_configmap_name(reward_model: str) -> str:
    """What engines computed of a few fixed texts: those that compute something else do not serve."""
    return f"{reward_model}-golden-rows"


def door_configmap_name(reward_model: str, digest: str) -> str:
    return f"{reward_model}-door-{digest[:10]}"
