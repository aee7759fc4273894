"""Replicas that span nodes, against the published definition of LeaderWorkerSet.

Its controller is not here: what it would make of a set, one leader and one worker, the tests make by hand.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator.children import children
from genrm_operator.door_source import door_source
from genrm_operator.engines import adapter_for
from genrm_operator.settings import Settings

from dev.bootstrap import ROOT
from dev.cluster import Cluster
from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

CRD = "leaderworkersets.leaderworkerset.x-k8s.io"
SPREAD: dict[str, Any] = {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, "replicas": 1}


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    packed = ROOT / "tests" / "fixtures" / "leaderworkerset" / "leaderworkersets.yaml.gz"
    file = tmp_path / "crd.yaml"
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    return file


def install(cluster: Cluster, definition: Path) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(definition))
    served = ["get", "leaderworkersets", "--all-namespaces"]
    wait_for("it is served", lambda: cluster.kubectl(*served, check=False).returncode == 0, timeout=60)


@pytest.fixture
def leader_worker_sets(cluster: Cluster) -> Iterator[None]:
    """Takes the definition away at the end: for all other tests there is none."""
    yield
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found")


def found(world: World) -> dict[str, Any] | None:
    done = world.kubectl("get", "leaderworkersets", "judge-nodes", "-o", "json", check=False)
    return None if done.returncode else dict(json.loads(done.stdout))


def run(world: World, template: dict[str, Any], name: str) -> None:
    """Make a pod of one of a set's templates, as its controller would."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": name}}
    # The fake node has no GPUs to ask for.
    spec = template["spec"] | {"containers": [c | {"resources": {}} for c in template["spec"]["containers"]]}
    world.kubectl("create", "-f", "-", input=json.dumps(pod | {"spec": spec}))


@pytest.mark.usefixtures("leader_worker_sets")
def test_a_model_that_spans_nodes_waits_for_leader_worker_set_and_follows_it(world: World, definition: Path) -> None:
    world.apply(**SPREAD)
    wait_for("it says what is missing", lambda: world.condition("Degraded").get("reason") == "ApplyFailed")
    assert "does not have; install it (https://lws.sigs.k8s.io)" in world.condition("Degraded")["message"]

    install(world.cluster, definition)
    made = wait_for("the set is made", lambda: found(world), timeout=60)
    assert made["spec"]["leaderWorkerTemplate"]["size"] == 2 and made["spec"]["replicas"] == 1
    wait_for("all is well", lambda: world.condition("Degraded").get("status") == "False")

    run(world, made["spec"]["leaderWorkerTemplate"]["leaderTemplate"], "judge-nodes-0")
    run(world, made["spec"]["leaderWorkerTemplate"]["workerTemplate"], "judge-nodes-0-1")
    status = world.phase("Serving")
    assert [e["pod"] for e in status["endpoints"]] == ["judge-nodes-0"] and status["replicas"] == 1
    wait_for("the leader is the one endpoint", lambda: len(world.serving()) == 1)

    world.kubectl("delete", "pod", "judge-nodes-0", "judge-nodes-0-1", "--now")
    wait_for("no pods are left", lambda: world.status().get("replicas") == 0)
    world.patch({"gpu": {"nodes": 1}})
    wait_for("the set is gone", lambda: found(world) is None)
    wait_for("a Deployment is there", lambda: world.objects("deployments", "genrm.dev/reward-model=judge"))


@pytest.mark.usefixtures("leader_worker_sets")
def test_a_set_that_somebody_changes_or_deletes_comes_back_and_goes_with_its_model(
    world: World, definition: Path
) -> None:
    install(world.cluster, definition)
    world.apply(**SPREAD)
    wait_for("it is there", lambda: found(world))
    world.kubectl("patch", "leaderworkerset", "judge-nodes", "--type=merge", "-p", '{"spec": {"replicas": 7}}')
    wait_for("it is scaled back", lambda: (found(world) or {"spec": {}})["spec"].get("replicas") == 1, timeout=90)
    world.kubectl("delete", "leaderworkerset", "judge-nodes")
    wait_for("it is back", lambda: found(world), timeout=90)
    world.patch({"lifecycle": {"state": "Off"}})
    wait_for("Off is no groups", lambda: (found(world) or {"spec": {}})["spec"].get("replicas") == 0)
    world.kubectl("delete", "rm", "judge")
    wait_for("it is collected", lambda: found(world) is None, timeout=60)


@pytest.mark.usefixtures("leader_worker_sets")
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_field_of_ours_is_one_of_the_definition(world: World, definition: Path, engine: str) -> None:
    install(world.cluster, definition)
    meta = {"name": "judge", "namespace": world.namespace, "uid": "u1"}
    spec = {
        "model": {"uri": "pvc://weights", "cache": {"claimName": "cache"}},
        **SPREAD,
        "engine": {"name": engine, "tensorParallel": 2},
        "podTemplate": {"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    }
    rm = RewardModel.model_validate({"metadata": meta, "spec": spec})
    images = {"vllm": "vllm:1", "sglang": "sglang:1"}
    settings = Settings(master_key=b"k" * 32, engine_images=images)
    (manifest,) = (
        m for m in children(rm, adapter_for(rm.spec.engine.name), door_source(), settings)
        if m["kind"] == "LeaderWorkerSet"
    )  # fmt: skip
    strict = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    world.kubectl(*strict, input=json.dumps(manifest))
    manifest["spec"]["leaderWorkerTemplate"]["sizes"] = 2
    assert "sizes" in world.kubectl(*strict, input=json.dumps(manifest), check=False).stderr, "it is strict"
