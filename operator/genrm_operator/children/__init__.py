"""The objects that a RewardModel becomes: pure, from the spec to manifests.

Every manifest is complete in what we own of it and is applied by server-side apply, owned by the RewardModel, so that
deletion is garbage collection and works while the operator is down. `pod` makes the engine pod, `overlay` lays the
user's podTemplate over it, `guards` makes what protects running pods: who may reach them, and how many may be evicted.
"""

from __future__ import annotations

from typing import Any

from genrm_api.effective import EffectiveSpec, effective_spec
from genrm_api.lifecycle import RoutingMode
from genrm_api.names import (
    ENGINE_PORT,
    ENGINE_PORT_NAME,
    LABEL_SERVING,
    deployment_name,
    door_configmap_name,
    engine_selector,
    headless_service_name,
    service_name,
)
from genrm_api.rewardmodel import RewardModel

from genrm_operator import pinning
from genrm_operator.children.guards import disruption_budget, network_policy, router_network_policy
from genrm_operator.children.metadata import metadata
from genrm_operator.children.pod import pod_template
from genrm_operator.children.router import router
from genrm_operator.door_source import DoorSource
from genrm_operator.engines import Adapter
from genrm_operator.not_yet import refuse_gaps
from genrm_operator.settings import Settings


def children(rm: RewardModel, adapter: Adapter, door: DoorSource, settings: Settings) -> list[dict[str, Any]]:
    """All child manifests, in the order in which they are applied: what a pod needs before the pods.

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
        disruption_budget(rm),
        _deployment(rm, effective, template),
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
        "data": dict(door.files),
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


def _deployment(rm: RewardModel, effective: EffectiveSpec, template: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "replicas": effective.replicas,
        "selector": {"matchLabels": engine_selector(rm.name)},
        "template": template,
    }
    if effective.gpus:
        # A surge pod would wait for a GPU that only the pod it is to replace can give back.
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(rm, deployment_name(rm.name)),
        "spec": spec,
    }
