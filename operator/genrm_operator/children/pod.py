"""The engine pod: what all engines share around the container that an adapter describes.

It fits the Pod Security profile "restricted", with an image that knows nothing of it: the user is a number without a
name, so HOME and every cache are on the cache volume, and USER answers those who ask for a name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from genrm_api import durations
from genrm_api.effective import EffectiveSpec
from genrm_api.lifecycle import SleepMode
from genrm_api.names import (
    ANNOTATION_REVISION,
    CONDITION_VERIFIED,
    ENGINE_PORT,
    ENGINE_PORT_NAME,
    door_configmap_name,
    engine_selector,
)
from genrm_api.rewardmodel import TOKEN_ENV, RewardModel
from genrm_api.status import Reason

from genrm_operator import pinning
from genrm_operator.children.overlay import lay_over
from genrm_operator.children.security import container_security, pod_security
from genrm_operator.door_source import DoorSource
from genrm_operator.engines import Adapter, Container
from genrm_operator.engines.adapter import CACHE_MOUNT, DOOR, DOOR_FOLDER, DOOR_MOUNT
from genrm_operator.errors import Impossible
from genrm_operator.observed import DOOR_VOLUME, ENGINE_CONTAINER, PIN_VOLUME
from genrm_operator.settings import Settings
from genrm_operator.tokens import admin_token, token_digest

RUN_MOUNT: Final = f"{DOOR_MOUNT}/run"
"""Where the launcher leaves the secret of this start of the container for the preStop hook, and for nobody else."""

PIN_MOUNT: Final = f"{DOOR_MOUNT}/pin"
"""Where the launcher finds which weights to use, once the operator knows."""

LINGER_SECONDS: Final = 2
"""For how long a pod that is being deleted still lets clients in: until kube-proxy has heard that it is going."""

SHUTDOWN_SECONDS: Final = 30
"""What the engine itself may take once nobody is inside; Kubernetes' own default."""

_HOME_ENV: Final[Mapping[str, str]] = {
    "HOME": f"{CACHE_MOUNT}/home",
    "USER": "genrm",  # getpass.getuser() has no other way to find a name for a number that /etc/passwd does not know
    "LOGNAME": "genrm",
    "XDG_CACHE_HOME": f"{CACHE_MOUNT}/xdg",
    "HF_HOME": f"{CACHE_MOUNT}/huggingface",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_MOUNT}/torchinductor",
    "TRITON_CACHE_DIR": f"{CACHE_MOUNT}/triton",
}


_ALLOCATOR: Final = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""What PyTorch's allocator is told by: two names for one thing."""


def revision(template: Mapping[str, Any]) -> str:
    """Name of what a pod template runs, stamped on every answer: equal templates, equal revision."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def pod_template(
    rm: RewardModel, effective: EffectiveSpec, adapter: Adapter, door: DoorSource, settings: Settings
) -> dict[str, Any]:
    """The template of the engine pods.

    Raises:
        Impossible: the engine cannot do what the spec asks for, or the overlay takes what is not its own.
    """
    container = adapter.container(rm, settings)
    template = bare_template(rm, effective, container, engine_selector(rm.name))
    (engine,) = template["spec"]["containers"]
    engine["ports"] = [{"name": ENGINE_PORT_NAME, "containerPort": ENGINE_PORT, "protocol": "TCP"}]
    engine |= _probes(container.health_path, effective.startup_timeout)
    if adapter.has_door:
        _put_door(template["spec"], rm, door, settings)
        engine["livenessProbe"] |= {"exec": {"command": _alive_command(effective.startup_timeout)}}
        del engine["livenessProbe"]["httpGet"]
    if rm.spec.pod_template is not None:
        template = lay_over(
            template, rm.spec.pod_template, token_is_typed=rm.spec.model.credentials_secret_ref is not None
        )
    _refuse_processes_of_others(template["spec"], effective)
    engine = next(c for c in template["spec"]["containers"] if c["name"] == ENGINE_CONTAINER)
    if not adapter.capabilities.frees_expandable_segments:
        _refuse_expandable_segments(rm, engine)
    stamp = revision(template)
    template["metadata"].setdefault("annotations", {})[ANNOTATION_REVISION] = stamp
    if adapter.has_door:
        engine["env"].append({"name": "GENRM_REVISION", "value": stamp})
    return template


def _refuse_processes_of_others(spec: Mapping[str, Any], effective: EffectiveSpec) -> None:
    """An engine that goes back to its start gate has to be seen to be gone, and only the first process of a container
    of its own inherits what the engine leaves behind."""
    ends = bool(effective.slots) or effective.lifecycle.sleep_mode is SleepMode.RESTART
    for field in ("shareProcessNamespace", "hostPID"):
        if ends and spec.get(field):
            raise Impossible(
                Reason.POD_TEMPLATE_REFUSED,
                f"spec.podTemplate.spec.{field}: found with an engine that ends to give its GPUs back, whose last "
                "process nobody could be sure of; remove it, or gpu.slots and sleep.mode: Restart",
            )


def _refuse_expandable_segments(rm: RewardModel, engine: Mapping[str, Any]) -> None:
    """As PyTorch reads them, which passes over spaces. Who sees them by one spelling alone would release nothing under
    another, and say that it had."""
    typed = {variable.name: variable.value for variable in rm.spec.env or ()}
    for variable in engine["env"]:
        name, value = variable["name"], variable.get("value")
        if name in _ALLOCATOR and "expandable_segments:true" in "".join(str(value).split()).lower():
            over = f"spec.podTemplate.spec.containers[{ENGINE_CONTAINER}].env"
            raise Impossible(
                Reason.ENVIRONMENT_NOT_SUPPORTED,
                f"{'spec.env' if typed.get(name) == value else over}: {name} turns on expandable_segments, and "
                f"{rm.spec.engine.name} cannot give such memory back; remove it",
            )


def bare_template(
    rm: RewardModel, effective: EffectiveSpec, container: Container, labels: Mapping[str, str]
) -> dict[str, Any]:
    """A pod that runs the container, and that nobody can ask for anything yet."""
    claim = effective.cache_claim
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "enableServiceLinks": False,  # a Service called "vllm" would set VLLM_PORT=tcp://… and vLLM dies of it
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            **_placement(rm),
            "containers": [
                {
                    "name": ENGINE_CONTAINER,
                    "image": container.image,
                    "command": list(container.command),
                    "args": list(container.args),
                    "env": _environment(rm, container),
                    "resources": _resources(rm, effective),
                    "volumeMounts": [
                        {"name": "cache", "mountPath": CACHE_MOUNT},
                        {"name": "shm", "mountPath": "/dev/shm"},
                        *container.mounts,
                    ],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": container_security(),
                }
            ],
            "volumes": [
                {"name": "cache", "persistentVolumeClaim": {"claimName": claim}}
                if claim
                else {"name": "cache", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                *container.volumes,
            ],
        },
    }


def _put_door(pod: dict[str, Any], rm: RewardModel, door: DoorSource, settings: Settings) -> None:
    """In front of the engine, with what it needs to know, to be verified before it serves, and to end in order."""
    (engine,) = pod["containers"]
    token = admin_token(settings.master_key, rm.namespace, rm.name, rm.metadata["uid"])
    told = {"GENRM_ENGINE": str(rm.spec.engine.name), "GENRM_TOKEN_SHA256": token_digest(token)}
    told |= {"GENRM_RUN_DIR": RUN_MOUNT, "GENRM_PIN_DIR": PIN_MOUNT}
    engine["env"] += [{"name": name, "value": value} for name, value in told.items()]
    engine["volumeMounts"].append({"name": DOOR_VOLUME, "mountPath": DOOR_FOLDER, "readOnly": True})
    engine["volumeMounts"].append({"name": PIN_VOLUME, "mountPath": PIN_MOUNT, "readOnly": True})
    engine["volumeMounts"].append({"name": "door-run", "mountPath": RUN_MOUNT})
    engine["lifecycle"] = {"preStop": {"exec": {"command": _drain_command(rm)}}}
    pod["volumes"].append({"name": DOOR_VOLUME, "configMap": {"name": door_configmap_name(rm.name, door.digest)}})
    # Optional: it is written when the first pod has said what it found, and replaces none by that.
    pod["volumes"].append({"name": PIN_VOLUME, "configMap": {"name": pinning.config_map(rm), "optional": True}})
    pod["volumes"].append({"name": "door-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    # Not Ready, and no reason for a rollout to go on, before the operator has seen that its admin routes are shut.
    pod["readinessGates"] = [{"conditionType": CONDITION_VERIFIED}]
    pod["terminationGracePeriodSeconds"] = LINGER_SECONDS + _drain_seconds(rm) + SHUTDOWN_SECONDS


def _placement(rm: RewardModel) -> dict[str, Any]:
    spec = rm.spec
    secrets = [{"name": secret.name} for secret in spec.image_pull_secrets or ()]
    given = {
        # Always there: an apply that leaves it out takes back this field, and not the old name `serviceAccount` that
        # the API server keeps beside it and then believes.
        "serviceAccountName": spec.service_account_name or "default",
        "imagePullSecrets": secrets or None,
        "schedulerName": spec.scheduler_name,
        "priorityClassName": spec.priority_class_name,
    }
    return {name: value for name, value in given.items() if value is not None}


def _environment(rm: RewardModel, container: Container) -> list[dict[str, Any]]:
    """Ours, then the user's over it; the door's names are refused to users. Secrets are named, never read."""
    env: dict[str, dict[str, Any]] = {name: {"value": v} for name, v in {**_HOME_ENV, **container.env}.items()}
    if (credentials := rm.spec.model.credentials_secret_ref) is not None:
        reference = {"name": credentials.name, "key": credentials.key}
        env[TOKEN_ENV] = {"valueFrom": {"secretKeyRef": reference}}
    for variable in rm.spec.env or ():
        env[variable.name] = variable.model_dump(by_alias=True, exclude_none=True, exclude={"name"})
    return [{"name": name, **source} for name, source in env.items()]


def _probes(health_path: str, startup_seconds: float) -> dict[str, Any]:
    """Probes ask whether the engine lives; a sleeping engine lives. A dead one is noticed by its exit."""
    health = {"httpGet": {"path": health_path, "port": ENGINE_PORT_NAME}}
    return {
        "startupProbe": health
        | {"periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": math.ceil(startup_seconds)},
        "readinessProbe": health | {"periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3},
        "livenessProbe": health | {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _drain_seconds(rm: RewardModel) -> int:
    return math.ceil(durations.seconds(rm.spec.lifecycle.sleep.drain_timeout))


def _alive_command(startup_seconds: float) -> list[str]:
    """What the kubelet runs in the engine's container to know whether it lives, or loads after it was let past its
    gate: then the startup probe has had its answer, from the gate."""
    given = {"--port": ENGINE_PORT, "--startup-seconds": math.ceil(startup_seconds)}
    return [*DOOR, "alive", *(str(word) for pair in given.items() for word in pair)]


def _drain_command(rm: RewardModel) -> list[str]:
    """What the kubelet runs in the engine's container before it stops it."""
    given = {"--port": ENGINE_PORT, "--linger": LINGER_SECONDS, "--seconds": _drain_seconds(rm)}
    return [*DOOR, "terminate", *(str(word) for pair in given.items() for word in pair)]


def _resources(rm: RewardModel, effective: EffectiveSpec) -> dict[str, Any]:
    asked = rm.spec.resources
    requests = asked.requests.amounts() if asked and asked.requests else {}
    limits = asked.limits.amounts() if asked and asked.limits else {}
    if effective.gpu_resource is not None:
        limits[effective.gpu_resource] = str(effective.gpus // effective.nodes)
    return {kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts}
