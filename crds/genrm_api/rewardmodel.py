"""RewardModel: a reward model that exists because somebody applied this resource.

The classes are the schema: field descriptions are what `kubectl explain rm.spec` prints, constraints and rules become
the CRD's OpenAPI schema and CEL. Only what no type of reward model forbids has a default here; `effective` fills in the
rest. This module holds the resource itself; each part of its spec has a module of its own, and `crossing` the rules
between them.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from genrm_api.access import Access
from genrm_api.comparing import ScoringMode
from genrm_api.crossing import PODS_EXIST, SPEC_RULES, in_gpu, sharing_of
from genrm_api.engine import CustomEngine, Engine, EngineName
from genrm_api.external import External, WireFormat
from genrm_api.gpu import Gpu, Sharing, Slot
from genrm_api.judging import FailurePolicy, OnFailure, Sampling, Structured
from genrm_api.lifecycle import (
    Lifecycle,
    LifecycleState,
    OnDrainTimeout,
    Rollout,
    Routing,
    RoutingMode,
    Sleep,
    SleepMode,
)
from genrm_api.model import TOKEN_ENV, Model
from genrm_api.names import API_VERSION, CHILD_SUFFIXES
from genrm_api.pods import EnvVar, LocalObjectReference, ObjectName, PodTemplate, Resources
from genrm_api.rules import NAME_RULE, ApiModel, Rule, Transition
from genrm_api.scoring import Scoring
from genrm_api.status import RewardModelStatus
from genrm_api.values import Int

__all__ = [
    "TOKEN_ENV",
    "CustomEngine",
    "Engine",
    "EngineName",
    "EnvVar",
    "External",
    "FailurePolicy",
    "Gpu",
    "Lifecycle",
    "LifecycleState",
    "Model",
    "OnDrainTimeout",
    "OnFailure",
    "Resources",
    "RewardModel",
    "RewardModelSpec",
    "RewardModelStatus",
    "RewardModelType",
    "RoutingMode",
    "Sampling",
    "Scoring",
    "ScoringMode",
    "Sharing",
    "Sleep",
    "SleepMode",
    "Slot",
    "Structured",
    "WireFormat",
]

"""DNS-1035 and at most 40 characters: Services and Leases carry the name with a suffix."""


class RewardModelType(enum.StrEnum):
    GENERATIVE = "Generative"
    CLASSIFIER = "Classifier"
    EXTERNAL = "External"


class RewardModelSpec(ApiModel):
    type: RewardModelType = Field(
        RewardModelType.GENERATIVE,
        description="Generative: a language model that is asked for a verdict. Classifier: a model whose head gives a "
        "number for a text. External: an endpoint outside the cluster, without pods.",
    )
    weights: Model | None = Field(None, alias="model", description="The weights. Required but for External.")
    external: External | None = Field(None, description="The endpoint of type External.")
    engine: Engine = Field(default_factory=Engine, description="What serves the weights.")
    replicas: Int = Field(
        1, ge=0, le=1024, description="Engine pods, each with the whole model. One for each slot where there are slots."
    )
    gpu: Gpu | None = Field(None, description="GPUs of each replica. Absent: the engine runs on CPU.")
    resources: Resources | None = Field(None, description="CPU and memory of each replica.")
    env: Annotated[list[EnvVar], Field(max_length=64)] | None = Field(
        None, description="Environment of the engine. What the door and the engine's start depend on is refused."
    )
    service_account_name: ObjectName | None = Field(
        None, description="Service account of the engine pods. Its token is not mounted. Default: default."
    )
    image_pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=16)] | None = Field(
        None, description="Secrets for pulling the engine's image."
    )
    scheduler_name: ObjectName | None = Field(None, description="Scheduler of the engine pods. Default: the cluster's.")
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the engine pods. Default: the cluster's."
    )
    access: Access | None = Field(
        None, description="Who may reach the engines. Absent: every pod of the model's namespace, and the operator."
    )
    lifecycle: Lifecycle = Field(default_factory=Lifecycle, description="When the engines are awake.")
    rollout: Rollout = Field(default_factory=Rollout, description="How engine pods are replaced.")
    routing: Routing = Field(default_factory=Routing, description="How clients reach the engines.")
    scoring: Scoring = Field(default_factory=Scoring, description="How runs question this model.")
    pod_template: PodTemplate | None = Field(
        None, description="Overlay for the engine pods, for what no other field says."
    )

    rules: ClassVar = SPEC_RULES

    @property
    def is_external(self) -> bool:
        return self.type is RewardModelType.EXTERNAL

    @property
    def model(self) -> Model:
        """The weights; every type but External has some."""
        assert self.weights is not None, "type External has no weights"
        return self.weights


_ENGINE = "(has({0}.spec.engine) ? {0}.spec.engine.name : 'vllm')"


def _pods(rm: RewardModel) -> bool:
    return rm.status is not None and (rm.status.replicas or 0) > 0


def _immutable(where: str, before: str, after: str, value: Any) -> Transition:
    def found_wrong(old: RewardModel, new: RewardModel) -> str | None:
        if not _pods(old) or value(old.spec) == value(new.spec):
            return None
        return (
            f"{where}: {value(new.spec)} was {value(old.spec)}, and cannot change while pods exist; write {where}: "
            f"{value(old.spec)}, or spec.replicas: 0 first"
        )

    return Transition(
        cel=f"!{PODS_EXIST} || {before} == {after}",
        message=f"'{where}: ' + {after} + ' was ' + {before} + ', and cannot change while pods exist; write {where}: ' "
        f"+ {before} + ', or spec.replicas: 0 first'",
        found_wrong=found_wrong,
    )


def _not_a_childs(suffix: str, child: str) -> Rule:
    """A RewardModel is not called as the child of another one is: the two would write one object in turns."""
    could_be = f" could be the {child} of another RewardModel; write a name that does not end in {suffix}"

    def found_wrong(rm: RewardModel) -> str | None:
        name = str(rm.metadata.get("name", ""))
        return f"metadata.name: {name}{could_be}" if name.endswith(suffix) else None

    return Rule(
        cel=f"!self.metadata.name.endsWith('{suffix}')",
        message=f"'metadata.name: ' + self.metadata.name + '{could_be}'",
        found_wrong=found_wrong,
    )


_OTHER_SLOTS = (
    "spec.gpu.slots: cannot change while pods exist, each of which holds one; write what was there, or "
    "spec.replicas: 0 "
    "first"
)


_OTHER_NODES = (
    "spec.gpu.nodes: cannot change while pods exist, which are of another kind; write what was there, or "
    "spec.replicas: 0 first"
)


def _nodes(spec: RewardModelSpec) -> int:
    return 1 if spec.gpu is None else spec.gpu.nodes


_NO_HOOKS = (
    "spec.engine.custom.sleep: cannot be removed while pods exist, which nobody could wake any more; write what was "
    "there, or spec.replicas: 0 first"
)
_HOOKS = "(has({0}.spec.engine) && has({0}.spec.engine.custom) && has({0}.spec.engine.custom.sleep))"


def _has_hooks(spec: RewardModelSpec) -> bool:
    return spec.engine.custom is not None and spec.engine.custom.sleep is not None


def _slots(spec: RewardModelSpec) -> list[Slot]:
    return list(spec.gpu.slots or ()) if spec.gpu is not None else []


class RewardModel(ApiModel):
    api_version: Literal["genrm.dev/v1alpha1"] = API_VERSION
    kind: Literal["RewardModel"] = "RewardModel"
    metadata: dict[str, Any]
    spec: RewardModelSpec
    status: RewardModelStatus | None = None

    rules: ClassVar = (
        NAME_RULE,
        *(_not_a_childs(suffix, child) for suffix, child in CHILD_SUFFIXES.items()),
        _immutable("spec.type", "oldSelf.spec.type", "self.spec.type", lambda spec: spec.type),
        _immutable(
            "spec.engine.name", _ENGINE.format("oldSelf"), _ENGINE.format("self"), lambda spec: spec.engine.name
        ),
        _immutable(
            "spec.gpu.sharing",
            in_gpu("oldSelf", "sharing", "'Exclusive'"),
            in_gpu("self", "sharing", "'Exclusive'"),
            sharing_of,
        ),
        Transition(
            cel=f"!{PODS_EXIST} || {in_gpu('oldSelf', 'nodes', '1')} == {in_gpu('self', 'nodes', '1')}",
            message=f"'{_OTHER_NODES}'",
            found_wrong=lambda old, new: _OTHER_NODES if _pods(old) and _nodes(old.spec) != _nodes(new.spec) else None,
        ),
        Transition(
            cel=f"!{PODS_EXIST} || !{_HOOKS.format('oldSelf')} || {_HOOKS.format('self')}",
            message=f"'{_NO_HOOKS}'",
            found_wrong=lambda old, new: (
                _NO_HOOKS if _pods(old) and _has_hooks(old.spec) and not _has_hooks(new.spec) else None
            ),
        ),
        Transition(
            cel=f"!{PODS_EXIST} || {in_gpu('oldSelf', 'slots', '[]')} == {in_gpu('self', 'slots', '[]')}",
            message=f"'{_OTHER_SLOTS}'",
            found_wrong=lambda old, new: _OTHER_SLOTS if _pods(old) and _slots(old.spec) != _slots(new.spec) else None,
        ),
    )

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata["namespace"])

    @property
    def served_name(self) -> str:
        """The model's name in requests."""
        external, weights = self.spec.external, self.spec.weights
        given = external.model if external is not None else weights.served_name if weights is not None else None
        return given or self.name
