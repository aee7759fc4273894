"""A replica that spans nodes: its LeaderWorkerSet, and what guards it."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator import rollout
from genrm_operator.cache import Cache
from genrm_operator.children import children
from genrm_operator.door_source import DoorSource
from genrm_operator.engines import adapter_for
from genrm_operator.rollout import Kept
from genrm_operator.settings import Settings
from genrm_operator.surging import Rolling

from tests.unit.network_policy import Pod, may_connect

KEY = b"k" * 32
SETTINGS = Settings(master_key=KEY, engine_images={"vllm": "vllm:1", "sglang": "sglang:1"})
DOOR = DoorSource(b"an archive", "d" * 64)


def make(door: DoorSource = DOOR, **spec: Any) -> dict[str, dict[str, Any]]:
    engine = {"tensorParallel": 8, "pipelineParallel": 2, **spec.pop("engine", {})}
    whole = {"model": {"uri": "hf://a/b"}, "gpu": {"nodes": 2}, "engine": engine, "replicas": 3, **spec}
    meta = {"name": "judge", "namespace": "rl", "uid": "u1", "generation": 1}
    rm = RewardModel.model_validate({"metadata": meta, "spec": whole})
    made = children(rm, adapter_for(rm.spec.engine.name), door, SETTINGS)
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in made}


def group(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = made["LeaderWorkerSet/judge-nodes"]["spec"]["leaderWorkerTemplate"]
    return found


def pods(made: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    return group(made)["leaderTemplate"], group(made)["workerTemplate"]


def test_which_revision_a_group_should_be_is_known_of_its_metadata() -> None:
    """Nothing else of a LeaderWorkerSet is ever read."""
    manifests = list(make().values())
    settled = rollout.settle(manifests, "inputs", {}, (), SETTINGS.master_key)
    (found,) = (m for m in settled if m["kind"] == "LeaderWorkerSet")
    meta = {"metadata": found["metadata"] | {"uid": "u", "resourceVersion": "1"}}
    leader, _ = pods(make())
    cache = Cache()
    cache.child_putter("LeaderWorkerSet")(meta, deleted=False)
    (rolling,) = cache.rolling["rl", "judge"].values()
    assert (rolling.revision, rolling.inputs) == (leader["metadata"]["annotations"]["genrm.dev/revision"], "inputs")
    wrong = ("7", '{"metadata": 7}', '{"metadata": {"annotations": 7}}', '{"metadata": {"annotations": {}}}')
    for forged in ("", "[]", "{}", "[" * 100_000, *(f'{{"leaderTemplate": {template}}}' for template in wrong)):
        assert Rolling.of({"metadata": {"annotations": {"genrm.dev/template": forged}}}) is None


def test_a_replica_is_a_group_of_pods_and_there_is_no_deployment() -> None:
    made = make()
    assert not any(name.startswith("Deployment") for name in made)
    spec = made["LeaderWorkerSet/judge-nodes"]["spec"]
    assert (spec["replicas"], group(made)["size"], spec["startupPolicy"]) == (3, 2, "LeaderCreated")
    assert group(made)["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert make(lifecycle={"state": "Off"})["LeaderWorkerSet/judge-nodes"]["spec"]["replicas"] == 0


def test_a_set_is_not_called_like_our_service() -> None:
    """LeaderWorkerSet makes a headless Service of its own name, unless one is there."""
    made = make()
    assert "Service/judge" in made and "LeaderWorkerSet/judge" not in made and "Service/judge-nodes" not in made


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_each_pod_of_a_group_has_its_part_of_the_gpus(name: str) -> None:
    for template in pods(make(engine={"name": name})):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}


def test_only_the_leader_is_seen_asked_and_verified() -> None:
    made = make()
    leader, worker = pods(made)
    selector = made["Service/judge-pods"]["spec"]["selector"].items() - {("genrm.dev/serving", "true")}
    assert selector <= leader["metadata"]["labels"].items()
    assert not selector <= worker["metadata"]["labels"].items()
    assert leader["spec"]["readinessGates"] and "readinessGates" not in worker["spec"]
    (container,) = worker["spec"]["containers"]
    assert not {"ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} & container.keys()
    assert "GENRM_TOKEN_SHA256" not in str(worker) and "door" not in str(worker)
    assert worker["spec"]["securityContext"] == leader["spec"]["securityContext"]


def test_the_overlay_is_laid_over_every_pod_of_a_group() -> None:
    made = make(podTemplate={"spec": {"nodeSelector": {"gpu": "h100"}}})
    assert all(template["spec"]["nodeSelector"] == {"gpu": "h100"} for template in pods(made))


def test_ranks_reach_each_other_on_every_port_and_nobody_else_does() -> None:
    made = make(access={"clients": [{"podSelector": {"matchLabels": {"app": "trainer"}}}]})
    policies = [m for name, m in made.items() if name.startswith("NetworkPolicy")]
    leader, worker = (Pod("rl", t["metadata"]["labels"], ports={"http": 8000}) for t in pods(made))
    trainer, other = Pod("rl", {"app": "trainer"}), Pod("other", dict(leader.labels))
    for port in (29501, 41234):
        assert may_connect(policies, worker, leader, port) and may_connect(policies, leader, worker, port)
        assert may_connect(policies, worker, worker, port)
        assert not may_connect(policies, trainer, leader, port) and not may_connect(policies, other, leader, port)
    assert may_connect(policies, trainer, leader, 8000) and not may_connect(policies, trainer, worker, 8000)


def test_an_eviction_counts_every_pod_of_a_group() -> None:
    made = make()
    selector = made["PodDisruptionBudget/judge"]["spec"]["selector"]
    (parts,) = selector["matchExpressions"]
    for template in pods(made):
        labels = template["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items() and labels[parts["key"]] in parts["values"]


def test_a_new_version_keeps_the_group_that_runs() -> None:
    def settle(made: dict[str, dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        there = {m["metadata"]["name"] for m in before if m["kind"] == "ConfigMap"}
        kept = {m["metadata"]["name"]: k for m in before if (k := Kept.of(m)) is not None}
        return rollout.settle(list(made.values()), "same", kept, there, KEY)

    first = settle(make(), [])
    newer = settle(make(DoorSource(b"another archive", "e" * 64)), first)
    assert [m["metadata"]["name"] for m in newer if m["kind"] == "ConfigMap"] == []
    sets = [next(m for m in made if m["kind"] == "LeaderWorkerSet") for made in (first, newer)]
    assert sets[0] == sets[1] and "genrm.dev/template" in sets[0]["metadata"]["annotations"]


def test_the_image_of_a_group_is_the_engines() -> None:
    assert rollout.engine_image(list(make().values())) == "vllm:1"
