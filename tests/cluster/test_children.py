"""Children that come and go, and what the API server lets in, on a real control plane."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.conftest import RELEASE, World, wait_for

pytestmark = pytest.mark.cluster

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
ROUTER: dict[str, Any] = {"routing": {"mode": "Router"}}
KINDS = "deployments,services,networkpolicies"


def names(world: World) -> set[str]:
    return {f"{o['metadata']['name']}" for o in world.objects(KINDS, "genrm.dev/reward-model=judge")}


def restrict(world: World) -> None:
    world.cluster.kubectl("label", "namespace", world.namespace, RESTRICTED)


def test_engine_and_router_pods_fit_the_profile_restricted(world: World) -> None:
    restrict(world)
    world.apply(**ROUTER)
    wait_for("three pods are let in", lambda: len(world.pods()) == 3)
    assert world.condition("Degraded").get("reason") != "PodsRefused"


def test_a_model_on_the_node_does_not_fit_it_and_says_so(world: World) -> None:
    restrict(world)
    world.apply(model={"uri": "file:///models/judge"})
    wait_for("it says so", lambda: world.condition("Degraded").get("reason") == "PodsRefused")
    assert "hostPath" in world.condition("Degraded")["message"] and world.status()["phase"] == "Degraded"
    world.patch({"model": {"uri": "hf://test/judge"}})
    world.phase("Asleep")


def test_a_router_comes_and_goes_with_its_field(world: World) -> None:
    world.apply(**ROUTER)
    wait_for("it is there", lambda: {"judge", "judge-pods", "judge-router"} <= names(world))
    engines = [d["spec"]["template"] for d in world.objects("deployments") if d["metadata"]["name"] == "judge"]
    world.patch({"routing": {"mode": "Direct"}})
    wait_for("it is gone", lambda: "judge-router" not in names(world))
    assert {"judge", "judge-pods"} <= names(world)
    after = [d["spec"]["template"] for d in world.objects("deployments") if d["metadata"]["name"] == "judge"]
    assert engines == after, "no engine is replaced for it"


def test_what_a_user_labelled_like_a_child_is_left_alone(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mine", "labels": {"genrm.dev/reward-model": "judge"}},
        "spec": {"selector": {"genrm.dev/reward-model": "judge"}, "ports": [{"port": 80}]},
    }
    world.kubectl("apply", "-f", "-", input=json.dumps(service))
    world.patch({"replicas": 3})
    wait_for("it has looked and acted", lambda: world.status().get("ready") == 3)
    assert any(o["metadata"]["name"] == "mine" for o in world.objects("services"))


def test_the_door_of_before_is_removed_when_no_pod_has_it_any_more(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    (door,) = world.objects("configmaps", "genrm.dev/reward-model=judge")
    old = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {k: door["metadata"][k] for k in ("labels", "ownerReferences")} | {"name": "judge-door-0000000000"},
    }
    world.kubectl("apply", "-f", "-", input=json.dumps(old))

    def maps() -> set[str]:
        return {o["metadata"]["name"] for o in world.objects("configmaps", "genrm.dev/reward-model=judge")}

    wait_for("only the one in use is left", lambda: maps() == {door["metadata"]["name"]})


def test_a_network_policy_that_somebody_opened_is_put_back(world: World) -> None:
    world.apply()
    world.phase("Asleep")

    def rules() -> object:
        (policy,) = world.objects("networkpolicies", "genrm.dev/reward-model=judge")
        return policy["spec"]["ingress"]

    before = rules()
    world.kubectl("patch", "networkpolicy", "judge", "--type=merge", "-p", '{"spec":{"ingress":[{}]}}')
    wait_for("it is as it was", lambda: rules() == before)


def test_a_permission_that_is_missing_is_named_and_all_is_well_when_it_comes(world: World) -> None:
    role = json.loads(world.cluster.kubectl("get", "clusterrole", RELEASE, "-o", "json").stdout)
    without = [rule for rule in role["rules"] if "networkpolicies" not in rule["resources"]]
    change = ["patch", "clusterrole", RELEASE, "--type=merge", "-p"]
    world.cluster.kubectl(*change, json.dumps({"rules": without}))
    try:
        world.apply()
        wait_for("it says so", lambda: world.condition("Degraded").get("reason") == "ApplyFailed")
        message = world.condition("Degraded")["message"]
        assert "cannot" in message and "networkpolicies" in message
        assert not world.pods(), "no engine before its guard"
    finally:
        world.cluster.kubectl(*change, json.dumps({"rules": role["rules"]}))
    world.phase("Asleep")
    with world.operator.log.open("r+") as log:
        log.truncate(0)  # the tier's last word is that nothing was refused; here it had to be
