"""The manifests of a RewardModel's children."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator.children import children
from genrm_operator.door_source import DoorSource, door_source
from genrm_operator.engines import adapter_for
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings
from genrm_operator.tokens import admin_token, token_digest
from pydantic import ValidationError

SETTINGS = Settings(
    master_key=b"k" * 32, engine_images={"vllm": "vllm/vllm-openai:test"}, host_model_prefixes=("/models",)
)
DOOR = DoorSource(b"an archive", "d" * 64)


def make(
    spec: dict[str, Any],
    settings: Settings = SETTINGS,
    door: DoorSource = DOOR,
    name: str = "judge",
    known: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    meta = {"name": name, "namespace": "rl", "uid": "u1", "generation": 1}
    rm = RewardModel.model_validate({"metadata": meta, "spec": spec, "status": known})
    made = children(rm, adapter_for(rm.spec.engine.name), door, settings)
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in made}


def container(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = made["Deployment/judge"]["spec"]["template"]["spec"]["containers"][0]
    return found


def test_a_vllm_model_becomes_six_objects_owned_by_it_and_the_guards_come_before_the_pods() -> None:
    made = make({"model": {"uri": "hf://Qwen/Qwen3-32B"}})
    assert list(made) == [
        "ConfigMap/judge-door-dddddddddd", "NetworkPolicy/judge", "PodDisruptionBudget/judge", "Deployment/judge",
        "Service/judge", "Service/judge-pods",
    ]  # fmt: skip
    for manifest in made.values():
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert owner["uid"] == "u1" and owner["controller"] is True and owner["blockOwnerDeletion"] is False


def test_no_other_reward_model_has_a_child_of_the_same_name() -> None:
    spec = {"model": {"uri": "hf://a/b"}, "routing": {"mode": "Router"}}
    made = make(spec)
    refused = set()
    for name in {manifest["metadata"]["name"] for manifest in made.values()} - {"judge"}:
        try:
            assert not make(spec, name=name).keys() & made.keys(), name
        except ValidationError:
            refused.add(name)
    assert refused == {"judge-pods", "judge-router"}, "and no name is refused for nothing"


def test_services_select_only_pods_that_serve_and_the_deployment_selects_all() -> None:
    made = make({"model": {"uri": "hf://a/b"}})
    for name in ("Service/judge", "Service/judge-pods"):
        assert made[name]["spec"]["selector"]["genrm.dev/serving"] == "true"
    assert "genrm.dev/serving" not in made["Deployment/judge"]["spec"]["selector"]["matchLabels"]


def test_the_pod_carries_the_tokens_digest_and_never_the_token() -> None:
    made = make({"model": {"uri": "hf://a/b"}})
    token = admin_token(SETTINGS.master_key, "rl", "judge", "u1")
    env = {e["name"]: e["value"] for e in container(made)["env"]}
    assert env["GENRM_TOKEN_SHA256"] == token_digest(token)
    assert token not in str(made)


def test_tokens_differ_by_model_and_by_incarnation() -> None:
    tokens = {
        admin_token(b"k" * 32, *who) for who in [("a", "m", "1"), ("a", "m", "2"), ("a", "n", "1"), ("b", "m", "1")]
    }
    assert len(tokens) == 4


def test_users_args_come_last_and_the_operators_before_them() -> None:
    args = container(make({"model": {"uri": "hf://a/b"}, "engine": {"args": ["--enforce-eager"]}}))["args"]
    assert args[:2] == ["--model", "a/b"] and args[-1] == "--enforce-eager"
    assert args[args.index("--served-model-name") + 1] == "judge"


def test_a_gpu_is_asked_for_per_tensor_parallel_rank_and_brings_the_sleep_flag() -> None:
    on_gpu = container(make({"model": {"uri": "hf://a/b"}, "gpu": {}, "engine": {"tensorParallel": 2}}))
    assert on_gpu["resources"]["limits"] == {"nvidia.com/gpu": "2"} and "--enable-sleep-mode" in on_gpu["args"]
    assert "--enable-sleep-mode" not in container(make({"model": {"uri": "hf://a/b"}}))["args"]


@pytest.mark.parametrize(
    ("uri", "path", "volume"),
    [
        ("hf://a/b", "a/b", None),
        ("pvc://weights/q/32b", "/models/q/32b", {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}),
        ("file:///models/tiny", "/models", {"hostPath": {"path": "/models/tiny"}}),
    ],
)
def test_a_uri_becomes_a_path_and_a_volume(uri: str, path: str, volume: dict[str, Any] | None) -> None:
    made = make({"model": {"uri": uri}})
    assert container(made)["args"][1] == path
    volumes = made["Deployment/judge"]["spec"]["template"]["spec"]["volumes"]
    found = [{k: v for k, v in vol.items() if k != "name"} for vol in volumes if vol["name"] == "model"]
    assert found == ([volume] if volume else [])


@pytest.mark.parametrize("uri", ["file:///etc", "file:///models-not", "file:///other/models"])
def test_a_node_folder_outside_the_allowed_prefixes_is_refused_with_advice(uri: str) -> None:
    with pytest.raises(Impossible, match=r"spec\.model\.uri.*hostModelPrefixes"):
        make({"model": {"uri": uri}})


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({"model": {"uri": "pvc://w"}}, 1800),
        ({"model": {"uri": "hf://a/b"}}, 3600),
        ({"model": {"uri": "hf://a/b"}, "gpu": {}}, 3600),
        ({"model": {"uri": "hf://a/b"}, "gpu": {}, "engine": {"tensorParallel": 8}}, 1800 + 8 * 1800),
        ({"model": {"uri": "pvc://w"}, "gpu": {}, "engine": {"tensorParallel": 8}}, 1800 + 8 * 300),
        ({"model": {"uri": "hf://a/b"}, "gpu": {}, "engine": {"tensorParallel": 64}}, 86400),
        ({"model": {"uri": "hf://a/b"}, "engine": {"startupTimeout": "1500ms"}}, 2),
        ({"model": {"uri": "hf://a/b"}, "engine": {"startupTimeout": "2h"}}, 7200),
    ],
)
def test_an_engine_has_the_time_to_start_that_its_weights_may_take(spec: dict[str, Any], seconds: int) -> None:
    probe = container(make(spec))["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds


SGLANG = {"model": {"uri": "hf://a/b"}, "engine": {"name": "sglang", "image": "sglang:test"}}
EXPANDABLE = {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "max_split_size_mb:64,expandable_segments:True"}
SPACED = {"name": "PYTORCH_ALLOC_CONF", "value": "expandable_segments : True"}
RIGID = {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:False"}


def overlaid(*env: dict[str, Any], container: str = "engine") -> dict[str, Any]:
    return {"podTemplate": {"spec": {"containers": [{"name": container, "env": [*env]}]}}}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"env": [EXPANDABLE]}, r"^spec\.env: PYTORCH_CUDA_ALLOC_CONF turns on expandable_segments, and sglang cannot"),
        ({"env": [SPACED]}, r"^spec\.env: PYTORCH_ALLOC_CONF turns on expandable_segments"),
        (
            overlaid(EXPANDABLE),
            r"^spec\.podTemplate\.spec\.containers\[engine\]\.env: PYTORCH_CUDA_ALLOC_CONF turns on",
        ),
        ({"env": [RIGID], **overlaid(EXPANDABLE)}, r"^spec\.podTemplate\.spec\.containers\[engine\]\.env: PYTORCH"),
        ({"env": [SPACED], **overlaid(RIGID)}, r"^spec\.env: PYTORCH_ALLOC_CONF turns on"),
    ],
)
def test_memory_that_sglang_could_not_give_back_is_refused_however_it_is_asked_for(
    spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(Impossible, match=says) as refused:
        make(SGLANG | spec)
    assert refused.value.reason == "EnvironmentNotSupported"


@pytest.mark.parametrize(
    "spec",
    [
        SGLANG | {"env": [RIGID]},
        SGLANG | {"env": [EXPANDABLE]} | overlaid(RIGID),
        SGLANG | overlaid(EXPANDABLE, container="beside"),
        SGLANG | {"env": [{"name": "PYTORCH_ALLOC_CONF", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]},
        {"model": {"uri": "hf://a/b"}, "env": [EXPANDABLE]},
    ],
    ids=["switched off", "switched off by the overlay", "of a container beside", "that nobody can read", "vllm"],
)
def test_other_words_to_the_allocator_are_not(spec: dict[str, Any]) -> None:
    assert "Deployment/judge" in make(spec)


def test_a_pod_is_ready_only_when_the_operator_has_verified_it() -> None:
    template = make({"model": {"uri": "hf://a/b"}})["Deployment/judge"]["spec"]["template"]
    assert template["spec"]["readinessGates"] == [{"conditionType": "genrm.dev/verified"}]


def test_the_service_account_is_named_also_when_it_is_the_default() -> None:
    template = make({"model": {"uri": "hf://a/b"}})["Deployment/judge"]["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "default"


def test_a_custom_engine_has_no_door() -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "judge.py"]}}
    made = make({"model": {"uri": "hf://a/b"}, "engine": engine})
    assert not any(name.startswith("ConfigMap") for name in made)
    assert "readinessGates" not in made["Deployment/judge"]["spec"]["template"]["spec"], "nobody could open it"
    assert container(made)["command"] == ["python3", "judge.py"]


def test_the_revision_changes_with_the_pod_and_only_with_it() -> None:
    def stamp(spec: dict[str, Any]) -> str:
        template = make({"model": {"uri": "hf://a/b"}, **spec})["Deployment/judge"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["genrm.dev/revision"])

    assert stamp({}) == stamp({"replicas": 3}) == stamp({"lifecycle": {"state": "Awake"}})
    assert stamp({}) != stamp({"engine": {"dtype": "float32"}})


def test_off_keeps_the_deployment_and_asks_for_no_pods() -> None:
    made = make({"model": {"uri": "hf://a/b"}, "replicas": 3, "lifecycle": {"state": "Off"}})
    assert made["Deployment/judge"]["spec"]["replicas"] == 0


def test_the_doors_own_source_is_found_without_importing_it() -> None:
    source = door_source()
    names = set(zipfile.ZipFile(io.BytesIO(source.archive)).namelist())
    assert {"__main__.py", "genrm_door/asgi.py", "genrm_door/launcher.py"} <= names and len(source.digest) == 64
    assert len(source.archive) < 47_000, "each RewardModel has one, and etcd keeps them all"
