"""What serves a model: the engine, its typed options, and the arguments that nobody may pass around them."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from genrm_api.arguments import refuse_args
from genrm_api.lifecycle import bounded_duration
from genrm_api.rules import ApiModel, Rule, quoted, rule, with_found
from genrm_api.values import Duration, Int, Number

IMAGE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"


class EngineName(enum.StrEnum):
    VLLM = "vllm"
    SGLANG = "sglang"
    CUSTOM = "custom"


HookPath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._~/?&=%,:@+-]*$", max_length=253)]


class OrderHook(ApiModel):
    """A request that has the server do something."""

    method: Literal["POST", "PUT"] = Field("POST", description="How it is asked.")
    path: HookPath = Field(description="Where, with a query if it has one: /sleep?level=1.")
    body: Annotated[str, StringConstraints(pattern=r"^[{]", max_length=4096)] | None = Field(
        None, description="A JSON object to send along, as a text. Default: nothing is sent."
    )


class QuestionHook(ApiModel):
    """A GET that the server answers at once, in every state."""

    path: HookPath = Field(description="Where, with a query if it has one.")


class CustomEngine(ApiModel):
    """An HTTP server of your own that speaks the OpenAI chat API on port 8000 of its pod. It sleeps if it has hooks."""

    command: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(min_length=1, max_length=64)] = (
        Field(description="The container's command; engine.args are appended.")
    )
    health_path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]*$", max_length=253)] = Field(
        "/health", description="Path that answers 200 while the server lives, asleep or awake."
    )
    sleep: OrderHook | None = Field(
        None,
        description="Gives the memory back; answers once that is done. The operator calls it when nobody is served any "
        "more, and may call it again. sleep, wake and isSleeping come together; without them the server never sleeps. "
        "No door stands before it: a client that still knows the pod's address reaches it while it sleeps.",
    )
    wake: OrderHook | None = Field(
        None, description="Takes the memory again; answers once it can serve. May be called again."
    )
    is_sleeping: QuestionHook | None = Field(
        None, description='Answers {"is_sleeping": true} or {"is_sleeping": false}: what is believed after each order.'
    )
    in_flight: QuestionHook | None = Field(
        None,
        description='Answers {"in_flight": 3}: requests that came and have no answer yet. The operator waits for 0 '
        "before it calls sleep, for at most lifecycle.sleep.drainTimeout. Without it what is still inside at a sleep "
        "is the server's affair.",
    )

    rules: ClassVar = (
        rule(
            "has(self.sleep) == has(self.wake) && has(self.sleep) == has(self.isSleeping)",
            "spec.engine.custom: sleep, wake and isSleeping come together; write all three, or none of them",
            lambda c: len({hook is None for hook in (c.sleep, c.wake, c.is_sleeping)}) > 1,
        ),
        rule(
            "!has(self.inFlight) || has(self.sleep)",
            "spec.engine.custom.inFlight: found without sleep, before which it is asked; write sleep, wake and "
            "isSleeping, or remove it",
            lambda c: c.in_flight is not None and c.sleep is None,
        ),
    )


def _no_field_of_others() -> Rule:
    fields = ("dtype", "quantization", "maxModelLen", "gpuMemoryUtilization", "chatTemplate")
    attributes = ("dtype", "quantization", "max_model_len", "gpu_memory_utilization", "chat_template")
    first = " : ".join(f"has(self.{name}) ? '{name}'" for name in fields[:-1]) + f" : '{fields[-1]}'"
    sentence = " has no meaning for engine custom; remove it, and write it into spec.engine.args or spec.engine.custom"

    def found_wrong(engine: Engine) -> str | None:
        if engine.name is not EngineName.CUSTOM:
            return None
        given = (n for n, a in zip(fields, attributes, strict=True) if getattr(engine, a) is not None)
        name = next(given, None)
        return None if name is None else f"spec.engine.{name}{sentence}"

    return Rule(
        cel="self.name != 'custom' || !(" + " || ".join(f"has(self.{name})" for name in fields) + ")",
        message=f"'spec.engine.' + ({first}) + {quoted(sentence)}",
        found_wrong=found_wrong,
    )


MOST_GPUS: Final = 64
_TOO_MANY_GPUS: Final = (
    f"spec.engine: tensorParallel x pipelineParallel x dataParallel is %d GPUs, and one pod has at most {MOST_GPUS}; "
    "write smaller numbers"
)
_GPUS: Final = "self.tensorParallel * self.pipelineParallel * self.dataParallel"


class Engine(ApiModel):
    name: EngineName = Field(
        EngineName.VLLM,
        description="Which inference engine serves the model: vllm, sglang, or custom for an HTTP server of your own.",
    )
    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=IMAGE_PATTERN)] | None = Field(
        None, description="Container image of the engine. Default: the operator's setting for this engine."
    )
    tensor_parallel: Int = Field(1, ge=1, le=64, description="GPUs that share each layer of one replica's weights.")
    pipeline_parallel: Int = Field(
        1,
        ge=1,
        le=64,
        description="Stages into which one replica's layers are cut. A replica has tensorParallel x pipelineParallel x "
        "dataParallel GPUs, all in one pod, or spread evenly over spec.gpu.nodes.",
    )
    data_parallel: Int = Field(1, ge=1, le=64, description="Copies of the model that one replica runs side by side.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = Field(
        None, description="Number format of weights and activations. Default: what the model was saved in."
    )
    quantization: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=63)] | None = Field(
        None, description="Quantization method of the engine, like awq or fp8. Default: what the model says."
    )
    max_model_len: (
        Annotated[
            Int,
            Field(
                ge=1,
                le=16777216,
            ),
        ]
        | None
    ) = Field(
        None,
        description="Longest prompt and answer together, in tokens. Default: what the model can.",
    )
    gpu_memory_utilization: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="Share of each GPU's memory that the engine may take. Default: the engine's own."
    )
    chat_template: Annotated[str, StringConstraints(min_length=1, max_length=32768)] | None = Field(
        None,
        description="Jinja chat template, or the absolute path of one inside the container. Default: the model's own.",
    )
    args: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)] | None = Field(
        None,
        description="Arguments appended to the engine's command line. What a typed field or the door sets is refused.",
    )
    startup_timeout: Duration | None = Field(
        None,
        description="How long an engine may take to start before its container is started anew, with the download of "
        "an hf:// model in it. At most 24h. Default: 30m, and for each GPU of a replica 30m more with hf://, which "
        "is 80 GB at 45 MB/s, else 5m more; without GPUs 60m with hf://, else 30m.",
    )
    custom: CustomEngine | None = Field(None, description="How to start the server; required by engine custom only.")

    rules: ClassVar = (
        rule(
            "self.name != 'custom' || has(self.custom)",
            "spec.engine.custom: missing with spec.engine.name custom; write the command that starts it",
            lambda e: e.name is EngineName.CUSTOM and e.custom is None,
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
        rule(
            "self.name != 'custom' || has(self.image)",
            "spec.engine.image: missing; engine custom has no default image, write one",
            lambda e: e.name is EngineName.CUSTOM and e.image is None,
        ),
        _no_field_of_others(),
        bounded_duration("startup_timeout", "spec.engine.startupTimeout"),
        refuse_args("operator", "is set by the operator or the door, or would take the server from them; remove it"),
        refuse_args(
            "fields",
            "is what a field sets; remove it and write spec.type, spec.model.revision, or of spec.engine: "
            "tensorParallel, pipelineParallel, dataParallel, dtype, quantization, maxModelLen, gpuMemoryUtilization, "
            "chatTemplate",
        ),
        refuse_args(
            "secrets",
            "would show a secret to all who read pods; remove it; a token for the hub is "
            "spec.model.credentialsSecretRef, and the door guards the engine without a key",
        ),
        Rule(
            cel=f"{_GPUS} <= {MOST_GPUS}",
            message=with_found(_TOO_MANY_GPUS, _GPUS),
            found_wrong=lambda e: _TOO_MANY_GPUS % e.gpus if e.gpus > MOST_GPUS else None,
        ),
        rule(
            "!has(self.chatTemplate) || ((self.chatTemplate.startsWith('/') || self.chatTemplate.contains('{')) "
            "&& !self.chatTemplate.startsWith('-'))",
            "spec.engine.chatTemplate: neither an absolute path nor a Jinja template; write a text with {{ }} in it "
            "that does not begin with -, or /path/in/the/container",
            lambda e: (
                e.chat_template is not None
                and not (
                    (e.chat_template.startswith("/") or "{" in e.chat_template) and not e.chat_template.startswith("-")
                )
            ),
        ),
    )

    @property
    def can_sleep(self) -> bool:
        """Whether there is anything to call: a server of the user's own has what its hooks say."""
        return self.name is not EngineName.CUSTOM or (self.custom is not None and self.custom.sleep is not None)

    @property
    def gpus(self) -> int:
        """Of one replica, where it has any."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel
