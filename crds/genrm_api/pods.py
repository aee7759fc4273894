"""What a RewardModel may say about its pods: environment, references, resources, and the overlay for all the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, Field, StringConstraints

from genrm_api.names import GROUP
from genrm_api.rules import ApiModel, Rule, quoted, rule
from genrm_api.values import Flag, Quantity, without_nulls

OBJECT_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_NAME_PATTERN, max_length=253)]
"""A DNS-1123 subdomain: the name of a Secret, a claim, a service account."""
DataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=253)]

RESERVED_ENV_PATTERN: Final = (
    r"^(GENRM_.*|PYTHON(PATH|HOME|STARTUP|USERBASE|INSPECT)|LD_.*"
    r"|VLLM_(SERVER_DEV_MODE|API_KEY|PLUGINS|PORT|USE_RUST_FRONTEND|RUST_FRONTEND_PATH)"
    r"|SGLANG_(HTTP_SERVER_APP_PATH|RUST_SERVER|GRPC_PORT|PLUGINS))$"
)
"""What the door and the engine's start depend on, and what swaps the HTTP front end behind the door."""


class SecretKeyRef(ApiModel):
    name: ObjectName = Field(description="Name of the Secret, in the namespace of the RewardModel.")
    key: DataKey = Field(description="Key inside it.")
    optional: Flag | None = Field(None, description="Start without the variable when Secret or key is missing.")


class ConfigMapKeyRef(ApiModel):
    name: ObjectName = Field(description="Name of the ConfigMap, in the namespace of the RewardModel.")
    key: DataKey = Field(description="Key inside it.")
    optional: Flag | None = Field(None, description="Start without the variable when ConfigMap or key is missing.")


class EnvVarSource(ApiModel):
    secret_key_ref: SecretKeyRef | None = Field(None, description="A key of a Secret. The operator never reads it.")
    config_map_key_ref: ConfigMapKeyRef | None = Field(None, description="A key of a ConfigMap.")

    rules: ClassVar = (
        rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "spec.env: valueFrom needs one source; write exactly one of secretKeyRef and configMapKeyRef",
            lambda s: (s.secret_key_ref is None) == (s.config_map_key_ref is None),
        ),
    )


class EnvVar(ApiModel):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, StringConstraints(max_length=4096)] | None = Field(None, description="Its value.")
    value_from: EnvVarSource | None = Field(None, description="Where its value comes from, instead of value.")

    rules: ClassVar = (
        Rule(
            cel=f"!self.name.matches('{RESERVED_ENV_PATTERN}')",
            message="'spec.env: ' + self.name + ' is reserved for the operator; remove it'",
            found_wrong=lambda v: (
                f"spec.env: {v.name} is reserved for the operator; remove it"
                if re.fullmatch(RESERVED_ENV_PATTERN, v.name)
                else None
            ),
        ),
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message="'spec.env: ' + self.name + (has(self.value) ? ' has value and valueFrom' : ' has neither value "
            "nor valueFrom') + '; write exactly one of them'",
            found_wrong=lambda v: (
                f"spec.env: {v.name} has "
                + ("neither value nor valueFrom" if v.value is None else "value and valueFrom")
                + "; write exactly one of them"
                if (v.value is None) == (v.value_from is None)
                else None
            ),
        ),
    )


class LocalObjectReference(ApiModel):
    name: ObjectName = Field(description="Name of the Secret, in the namespace of the RewardModel.")


class ResourceAmounts(ApiModel):
    cpu: Quantity | None = Field(None, description="Cores: 8, or 500m for half a core.")
    memory: Quantity | None = Field(None, description="Bytes: 16Gi.")
    ephemeral_storage: Quantity | None = Field(
        None, alias="ephemeral-storage", description="Bytes on the node's disk: 50Gi."
    )

    def amounts(self) -> dict[str, str]:
        """As a pod writes them."""
        return {str(k): str(v) for k, v in self.model_dump(by_alias=True, exclude_none=True).items()}


class Resources(ApiModel):
    """CPU and memory of one engine container. GPUs belong to spec.gpu."""

    requests: ResourceAmounts | None = Field(None, description="What the scheduler reserves.")
    limits: ResourceAmounts | None = Field(None, description="What the container may use at most.")


def _reserved_key(field: str, where: str) -> Rule:
    """No label or annotation of ours: Services, the door and the operator believe them."""
    prefix = f"{GROUP}/"
    sentence = f" belongs to the operator; remove it, keys below {prefix} are its own"

    def found_wrong(metadata: Any) -> str | None:
        given: Mapping[str, str] = getattr(metadata, field) or {}
        bad = sorted(key for key in given if key.startswith(prefix))
        return f"{where}: {bad[0]}{sentence}" if bad else None

    return Rule(
        cel=f"!has(self.{field}) || !self.{field}.exists(k, k.startsWith('{prefix}'))",
        message=f"{quoted(where + ': ')} + self.{field}.filter(k, k.startsWith('{prefix}'))[0] + {quoted(sentence)}",
        found_wrong=found_wrong,
    )


LabelValue = Annotated[str, StringConstraints(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)]


class PodMetadata(ApiModel):
    labels: Annotated[dict[str, LabelValue], Field(max_length=32), BeforeValidator(without_nulls)] | None = Field(
        None, description="Labels added to the engine pods."
    )
    annotations: (
        Annotated[
            dict[str, Annotated[str, StringConstraints(max_length=4096)]],
            Field(max_length=32),
            BeforeValidator(without_nulls),
        ]
        | None
    ) = Field(None, description="Annotations added to the engine pods.")

    rules: ClassVar = (
        _reserved_key("labels", "spec.podTemplate.metadata.labels"),
        _reserved_key("annotations", "spec.podTemplate.metadata.annotations"),
    )


class PodTemplate(ApiModel):
    """Laid over the pod that the operator makes; lists are merged by the keys that Kubernetes merges them by."""

    metadata: PodMetadata | None = Field(None, description="Labels and annotations of the engine pods.")
    spec: dict[str, Any] | None = Field(
        None,
        description="Any part of a pod spec: nodeSelector, tolerations, affinity, runtimeClassName, volumes, more "
        "containers, securityContext. The engine's container is called engine. null takes away what the operator set. "
        "What a field of the RewardModel or the door sets is refused, in the condition Degraded.",
    )
