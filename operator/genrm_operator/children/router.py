"""The router of `routing.mode: Router`: a Deployment of stock sglang-router, and the Service that leads to it.

It has no part in waking: it knows the pods that serve (`genrm_operator.routers`), and answers 503 while there are none.
"""

from __future__ import annotations

from typing import Any, Final

from genrm_api.names import (
    ENGINE_PORT,
    ENGINE_PORT_NAME,
    WARDEN_PORT,
    door_configmap_name,
    router_name,
    router_selector,
)
from genrm_api.rewardmodel import RewardModel

from genrm_operator.children.metadata import metadata
from genrm_operator.children.security import container_security, pod_security
from genrm_operator.door_source import DoorSource
from genrm_operator.engines.adapter import DOOR, DOOR_FOLDER
from genrm_operator.settings import Settings
from genrm_operator.tokens import router_token, token_digest

METRICS_PORT: Final = 29000
"""sglang-router's own default."""


def router(rm: RewardModel, door: DoorSource, settings: Settings) -> list[dict[str, Any]]:
    return [_deployment(rm, door, settings), _service(rm)]


def _deployment(rm: RewardModel, door: DoorSource, settings: Settings) -> dict[str, Any]:
    token = router_token(settings.master_key, rm.namespace, rm.name, rm.metadata["uid"])
    health = {"httpGet": {"path": "/health", "port": WARDEN_PORT}, "timeoutSeconds": 3}
    container = {
        "name": "router",
        "image": settings.router_image,
        "command": [*DOOR, "router"],
        "args": [
            "--port", str(ENGINE_PORT), "--warden-port", str(WARDEN_PORT), "--",
            "--policy", "cache_aware", "--prometheus-port", str(METRICS_PORT),
            # A worker is told to us when it serves already; the default of 30 s between two looks is for loading ones.
            "--worker-startup-check-interval", "1",
        ],
        "env": [{"name": "GENRM_TOKEN_SHA256", "value": token_digest(token)}, {"name": "HOME", "value": "/tmp"}],
        "ports": [
            {"name": ENGINE_PORT_NAME, "containerPort": ENGINE_PORT, "protocol": "TCP"},
            {"name": "warden", "containerPort": WARDEN_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": health | {"periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": health | {"periodSeconds": 2},
        "livenessProbe": health | {"periodSeconds": 10, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security() | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "door", "mountPath": DOOR_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }  # fmt: skip
    template = {
        "metadata": {"labels": router_selector(rm.name)},
        "spec": {
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            "imagePullSecrets": [{"name": secret.name} for secret in rm.spec.image_pull_secrets or ()],
            "containers": [container],
            "volumes": [
                {"name": "door", "configMap": {"name": door_configmap_name(rm.name, door.digest)}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
    spec = {"replicas": 1, "selector": {"matchLabels": router_selector(rm.name)}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(rm, router_name(rm.name)),
        "spec": spec,
    }


def _service(rm: RewardModel) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(rm, router_name(rm.name)),
        "spec": {
            "selector": router_selector(rm.name),
            "ports": [{"name": ENGINE_PORT_NAME, "port": 80, "targetPort": ENGINE_PORT_NAME, "protocol": "TCP"}],
        },
    }
