"""SGLang (0.5.23 is what is tested): generative judges, and reward models as embedding servers.

The stock image runs unchanged behind our launcher, which wraps SGLang's HTTP application. SGLang gives memory back by
an order of calls that it does not check and dies of when it is not kept: pause, release by tags, resume the same tags,
continue. The door sees to it (`genrm_door/sglang_memory.py`), and knows what is released; the engine does not say it.
Routes: SGLang `python/sglang/srt/entrypoints/http_server.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_api.engine import Engine
from genrm_api.names import ENGINE_PORT
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_api.status import Reason

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
from genrm_operator.engines.weights import locate
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings

MEETING_PORT: Final = 20000
"""On the leader, where the ranks of an engine that spans nodes meet."""


class Sglang:
    has_door = True
    capabilities = Capabilities(
        sleep_levels=frozenset({1}),
        tags=("kv_cache", "weights"),
        lets_go=False,
        frees_expandable_segments=False,  # torch_memory_saver 0.0.10 does not start beside them, if it sees them
    )
    asleep: Call | None = None
    guarded = Call("GET", "/get_server_info")
    running: str | None = None  # idle, it writes its gauge every 30 s only; and its door asks the scheduler itself
    about: Sequence[Call] = (Call("GET", "/model_info"), Call("GET", "/server_info"))

    def hooks(self, rm: RewardModel) -> Hooks | None:
        return None

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        refuse_what_it_cannot(rm, self.capabilities)
        _refuse_uneven_stages(rm)
        return _container(rm, settings, command=(*DOOR, "launcher", "--engine", "sglang", "--"), rank="0")

    def worker(self, rm: RewardModel, settings: Settings) -> Container:
        return _container(rm, settings, command=("python3", "-m", "sglang.launch_server"), rank=WORKER_RANK)

    def sleep(self, rm: RewardModel) -> Sequence[Call]:
        return (
            Call("POST", "/pause_generation", body={"mode": "abort"}),
            Call("POST", "/release_memory_occupation", body={"tags": self.capabilities.tags}),
        )

    def wake(self, rm: RewardModel) -> Sequence[Call]:
        return (
            Call("POST", "/resume_memory_occupation", body={"tags": self.capabilities.tags}),
            Call("POST", "/continue_generation", body={}),
        )

    def first_question(self, rm: RewardModel) -> Call | None:
        """The warm-up that SGLang would do by itself, and that its closed door turns away."""
        if rm.spec.type is RewardModelType.CLASSIFIER:
            return Call("POST", "/classify", body={"text": "warm-up"})
        return Call(
            "POST", "/generate", body={"text": "warm-up", "sampling_params": {"temperature": 0, "max_new_tokens": 8}}
        )

    def rendering(self, rm: RewardModel, messages: Sequence[Mapping[str, str]], *, opens: bool) -> Call | None:
        return rendering(rm, messages, opens=opens)

    def tokenizing(self, rm: RewardModel, text: str) -> Call | None:
        return tokenizing(rm, text)

    def tokens(self, answer: Any) -> tuple[int, ...]:
        return tokens(answer)

    def golden_row(self, rm: RewardModel, asked: str | Sequence[int], salt: str) -> Call | None:
        given = {"text" if isinstance(asked, str) else "input_ids": asked}
        if rm.spec.type is RewardModelType.CLASSIFIER:
            return Call("POST", "/classify", body=given)
        how = {"sampling_params": {"temperature": 0, "max_new_tokens": 1}, "return_logprob": True}
        # A cached prefix ends where log-probabilities begin.
        return Call("POST", "/generate", body={**given, **how, "logprob_start_len": 0})

    def golden_values(self, answer: Any) -> tuple[float, ...]:
        if "meta_info" in answer and "input_token_logprobs" in answer["meta_info"]:
            _, *tokens = answer["meta_info"]["input_token_logprobs"]  # of the first there is nothing before
            return tuple(float(token[0]) for token in tokens)
        row = answer[0] if isinstance(answer, list) else answer
        return tuple(float(value) for value in row["embedding"])

    def unfit(self, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
        generates = about.get("is_generation")
        if generates is not (rm.spec.type is RewardModelType.GENERATIVE):
            kind = "generates text" if generates else "does not generate text"
            return f"serves a model that {kind}: spec.type {rm.spec.type} does not fit it"
        missing = [name for name in ("enable_memory_saver", "enable_weights_cpu_backup") if about.get(name) is not True]
        if missing and nodes(rm) == 1:  # over several nodes nothing is ever released
            return (
                f"runs without {' and '.join(missing)}: a release would say 200 and free nothing, or lose the weights"
            )
        return known_bad(self.capabilities, rm, about)


def _container(rm: RewardModel, settings: Settings, *, command: Sequence[str], rank: str) -> Container:
    engine = rm.spec.engine
    weights = locate(rm, settings)
    args = ["--model-path", weights.path, "--served-model-name", rm.served_name]
    args += ["--host", "0.0.0.0", "--port", str(ENGINE_PORT), "--enable-metrics"]
    if (span := nodes(rm)) > 1:
        args += ["--nnodes", str(span), "--node-rank", rank, "--dist-init-addr", f"{LEADER_ADDRESS}:{MEETING_PORT}"]
    else:
        # With the saver alone, weights come back from a release uninitialised: the backup is what level 1 means.
        args += ["--enable-memory-saver", "--enable-weights-cpu-backup"]
    args.append("--sleep-on-idle")  # else a scheduler with nothing to do keeps a core busy, asleep or not
    if rm.spec.type is RewardModelType.CLASSIFIER:
        args.append("--is-embedding")
    if rm.spec.model.revision is not None:
        args += ["--revision", rm.spec.model.revision]
    args += _options(engine)
    env = {"SGLANG_CACHE_DIR": f"{CACHE_MOUNT}/sglang"}
    if rm.spec.gpu is None:
        args += ["--device", "cpu"]
        env["SGLANG_USE_CPU_ENGINE"] = "1"
    return Container(
        image=engine.image or settings.engine_images["sglang"],
        command=command,
        args=(*args, *(engine.args or ())),
        env=env,
        health_path="/health",  # the door's: the engine's own would kill it while its memory is released
        volumes=weights.volumes,
        mounts=weights.mounts,
    )


def _refuse_uneven_stages(rm: RewardModel) -> None:
    """SGLang gives each node whole stages, or each stage whole nodes (`_calculate_rank_ranges` in its engine.py)."""
    span, stages = nodes(rm), rm.spec.engine.pipeline_parallel
    if stages % span and span % stages:
        raise Impossible(
            Reason.NODES_NOT_SUPPORTED,
            f"spec.gpu.nodes: sglang cannot lay {stages} stages (spec.engine.pipelineParallel) on {span} nodes; write "
            "numbers of which one divides the other",
        )


def _options(engine: Engine) -> list[str]:
    """The flags of the typed fields; a field that says nothing leaves SGLang its own default."""
    template = engine.chat_template
    if template is not None and not template.startswith("/"):
        raise Impossible(
            Reason.CHAT_TEMPLATE_NOT_SUPPORTED,
            "spec.engine.chatTemplate: sglang reads a template from a file only; write /path/in/the/container of one",
        )
    given = {
        "--tp-size": engine.tensor_parallel if engine.tensor_parallel > 1 else None,
        "--pp-size": engine.pipeline_parallel if engine.pipeline_parallel > 1 else None,
        "--dtype": engine.dtype,
        "--quantization": engine.quantization,
        "--context-length": engine.max_model_len,
        "--mem-fraction-static": engine.gpu_memory_utilization,
        "--chat-template": unexpanded(engine.chat_template),
    }
    return flags(given)
