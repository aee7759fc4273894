"""The objects that a RewardModel becomes: pure, from the spec to manifests.

Every manifest is complete in what we own of it and is applied by server-side apply, owned by the RewardModel, so that
deletion is garbage collection and works while the operator is down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from genrm_api.names import (
    API_VERSION,
    ENGINE_PORT,
    ENGINE_PORT_NAME,
    GROUP,
    LABEL_REWARD_MODEL,
    LABEL_SERVING,
    deployment_name,
    door_configmap_name,
    engine_selector,
    headless_service_name,
    service_name,
)
from genrm_api.rewardmodel import LifecycleState, RewardModel

from genrm_operator.door_source import DoorSource
from genrm_operator.engines import Adapter, Container
from genrm_operator.engines.vllm import CACHE_MOUNT, DOOR_MOUNT
from genrm_operator.settings import Settings
from genrm_operator.tokens import admin_token, token_digest

STARTUP_DEADLINE_SECONDS: Final = 1800
"""Weights of a large model take many minutes to load; a dead engine is noticed by its exit, not by this."""


def children(rm: RewardModel, adapter: Adapter, door: DoorSource, settings: Settings) -> list[dict[str, Any]]:
    """All child manifests, in the order in which they are applied.

    Raises:
        Impossible: the engine cannot do what the spec asks for.
    """
    container = adapter.container(rm, settings)
    made = [_deployment(rm, adapter, container, door, settings), _service(rm), _headless_service(rm)]
    if adapter.has_door:
        made.insert(0, _door_configmap(rm, door))
    return made


def revision(template: Mapping[str, Any]) -> str:
    """Name of what a pod template runs, stamped on every answer: equal templates, equal revision."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def _metadata(rm: RewardModel, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": rm.namespace,
        "labels": {
            LABEL_REWARD_MODEL: rm.name,
            "app.kubernetes.io/name": "reward-model",
            "app.kubernetes.io/instance": rm.name,
            "app.kubernetes.io/managed-by": "genrm-operator",
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "RewardModel",
                "name": rm.name,
                "uid": rm.metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def _door_configmap(rm: RewardModel, door: DoorSource) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(rm, door_configmap_name(rm.name, door.digest)),
        "immutable": True,
        "data": dict(door.files),
    }


def _service(rm: RewardModel) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(rm, service_name(rm.name)),
        "spec": {
            "selector": engine_selector(rm.name) | {LABEL_SERVING: "true"},
            "ports": [{"name": ENGINE_PORT_NAME, "port": 80, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}],
        },
    }


def _headless_service(rm: RewardModel) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(rm, headless_service_name(rm.name)),
        "spec": {
            "clusterIP": "None",
            "selector": engine_selector(rm.name) | {LABEL_SERVING: "true"},
            "ports": [
                {"name": ENGINE_PORT_NAME, "port": ENGINE_PORT, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def _deployment(
    rm: RewardModel, adapter: Adapter, container: Container, door: DoorSource, settings: Settings
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(rm, deployment_name(rm.name)),
        "spec": {
            "replicas": 0 if rm.spec.lifecycle.state is LifecycleState.OFF else rm.spec.replicas,
            "selector": {"matchLabels": engine_selector(rm.name)},
            "template": _template(rm, adapter, container, door, settings),
        },
    }


def _template(
    rm: RewardModel, adapter: Adapter, container: Container, door: DoorSource, settings: Settings
) -> dict[str, Any]:
    env = dict(container.env) | {variable.name: variable.value for variable in rm.spec.env or ()}
    volumes = [
        {"name": "cache", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        *container.volumes,
    ]
    mounts = [
        {"name": "cache", "mountPath": CACHE_MOUNT},
        {"name": "shm", "mountPath": "/dev/shm"},
        *container.mounts,
    ]
    if adapter.has_door:
        token = admin_token(settings.master_key, rm.namespace, rm.name, rm.metadata["uid"])
        env |= {"GENRM_ENGINE": str(rm.spec.engine.name), "GENRM_TOKEN_SHA256": token_digest(token)}
        volumes.append({"name": "door", "configMap": {"name": door_configmap_name(rm.name, door.digest)}})
        mounts.append({"name": "door", "mountPath": f"{DOOR_MOUNT}/genrm_door", "readOnly": True})
    health = {"httpGet": {"path": container.health_path, "port": ENGINE_PORT_NAME}}
    template: dict[str, Any] = {
        "metadata": {"labels": engine_selector(rm.name)},
        "spec": {
            "enableServiceLinks": False,  # a Service called "vllm" would set VLLM_PORT=tcp://… and vLLM dies of it
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "engine",
                    "image": container.image,
                    "command": list(container.command),
                    "args": list(container.args),
                    "env": [{"name": name, "value": value} for name, value in env.items()],
                    "ports": [{"name": ENGINE_PORT_NAME, "containerPort": ENGINE_PORT, "protocol": "TCP"}],
                    "resources": _resources(rm),
                    # Probes ask whether the engine lives; a sleeping engine lives.
                    "startupProbe": health
                    | {"periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": STARTUP_DEADLINE_SECONDS},
                    "readinessProbe": health | {"periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3},
                    "livenessProbe": health | {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
                    "volumeMounts": mounts,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
            "volumes": volumes,
        },
    }
    stamp = revision(template)
    template["metadata"]["annotations"] = {f"{GROUP}/revision": stamp}
    if adapter.has_door:
        template["spec"]["containers"][0]["env"].append({"name": "GENRM_REVISION", "value": stamp})
    return template


def _resources(rm: RewardModel) -> dict[str, Any]:
    asked = rm.spec.resources
    out: dict[str, dict[str, str]] = {
        "requests": {str(name): amount for name, amount in ((asked and asked.requests) or {}).items()},
        "limits": {str(name): amount for name, amount in ((asked and asked.limits) or {}).items()},
    }
    if rm.spec.gpu is not None:
        out["limits"][rm.spec.gpu.resource] = str(rm.spec.engine.tensor_parallel)
    return {kind: amounts for kind, amounts in out.items() if amounts}


def keys(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(kind, name) of every manifest."""
    for manifest in manifests:
        yield manifest["kind"], manifest["metadata"]["name"]
