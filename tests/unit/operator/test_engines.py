"""What each adapter makes of a RewardModel: flags of typed fields, refusals, and whom it lets serve."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import EngineName, RewardModel
from genrm_operator.engines import Container, adapter_for
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings

SETTINGS = Settings(master_key=b"k" * 32, engine_images={"vllm": "vllm:test", "sglang": "sglang:test"})


DEEP = {"model": {"uri": "pvc://weights"}, "lifecycle": {"sleep": {"level": 2}}}


def model(name: str, kind: str = "Generative", **more: Any) -> RewardModel:
    engine = {"name": name, **more.pop("engine", {})}
    spec = {"type": kind, "model": {"uri": "hf://a/b"}, "engine": engine} | more
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})


def container(rm: RewardModel) -> Container:
    return adapter_for(rm.spec.engine.name).container(rm, SETTINGS)


SGLANG_ALWAYS = [
    "--model-path", "a/b", "--served-model-name", "judge", "--host", "0.0.0.0", "--port", "8000",
    "--enable-metrics", "--enable-memory-saver", "--enable-weights-cpu-backup", "--sleep-on-idle",
]  # fmt: skip
VLLM_ALWAYS = ["--model", "a/b", "--served-model-name", "judge", "--port", "8000"]
FIELDS = {
    "tensorParallel": 2,
    "pipelineParallel": 3,
    "dtype": "bfloat16",
    "quantization": "fp8",
    "maxModelLen": 4096,
    "gpuMemoryUtilization": 0.5,
    "chatTemplate": "/t.jinja",
}


@pytest.mark.parametrize(
    ("rm", "args"),
    [
        pytest.param(model("sglang"), [*SGLANG_ALWAYS, "--device", "cpu"], id="sglang on CPU"),
        pytest.param(model("sglang", gpu={}), SGLANG_ALWAYS, id="sglang on a GPU"),
        pytest.param(
            model("sglang", "Classifier"), [*SGLANG_ALWAYS, "--is-embedding", "--device", "cpu"], id="sglang classifier"
        ),
        pytest.param(
            model("sglang", gpu={}, engine={**FIELDS, "args": ["--log-requests"]}),
            [
                *SGLANG_ALWAYS, "--tp-size", "2", "--pp-size", "3", "--dtype", "bfloat16", "--quantization", "fp8",
                "--context-length", "4096", "--mem-fraction-static", "0.5", "--chat-template", "/t.jinja",
                "--log-requests",
            ],
            id="sglang's typed fields, then the user's arguments",
        ),
        pytest.param(
            model("vllm", "Classifier"),
            [*VLLM_ALWAYS, "--runner", "pooling", "--convert", "classify"],
            id="vllm classifier",
        ),
        pytest.param(model("vllm", gpu={}), [*VLLM_ALWAYS, "--enable-sleep-mode"], id="vllm on a GPU"),
        pytest.param(
            model("vllm", engine={**FIELDS, "args": ["--x"]}, gpu={}),
            [
                *VLLM_ALWAYS, "--tensor-parallel-size", "2", "--pipeline-parallel-size", "3", "--dtype", "bfloat16",
                "--quantization", "fp8", "--max-model-len", "4096", "--gpu-memory-utilization", "0.5",
                "--chat-template", "/t.jinja", "--enable-sleep-mode", "--x",
            ],
            id="vllm's typed fields, then the user's arguments",
        ),
    ],
)  # fmt: skip
def test_a_model_becomes_a_command_line(rm: RewardModel, args: list[str]) -> None:
    made = container(rm)
    assert list(made.args) == args
    assert list(made.command) == [
        "python3", "/genrm/door/genrm_door.pyz", "launcher", "--engine", str(rm.spec.engine.name), "--",
    ]  # fmt: skip
    assert made.image == f"{rm.spec.engine.name}:test"
    assert made.health_path == "/health"


def test_sglang_without_a_gpu_takes_its_cpu_engine() -> None:
    assert container(model("sglang")).env["SGLANG_USE_CPU_ENGINE"] == "1"
    assert "SGLANG_USE_CPU_ENGINE" not in container(model("sglang", gpu={})).env


@pytest.mark.parametrize(
    ("rm", "reason", "sentence"),
    [
        (model("sglang", engine={"chatTemplate": "{{ x }}"}), "ChatTemplateNotSupported", "from a file only"),
        (model("sglang", gpu={}, engine={"dataParallel": 2}), "DataParallelNotSupported", "spec.replicas"),
        (model("vllm", gpu={}, engine={"dataParallel": 2}), "DataParallelNotSupported", "spec.replicas"),
        (model("vllm", **DEEP), "SleepLevelNotSupported", "write 1"),
        (model("sglang", **DEEP), "SleepLevelNotSupported", "write 1"),
        (model("sglang", lifecycle={"sleep": {"onDrainTimeout": "Abort"}}), "NotSupportedYet", "write Serve"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_advice(rm: RewardModel, reason: str, sentence: str) -> None:
    with pytest.raises(Impossible, match=sentence) as refused:
        container(rm)
    assert refused.value.reason == reason


GENERATES = {"is_generation": True, "enable_memory_saver": True, "enable_weights_cpu_backup": True, "version": "0.5.23"}
BAD_VLLM = ("0.14.0", "0.14.1", "0.14", "0.14.0+cu128", "v0.15.0", "0.15.1.post1", "0.15.0rc1.dev3+g0123abc.cu129")
IN_A_SLOT = {"gpu": {"sharing": "SharedClaim", "slots": [{"name": "a"}]}}
NOT_TOLD_TO_SLEEP: list[dict[str, Any]] = [
    {"lifecycle": {"state": "Awake"}},
    {"lifecycle": {"state": "Awake", "sleep": {"mode": "Engine"}}},
    {"gpu": {}},  # exclusive, so that it never sleeps
    *({"lifecycle": {"sleep": {"mode": mode}}} for mode in ("None", "Restart", "ScaleToZero")),
    IN_A_SLOT | {"lifecycle": {"sleep": {"mode": "Restart"}}},
]
TOLD_TO_SLEEP: list[dict[str, Any]] = [
    {"gpu": {}, "lifecycle": {"sleep": {"mode": "Engine"}}},
    {"gpu": {}, "lifecycle": {"state": "Asleep"}},
    IN_A_SLOT,
    IN_A_SLOT | {"lifecycle": {"state": "Awake"}},  # until its turn is over
    IN_A_SLOT | {"lifecycle": {"sleep": {"mode": "None"}}},
]


@pytest.mark.parametrize(
    ("rm", "about", "why"),
    [
        (model("sglang"), GENERATES, None),
        (model("sglang", "Classifier"), GENERATES | {"is_generation": False}, None),
        (model("sglang"), GENERATES | {"is_generation": False}, "does not generate text"),
        (model("sglang", "Classifier"), GENERATES, "generates text"),
        (model("sglang"), {}, "does not generate"),
        (model("sglang"), GENERATES | {"enable_memory_saver": False}, "without enable_memory_saver"),
        (model("sglang"), GENERATES | {"enable_weights_cpu_backup": None}, "without enable_weights_cpu_backup"),
        (model("vllm"), {"version": "0.32.0"}, None),
        (model("vllm"), {}, None),
        *((model("vllm"), {"version": bad}, f"is version {bad}, which frees only a part") for bad in BAD_VLLM),
        *((model("vllm"), {"version": good}, None) for good in ("0.13.9", "0.16.0", "0.140.0", "1.14.0", "dev", "14")),
        *((model("vllm", **lives), {"version": "0.14.0"}, None) for lives in NOT_TOLD_TO_SLEEP),
        *((model("vllm", **lives), {"version": "0.14.0"}, "use 0.32, or") for lives in TOLD_TO_SLEEP),
    ],
)
def test_a_server_that_is_not_what_was_asked_for_does_not_serve(
    rm: RewardModel, about: dict[str, Any], why: str | None
) -> None:
    found = adapter_for(rm.spec.engine.name).unfit(rm, about)
    assert (found is None) if why is None else (found is not None and why in found)


@pytest.mark.parametrize("name", [EngineName.VLLM, EngineName.SGLANG])
def test_what_is_released_by_name_is_resumed_by_the_same_names(name: EngineName) -> None:
    adapter, rm = adapter_for(name), model(str(name))
    released = [call.body["tags"] for call in adapter.sleep(rm) if call.body and "tags" in call.body]
    resumed = [call.body["tags"] for call in adapter.wake(rm) if call.body and "tags" in call.body]
    assert released == resumed == ([adapter.capabilities.tags] if adapter.capabilities.tags else [])


@pytest.mark.parametrize(
    ("kind", "query"), [("Generative", {"level": "1"}), ("Classifier", {"level": "1", "mode": "wait"})]
)
def test_vllm_finishes_what_it_pools_before_it_sleeps(kind: str, query: dict[str, str]) -> None:
    rm = model("vllm", kind)
    assert [call.query for call in adapter_for(rm.spec.engine.name).sleep(rm)] == [query]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_revision_reaches_the_engine(engine: str) -> None:
    rm = model(engine, model={"uri": "hf://a/b", "revision": "v2"})
    args = list(container(rm).args)
    assert args[args.index("--revision") + 1] == "v2"


SPREAD: dict[str, Any] = {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 4}}
TOLD_ALIKE = {
    "vllm": ["--tensor-parallel-size", "4", "--nnodes", "2", "--master-addr", "$(LWS_LEADER_ADDRESS)"],
    "sglang": ["--tp-size", "4", "--nnodes", "2", "--dist-init-addr", "$(LWS_LEADER_ADDRESS):20000"],
}


@pytest.mark.parametrize("name", TOLD_ALIKE)
def test_an_engine_that_spans_nodes_is_told_who_leads_and_which_rank_it_is(name: str) -> None:
    rm = model(name, **SPREAD)
    leader, worker = container(rm), adapter_for(rm.spec.engine.name).worker(rm, SETTINGS)
    for one, rank in ((leader, "0"), (worker, "$(LWS_WORKER_INDEX)")):
        given = list(one.args)
        assert set(TOLD_ALIKE[name]) < set(given) and given[given.index("--node-rank") + 1] == rank
        assert not {"--enable-sleep-mode", "--enable-memory-saver"} & set(given), "it never sleeps"
    assert "genrm_door" in str(leader.command) and "genrm_door" not in str(worker.command)
    assert leader.image == worker.image and leader.env == worker.env and leader.mounts == worker.mounts
    assert leader.args[1] in worker.args, "the same weights"


def test_a_vllm_worker_has_no_server() -> None:
    rm = model("vllm", **SPREAD)
    worker = adapter_for(rm.spec.engine.name).worker(rm, SETTINGS)
    assert worker.command[-1] == "serve" and worker.args[:2] == ("a/b", "--headless")


def test_sglang_that_spans_nodes_serves_without_a_memory_saver() -> None:
    assert adapter_for(EngineName.SGLANG).unfit(model("sglang", **SPREAD), {"is_generation": True}) is None


@pytest.mark.parametrize(("stages", "span", "fits"), [(2, 4, True), (4, 2, True), (3, 2, False)])
def test_sglang_lays_whole_stages_on_nodes_or_whole_nodes_under_stages(stages: int, span: int, fits: bool) -> None:
    rm = model("sglang", gpu={"nodes": span}, engine={"tensorParallel": 4, "pipelineParallel": stages})
    if fits:
        container(rm)
        return
    with pytest.raises(Impossible, match=r"^spec\.gpu\.nodes: sglang cannot lay 3 stages .* on 2 nodes; write"):
        container(rm)
