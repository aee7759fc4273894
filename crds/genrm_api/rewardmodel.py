"""RewardModel: a reward model that exists because somebody applied this resource.

The classes are the schema: field descriptions are what `kubectl explain rm.spec` prints, constraints and rules become
the CRD's OpenAPI schema and CEL. Only what no type of reward model forbids has a default here.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from genrm_api import durations
from genrm_api.names import API_VERSION
from genrm_api.rules import ApiModel, Rule

NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
"""DNS-1035 and at most 40 characters: Services and Leases carry the name with a suffix."""

URI_PATTERN = (
    r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
    r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._-]+)*"
    r"|file:///[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)$"
)

RESERVED_ARGS = (
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--uds",
    "--middleware",
    "--api-key",
    "--config",
    "--root-path",
    "--api-server-count",
    "--enable-sleep-mode",
    "--tensor-parallel-size",
    "-tp",
    "-asc",
)
"""vLLM flags that a typed field or the door sets."""

RESERVED_ENV_PATTERN = r"^(GENRM_.*|PYTHONPATH|LD_.*|VLLM_SERVER_DEV_MODE|VLLM_API_KEY|VLLM_PLUGINS)$"

Duration = Annotated[str, StringConstraints(pattern=durations.PATTERN, max_length=32)]
Quantity = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?(m|[kMGTPE]|[KMGTPE]i)?$", max_length=32)
]


class RewardModelType(enum.StrEnum):
    GENERATIVE = "Generative"


class EngineName(enum.StrEnum):
    VLLM = "vllm"
    CUSTOM = "custom"


class LifecycleState(enum.StrEnum):
    AUTO = "Auto"
    AWAKE = "Awake"
    ASLEEP = "Asleep"
    OFF = "Off"


class Model(ApiModel):
    uri: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Where the weights are: hf://org/name, pvc://claim/path, or file:///path on the node "
        "(only below a prefix that the operator's installation allows)."
    )
    served_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$", max_length=253)] | None = Field(
        None, description="Model name in requests to the engine. Default: the resource's name."
    )

    rules: ClassVar = (
        Rule(
            cel=f"self.uri.matches('{URI_PATTERN}') && !self.uri.contains('..')",
            message="'spec.model.uri: ' + self.uri + ' is none of hf://org/name, pvc://claim/path, file:///path; "
            'write one of these, without ".."\'',
            found_wrong=lambda m: (
                f"spec.model.uri: {m.uri} is none of hf://org/name, pvc://claim/path, file:///path; "
                'write one of these, without ".."'
                if ".." in m.uri or re.fullmatch(URI_PATTERN, m.uri) is None
                else None
            ),
        ),
    )


class CustomEngine(ApiModel):
    """An HTTP server of your own that speaks the OpenAI chat API on port 8000 of its pod. It cannot sleep."""

    command: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(min_length=1, max_length=64)] = (
        Field(description="The container's command; engine.args are appended.")
    )
    health_path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]*$", max_length=253)] = Field(
        "/health", description="Path that answers 200 while the server lives."
    )


def _reserved_args(engine: Engine) -> str | None:
    if engine.name is not EngineName.VLLM:
        return None
    for arg in engine.args or ():
        if (flag := arg.split("=", 1)[0].replace("_", "-")) in RESERVED_ARGS:
            return f"spec.engine.args: {flag} is set by a typed field or by the operator; remove it"
    return None


_RESERVED_ARGS_CEL = "[" + ", ".join(f"'{a}'" for a in RESERVED_ARGS) + "]"


class Engine(ApiModel):
    name: EngineName = Field(
        EngineName.VLLM,
        description="Which inference engine serves the model: vllm, or custom for an HTTP server of your own.",
    )
    image: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        None, description="Container image of the engine. Default: the operator's setting for this engine."
    )
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that share one replica's weights.")
    args: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)] | None = Field(
        None,
        description="Arguments appended to the engine's command line. What a typed field or the door sets is refused.",
    )
    custom: CustomEngine | None = Field(None, description="How to start the server; required by engine custom only.")

    rules: ClassVar = (
        Rule(
            cel="self.name != 'custom' || has(self.custom)",
            message="'spec.engine.custom: missing with spec.engine.name custom; write the command that starts it'",
            found_wrong=lambda e: (
                "spec.engine.custom: missing with spec.engine.name custom; write the command that starts it"
                if e.name is EngineName.CUSTOM and e.custom is None
                else None
            ),
        ),
        Rule(
            cel="self.name == 'custom' || !has(self.custom)",
            message="'spec.engine.custom: found with engine ' + self.name + '; remove it or write name: custom'",
            found_wrong=lambda e: (
                f"spec.engine.custom: found with engine {e.name}; remove it or write name: custom"
                if e.name is not EngineName.CUSTOM and e.custom is not None
                else None
            ),
        ),
        Rule(
            cel="self.name != 'vllm' || !has(self.args) || !self.args.exists(a, "
            f"a.split('=')[0].replace('_', '-') in {_RESERVED_ARGS_CEL})",
            message="'spec.engine.args: ' + self.args.filter(a, a.split('=')[0].replace('_', '-') in "
            f"{_RESERVED_ARGS_CEL})[0].split('=')[0].replace('_', '-') + "
            "' is set by a typed field or by the operator; remove it'",
            found_wrong=_reserved_args,
        ),
        Rule(
            cel="self.name != 'custom' || has(self.image)",
            message="'spec.engine.image: missing; engine custom has no default image, write one'",
            found_wrong=lambda e: (
                "spec.engine.image: missing; engine custom has no default image, write one"
                if e.name is EngineName.CUSTOM and e.image is None
                else None
            ),
        ),
    )


class EnvVar(ApiModel):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, StringConstraints(max_length=4096)] = Field(description="Its value.")

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
    )


class Gpu(ApiModel):
    resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] = Field(
        "nvidia.com/gpu", description="Extended resource to ask for; each replica gets tensorParallel of it."
    )


class Resources(ApiModel):
    """CPU and memory of one engine container. GPUs belong to spec.gpu."""

    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] | None = Field(
        None, description="What the scheduler reserves."
    )
    limits: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity] | None = Field(
        None, description="What the container may use at most."
    )


class Sleep(ApiModel):
    level: Literal[1] = Field(
        1, description="vLLM sleep level. 1 keeps the weights in host memory. Level 2 is not supported yet."
    )
    drain_timeout: Duration = Field(
        "60s", description="How long requests inside may take to finish before the sleep is given up."
    )


class Lifecycle(ApiModel):
    state: LifecycleState = Field(
        LifecycleState.AUTO,
        description="Auto: awake while a run's Lease asks for it, else asleep. Awake, Asleep: always. Off: no pods.",
    )
    sleep: Sleep = Field(default_factory=Sleep, description="How the engines go to sleep.")


class Structured(ApiModel):
    """What the engine is made to answer (vLLM structured_outputs)."""

    choice: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=256)]], Field(min_length=2, max_length=32)
    ] = Field(description="The answer is exactly one of these texts.")


class Sampling(ApiModel):
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature. Default: the engine's.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling mass. Default: the engine's.")
    max_tokens: int | None = Field(
        None, ge=1, le=131072, description="Longest answer in tokens. Default: the engine's."
    )
    seed: int | None = Field(
        None, ge=0, le=2147483647, description="Base of the seeds; each judgement derives its own from its content."
    )
    structured: Structured | None = Field(None, description="Constrain the answer's form.")


class FailurePolicy(enum.StrEnum):
    DROP = "drop"
    VALUE = "value"


class OnFailure(ApiModel):
    """What a judgement that failed does to its sample. Failures are always counted and logged, never a silent zero."""

    policy: FailurePolicy = Field(
        FailurePolicy.DROP, description="drop: the sample is not trained on. value: it gets the number in `value`."
    )
    value: float | None = Field(None, description="The score under policy value.")

    rules: ClassVar = (
        Rule(
            cel="self.policy != 'value' || has(self.value)",
            message="'spec.scoring.onFailure.value: missing under policy value; write the score of a failed judgement'",
            found_wrong=lambda f: (
                "spec.scoring.onFailure.value: missing under policy value; write the score of a failed judgement"
                if f.policy is FailurePolicy.VALUE and f.value is None
                else None
            ),
        ),
    )


class Scoring(ApiModel):
    judge: Literal["boxed-true-false"] = Field(
        "boxed-true-false", description="Built-in judge: prompt, parser and what its verdicts are worth."
    )
    sampling: Sampling = Field(default_factory=Sampling, description="How the judge samples its answer.")
    timeout: Duration = Field(
        "120s",
        description="Deadline of one judgement, all its attempts and waits included. With several replicas a first "
        "attempt gets half of it, so that a hanging replica leaves time for another.",
    )
    on_failure: OnFailure = Field(default_factory=OnFailure, description="What a failed judgement means.")


class RewardModelSpec(ApiModel):
    type: RewardModelType = Field(
        RewardModelType.GENERATIVE, description="Generative: a language model that is asked for a verdict."
    )
    model: Model = Field(description="The weights.")
    engine: Engine = Field(default_factory=Engine, description="What serves them.")
    replicas: int = Field(1, ge=0, le=1024, description="Engine pods, each with the whole model.")
    gpu: Gpu | None = Field(None, description="GPUs of each replica. Absent: the engine runs on CPU.")
    resources: Resources | None = Field(None, description="CPU and memory of each replica.")
    env: Annotated[list[EnvVar], Field(max_length=64)] | None = Field(
        None, description="Environment of the engine. What the door and the engine's start depend on is refused."
    )
    lifecycle: Lifecycle = Field(default_factory=Lifecycle, description="When the engines are awake.")
    scoring: Scoring = Field(default_factory=Scoring, description="How runs question this model.")


class ConditionStatus(enum.StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(
        description="Ready, Available, Progressing, Degraded or Asleep."
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(None, ge=0, description="metadata.generation this was decided for.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="One word for programs."
    )
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(description="A sentence for people.")


class EndpointStatus(ApiModel):
    pod: str = Field(description="Name of the engine pod.")
    uid: str = Field(description="UID of the pod.")
    state: str = Field(
        description="Pending, Starting, Verifying, Serving, Draining, Sleeping, Asleep, Waking or Failed."
    )
    boot_id: str | None = Field(None, description="Boot id of the door in the pod, once it answered.")


class HeldLease(ApiModel):
    run: str = Field(description="The run that holds the Lease.")
    phase: str = Field(description="What it asks for: idle, prewake or scoring.")


class RewardModelStatus(ApiModel):
    observed_generation: int | None = Field(None, ge=0, description="metadata.generation this status was computed for.")
    phase: str | None = Field(
        None, description="One word: Pending, Starting, Waking, Serving, Sleeping, Asleep, Off or Degraded."
    )
    conditions: list[Condition] | None = Field(
        None,
        description="Ready in the kstatus sense: asleep as desired is Ready.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: int | None = Field(None, ge=0, description="Engine pods that exist.")
    ready: int | None = Field(None, ge=0, description="Engine pods whose engine lives, asleep or awake.")
    awake: int | None = Field(None, ge=0, description="Engine pods that are verified awake and serve.")
    selector: str | None = Field(None, description="Label selector of the engine pods, for the scale subresource.")
    endpoints: list[EndpointStatus] | None = Field(None, description="Every engine pod and what it is doing.")
    leases: list[HeldLease] | None = Field(None, description="Runs that hold a Lease on this model.")
    last_wake_seconds: float | None = Field(
        None, ge=0, description="Seconds from the decision to wake to the last replica serving, last time."
    )
    last_sleep_seconds: float | None = Field(
        None, ge=0, description="Seconds from the decision to sleep to the last replica asleep, last time."
    )
    engine: str | None = Field(None, description="Engine and version as the engine itself reports it.")


class RewardModel(ApiModel):
    api_version: Literal["genrm.dev/v1alpha1"] = API_VERSION
    kind: Literal["RewardModel"] = "RewardModel"
    metadata: dict[str, Any]
    spec: RewardModelSpec
    status: RewardModelStatus | None = None

    rules: ClassVar = (
        Rule(
            cel=f"self.metadata.name.matches('{NAME_PATTERN}')",
            message="'metadata.name: ' + self.metadata.name + ' must be DNS-1035 (a-z, 0-9, -), at most 40 characters'",
            found_wrong=lambda rm: _bad_name(rm.metadata.get("name", "")),
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
        return self.spec.model.served_name or self.name


def _bad_name(name: str) -> str | None:
    if re.fullmatch(NAME_PATTERN, name):
        return None
    return f"metadata.name: {name} must be DNS-1035 (a-z, 0-9, -), at most 40 characters"
