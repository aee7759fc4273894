"""The objects that a RewardModel becomes: pure, from the spec to manifests.

Every manifest is complete in what we own of it and is applied by server-side apply, owned by the RewardModel, so that
deletion is garbage collection and works while the operator is down. `pod` makes the engine pod, `overlay` lays the
user's podTemplate over it, `placement` puts it on a slot's GPUs, `nodes` spreads it over nodes, `guards` makes what
protects running pods: who may reach them, and how many may be evicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from genrm_api.effective import EffectiveSpec, effective_spec
from genrm_api.lifecycle import RoutingMode
from genrm_api.names import (
    ENGINE_PORT,
    ENGINE_PORT_NAME,
    LABEL_SERVING,
    LABEL_SLOT,
    deployment_name,
    door_configmap_name,
    engine_selector,
    headless_service_name,
    service_name,
    slot_deployment_name,
)
from genrm_api.rewardmodel import RewardModel, Sharing, Slot

from genrm_operator import pinning, surging
from genrm_operator.children.guards import (
    disruption_budget,
    network_policy,
    router_network_policy,
    worker_network_policy,
)
from genrm_operator.children.metadata import metadata
from genrm_operator.children.nodes import leader_worker_set, worker_template
from genrm_operator.children.placement import in_slot
from genrm_operator.children.pod import pod_template
from genrm_operator.children.router import router
from genrm_operator.door_source import ARCHIVE_NAME, DoorSource
from genrm_operator.engines import Adapter
from genrm_operator.not_yet import refuse_gaps
from genrm_operator.scaling import ANNOTATION_REPLICAS
from genrm_operator.settings import Settings

JOIN_SECONDS: Final = 2
"""For an engine without a door, and so without a readiness gate: from when it lives until it counts as a replacement of
another one. The operator labels it meanwhile."""


def children(
    rm: RewardModel, adapter: Adapter, door: DoorSource, settings: Settings, *, may_run: bool = True
) -> list[dict[str, Any]]:
    """All child manifests, in the order in which they are applied: what a pod needs before the pods.

    `may_run` false: all but the engine pods.

    Raises:
        Impossible: the engine or this operator cannot do what the spec asks for, or the pod template takes what is not
            its own.
    """
    effective = effective_spec(rm)
    refuse_gaps(rm)
    if not effective.has_pods:
        return []
    template = pod_template(rm, effective, adapter, door, settings)
    made = [
        network_policy(rm, effective, settings.pod_namespace),
        disruption_budget(rm, effective),
        *_engines(rm, effective, template, adapter, settings, effective.replicas if may_run else 0),
        _service(rm),
        _headless_service(rm),
    ]
    routed = rm.spec.routing.mode is RoutingMode.ROUTER
    if routed:
        made += [router_network_policy(rm, effective, settings.pod_namespace), *router(rm, door, settings)]
    if adapter.has_door or routed:
        made.insert(0, _door_configmap(rm, door))
    if adapter.has_door and (data := pinning.manifest_data(rm)) is not None:
        made.insert(0, _pin_configmap(rm, data))
    return made


def _door_configmap(rm: RewardModel, door: DoorSource) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(rm, door_configmap_name(rm.name, door.digest)),
        "immutable": True,
        "binaryData": {ARCHIVE_NAME: door.encoded},
    }


def _pin_configmap(rm: RewardModel, data: dict[str, str]) -> dict[str, Any]:
    meta = metadata(rm, pinning.config_map(rm))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _service(rm: RewardModel) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(rm, service_name(rm.name)),
        "spec": {
            "selector": engine_selector(rm.name) | {LABEL_SERVING: "true"},
            "ports": [{"name": ENGINE_PORT_NAME, "port": 80, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}],
        },
    }


def _headless_service(rm: RewardModel) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(rm, headless_service_name(rm.name)),
        "spec": {
            "clusterIP": "None",
            "selector": engine_selector(rm.name) | {LABEL_SERVING: "true"},
            "ports": [
                {"name": ENGINE_PORT_NAME, "port": ENGINE_PORT, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def _engines(
    rm: RewardModel,
    effective: EffectiveSpec,
    template: dict[str, Any],
    adapter: Adapter,
    settings: Settings,
    count: int,
) -> list[dict[str, Any]]:
    """What makes `count` engine pods: one Deployment, one for each slot, or a LeaderWorkerSet."""
    if effective.nodes > 1:
        worker = worker_template(rm, effective, adapter, settings)
        return [
            worker_network_policy(rm),
            leader_worker_set(rm, effective, template, worker, count),
        ]
    if effective.slots:
        return [_slot_deployment(rm, slot, effective.sharing, template, min(count, 1)) for slot in effective.slots]
    spec = {
        "replicas": count,
        "selector": {"matchLabels": engine_selector(rm.name)},
        "template": template,
        "strategy": surging.strategy(effective),
    }
    if not adapter.has_door:
        spec["minReadySeconds"] = JOIN_SECONDS
    return [_deployment(rm, deployment_name(rm.name), spec, {ANNOTATION_REPLICAS: str(count)})]


def _slot_deployment(
    rm: RewardModel, slot: Slot, sharing: Sharing, template: dict[str, Any], count: int
) -> dict[str, Any]:
    spec = {
        "replicas": count,
        "selector": {"matchLabels": engine_selector(rm.name) | {LABEL_SLOT: slot.name}},
        "template": in_slot(template, slot, sharing),
        # A rolling update makes the new pod while the old one still ends, and here both would have the same GPUs.
        "strategy": {"type": "Recreate"},
    }
    return _deployment(rm, slot_deployment_name(rm.name, slot.name), spec)


def _deployment(
    rm: RewardModel, name: str, spec: dict[str, Any], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    meta = metadata(rm, name, annotations)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
