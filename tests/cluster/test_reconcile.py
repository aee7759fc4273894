"""Children, status, repair and deletion, on a real control plane."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from genrm_api.leases import Phase

from dev.bootstrap import ROOT
from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster


def test_a_model_nobody_needs_goes_to_sleep_and_says_so_in_columns_and_conditions(world: World) -> None:
    world.apply()
    status = world.phase("Asleep")
    assert (status["replicas"], status["ready"], status["awake"]) == (2, 2, 0)
    assert status["engine"].startswith("vllm ")
    assert world.condition("Ready")["status"] == "True", "asleep as desired is Ready"
    assert world.condition("Available")["status"] == "False"
    assert all(c["observedGeneration"] == 1 for c in status["conditions"])
    header, row = world.kubectl("get", "rm").stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "AWAKE", "READY", "DESIRED", "ENGINE", "LAST-WAKE", "AGE"]
    assert row.split()[:5] == ["judge", "Asleep", "0", "2", "2"]
    assert sorted(reason for reason, _ in world.events()) == ["Asleep", "Starting"]


def test_what_somebody_deletes_or_changes_comes_back(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.kubectl("delete", "service", "judge-pods")
    wait_for(
        "the Service is back", lambda: [s for s in world.objects("services") if s["metadata"]["name"] == "judge-pods"]
    )
    world.kubectl("scale", "deployment", "judge", "--replicas=5")
    wait_for("the Deployment is scaled back", lambda: len(world.pods()) == 2)


def test_nothing_is_made_for_who_is_gone(world: World) -> None:
    """The garbage collector's deletions may be seen before the one that they follow from."""
    names = [f"gone-{n}" for n in range(10)]
    for name in names:
        world.apply(name, replicas=1)
    for name in names:
        world.phase("Asleep", name)
    world.kubectl("delete", "rm", *names, "--wait=false")
    wait_for("all is gone", lambda: not world.objects("deployments,services,configmaps", "genrm.dev/reward-model"))
    applied = re.findall(
        rf"applied Deployment namespace={world.namespace} name=(gone-\d)\n", world.operator.log.read_text()
    )
    assert sorted(applied) == names


def test_an_unchanged_model_is_left_alone(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    children = "deployments,services,configmaps"
    before = {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in world.objects(children)}
    world.restart(world.pods()[0])  # makes the operator look
    wait_for("the operator has looked", lambda: "EngineRestarted" in [reason for reason, _ in world.events()])
    after = {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in world.objects(children)}
    assert len(before) >= 4 and after == before


def test_replicas_follow_the_scale_subresource(world: World) -> None:
    world.apply(replicas=1)
    world.phase("Asleep")
    world.kubectl("scale", "rm", "judge", "--replicas=3")
    wait_for("three pods sleep", lambda: world.status().get("ready") == 3 and world.status()["phase"] == "Asleep")


def test_off_takes_the_pods_away_and_auto_brings_them_back(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.patch({"lifecycle": {"state": "Off"}})
    world.phase("Off")
    assert world.pods() == []
    world.patch({"lifecycle": {"state": "Auto"}})
    world.phase("Asleep")


def test_deletion_needs_no_operator(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.operator.kill()
    world.kubectl("delete", "rm", "judge", "--wait", "--timeout=20s")
    wait_for(
        "all children are gone",
        lambda: not world.objects("deployments,services,pods", "genrm.dev/reward-model=judge"),
        60,
    )


def test_a_model_that_cannot_work_is_degraded_with_advice_and_heals(world: World) -> None:
    world.apply(model={"uri": "file:///etc/secrets"})
    status = world.phase("Degraded")
    degraded = next(c for c in status["conditions"] if c["type"] == "Degraded")
    assert degraded["reason"] == "HostPathRefused" and "hostModelPrefixes (/models)" in degraded["message"]
    assert world.condition("Ready")["status"] == "False"
    world.patch({"model": {"uri": "file:///models/judge"}})
    world.phase("Asleep")


def test_a_custom_engine_serves_while_it_lives(world: World) -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "/judge.py"]}}
    world.apply(engine=engine, replicas=1)
    status = world.phase("Serving")
    assert status["engine"] == "custom" and status["awake"] == 1
    wait_for("clients see it", lambda: world.serving() == world.addresses())


def test_children_are_owned_and_the_tokens_digest_is_all_the_pod_knows(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    uid = world.objects("rewardmodels")[0]["metadata"]["uid"]
    for child in world.objects("deployments,services,configmaps", "genrm.dev/reward-model=judge"):
        assert [o["uid"] for o in child["metadata"]["ownerReferences"]] == [uid], child["metadata"]["name"]
        assert not child["metadata"].get("finalizers")
    assert not world.objects("rewardmodels")[0]["metadata"].get("finalizers")
    env = {e["name"] for e in world.pods()[0]["spec"]["containers"][0]["env"]}
    assert "GENRM_TOKEN_SHA256" in env and not any("TOKEN" in name and "SHA256" not in name for name in env)
    assert json.dumps(world.pods()).count("GENRM_TOKEN_SHA256") == 2


def test_a_new_version_of_the_operator_replaces_no_engine(world: World, tmp_path: Path) -> None:
    """The next version ships another door: pods keep theirs until somebody changes what they asked for."""
    world.apply()
    world.phase("Asleep")
    before, maps = {p["metadata"]["uid"] for p in world.pods()}, _door_maps(world)
    shutil.copytree(ROOT / "operator" / "genrm_door", tmp_path / "genrm_door")
    (tmp_path / "genrm_door" / "later.py").write_text("# a module that the next version has\n")
    world.operator.kill(signal.SIGTERM)
    world.operator.start(PYTHONPATH=str(tmp_path))
    try:
        world.lease("run-1", Phase.SCORING)  # it takes over, and drives the doors that run
        world.phase("Serving")
        assert {p["metadata"]["uid"] for p in world.pods()} == before and _door_maps(world) == maps
        world.patch({"env": [{"name": "A", "value": "1"}], "rollout": {"pinDuringLease": False}})
        wait_for("the change brings new pods", lambda: not before & {p["metadata"]["uid"] for p in world.pods()}, 60)
        assert len(_door_maps(world) - maps) == 1, "and with them the new door"
        world.phase("Serving")
    finally:
        world.operator.kill(signal.SIGTERM)
        world.operator.start()


def _door_maps(world: World) -> set[str]:
    return {o["metadata"]["name"] for o in world.objects("configmaps", "genrm.dev/reward-model=judge")}
