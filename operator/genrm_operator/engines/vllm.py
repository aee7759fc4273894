"""vLLM (0.32 is what is tested): an OpenAI-compatible server whose dev-mode routes sleep and wake it.

The stock image runs unchanged: the command is our launcher, mounted from a ConfigMap, which puts the door in the server
and then becomes it. Sleep and wake routes: vLLM `vllm/entrypoints/serve/sleep/api_router.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrm_api.engine import Engine
from genrm_api.names import ENGINE_PORT
from genrm_api.rewardmodel import RewardModel, RewardModelType

from genrm_operator.engines.adapter import (
    CACHE_MOUNT,
    DOOR,
    LEADER_ADDRESS,
    WORKER_RANK,
    Call,
    Capabilities,
    Container,
    Hooks,
    flags,
    known_bad,
    nodes,
    refuse_what_it_cannot,
    rendering,
    tokenizing,
    tokens,
    unexpanded,
)
from genrm_operator.engines.weights import Weights, locate
from genrm_operator.settings import Settings


class Vllm:
    has_door = True
    capabilities = Capabilities(
        sleep_levels=frozenset({1}),
        bad_series=dict.fromkeys(
            [(0, 14), (0, 15)],
            "frees only a part of the memory in its sleep (vllm-project/vllm#32714): use 0.32, or "
            "spec.lifecycle.sleep.mode: Restart",
        ),
    )
    asleep: Call | None = Call("GET", "/is_sleeping")
    guarded = Call("GET", "/is_sleeping")
    running: str | None = "vllm:num_requests_running"
    about: Sequence[Call] = (Call("GET", "/version"),)

    def hooks(self, rm: RewardModel) -> Hooks | None:
        return None

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        refuse_what_it_cannot(rm, self.capabilities)
        weights = locate(rm, settings)
        return _container(
            rm, settings, weights,
            command=(*DOOR, "launcher", "--engine", "vllm", "--"),
            args=("--model", weights.path, *_arguments(rm, rank="0")),
        )  # fmt: skip

    def worker(self, rm: RewardModel, settings: Settings) -> Container:
        weights = locate(rm, settings)
        return _container(
            rm, settings, weights,
            command=("python3", "-m", "vllm.entrypoints.cli.main", "serve"),
            args=(weights.path, "--headless", *_arguments(rm, rank=WORKER_RANK)),
        )  # fmt: skip

    def sleep(self, rm: RewardModel) -> Sequence[Call]:
        # The door has drained the pod, but the engine may still compute for clients that hung up. Generation it aborts
        # (the default). A pooling server of 0.32 dies of that (`OutputProcessor.process_outputs` asks each request that
        # ended without an output for a detokenizer), so that one finishes first.
        finish = {"mode": "wait"} if rm.spec.type is RewardModelType.CLASSIFIER else {}
        return (Call("POST", "/sleep", {"level": str(rm.spec.lifecycle.sleep.level), **finish}),)

    def wake(self, rm: RewardModel) -> Sequence[Call]:
        return (Call("POST", "/wake_up"),)

    def first_question(self, rm: RewardModel) -> Call | None:
        return None

    def rendering(self, rm: RewardModel, messages: Sequence[Mapping[str, str]], *, opens: bool) -> Call | None:
        return rendering(rm, messages, opens=opens)

    def tokenizing(self, rm: RewardModel, text: str) -> Call | None:
        return tokenizing(rm, text)

    def tokens(self, answer: Any) -> tuple[int, ...]:
        return tokens(answer)

    def golden_row(self, rm: RewardModel, asked: str | Sequence[int], salt: str) -> Call | None:
        if rm.spec.type is RewardModelType.CLASSIFIER:
            # Without its activation, which hides how large a large value is.
            how: dict[str, Any] = {"input": asked, "use_activation": False, "cache_salt": salt}
            return Call("POST", "/classify", body={"model": rm.served_name, **how})
        # Who asks for log-probabilities of a prompt gets no cached prefix (`Request.get_skip_reading_prefix_cache`).
        how = {"prompt": asked, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        return Call("POST", "/v1/completions", body={"model": rm.served_name, **how})

    def golden_values(self, answer: Any) -> tuple[float, ...]:
        if "choices" not in answer:
            return tuple(float(p) for p in answer["data"][0]["probs"])
        _, *tokens = answer["choices"][0]["prompt_logprobs"]  # of the first there is nothing before
        return tuple(float(next(iter(token.values()))["logprob"]) for token in tokens)

    def unfit(self, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
        return known_bad(self.capabilities, rm, about)


def _container(
    rm: RewardModel, settings: Settings, weights: Weights, *, command: Sequence[str], args: Sequence[str]
) -> Container:
    return Container(
        image=rm.spec.engine.image or settings.engine_images["vllm"],
        command=command,
        args=args,
        env={"VLLM_CACHE_ROOT": f"{CACHE_MOUNT}/vllm", "VLLM_NO_USAGE_STATS": "1"},
        health_path="/health",
        volumes=weights.volumes,
        mounts=weights.mounts,
    )


def _arguments(rm: RewardModel, rank: str) -> list[str]:
    """What all ranks are told alike, and which of them this is; the user's words come last."""
    engine = rm.spec.engine
    args = ["--served-model-name", rm.served_name, "--port", str(ENGINE_PORT)]
    if rm.spec.type is RewardModelType.CLASSIFIER:
        # A model that has a head of its own keeps it: vLLM converts only what could not classify otherwise.
        args += ["--runner", "pooling", "--convert", "classify"]
    if rm.spec.model.revision is not None:
        args += ["--revision", rm.spec.model.revision]
    args += _options(engine)
    if (span := nodes(rm)) > 1:
        args += ["--nnodes", str(span), "--node-rank", rank, "--master-addr", LEADER_ADDRESS]
    elif rm.spec.gpu is not None:
        args.append("--enable-sleep-mode")  # vLLM refuses the flag on CPU, where sleep works as a state without it
    return [*args, *(engine.args or ())]


def _options(engine: Engine) -> list[str]:
    """The flags of the typed fields; a field that says nothing leaves vLLM its own default."""
    given = {
        "--tensor-parallel-size": engine.tensor_parallel if engine.tensor_parallel > 1 else None,
        "--pipeline-parallel-size": engine.pipeline_parallel if engine.pipeline_parallel > 1 else None,
        "--dtype": engine.dtype,
        "--quantization": engine.quantization,
        "--max-model-len": engine.max_model_len,
        "--gpu-memory-utilization": engine.gpu_memory_utilization,
        "--chat-template": unexpanded(engine.chat_template),
    }
    return flags(given)
