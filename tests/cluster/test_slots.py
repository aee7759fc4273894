"""Models on slots: where their pods go, and who gets a slot that two models name. GPUs are names here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from genrm_api.names import slot_deployment_name

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

NODE = "fake-0"


def colocated(*devices: int) -> dict[str, Any]:
    """A slot for each device of the fake node."""
    slots = [{"name": f"gpu-{number}", "node": NODE, "devices": [number]} for number in devices]
    return {"gpu": {"sharing": "Colocated", "slots": slots}, "replicas": len(slots)}


def deployments(world: World) -> dict[str, int]:
    found = world.objects("deployments", "genrm.dev/reward-model=judge")
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in found}


def older(world: World, name: str = "judge") -> None:
    """Wait until whatever is made now is younger: the API server tells seconds."""
    made = world.cluster.reader.get("rewardmodels", world.namespace, name)["metadata"]["creationTimestamp"]
    then = datetime.fromisoformat(made) + timedelta(seconds=1)
    wait_for("a second later", lambda: datetime.now(UTC) > then)


def test_a_model_has_a_pod_in_each_slot_that_sleeps_wakes_goes_and_comes_back(world: World) -> None:
    world.apply(**colocated(0, 1))
    world.phase("Asleep")
    seen = {p["metadata"]["labels"]["genrm.dev/slot"]: p["spec"] for p in world.pods()}
    assert set(seen) == {"gpu-0", "gpu-1"} and {spec["nodeName"] for spec in seen.values()} == {NODE}
    env = {e["name"]: e.get("value") for e in seen["gpu-1"]["containers"][0]["env"]}
    assert env["NVIDIA_VISIBLE_DEVICES"] == "1"
    assert world.status()["replicas"] == 2

    world.patch({"lifecycle": {"state": "Awake"}})
    world.phase("Serving")
    wait_for("both are endpoints of one Service", lambda: world.serving() == world.addresses())
    world.patch({"lifecycle": {"state": "Off"}})
    world.phase("Off")
    assert list(deployments(world).values()) == [0, 0]
    world.patch({"lifecycle": {"state": "Auto"}})
    world.phase("Asleep")
    assert len(world.pods()) == 2


def test_a_slot_that_is_named_no_more_loses_its_deployment(world: World) -> None:
    world.apply(**colocated(9, 10), lifecycle={"state": "Off"})
    world.phase("Off")
    wait_for("each has one", lambda: len(deployments(world)) == 2)
    world.patch(colocated(9))
    wait_for("one is left", lambda: deployments(world) == {slot_deployment_name("judge", "gpu-9"): 0})
    world.patch({"lifecycle": {"state": "Auto"}})
    world.phase("Asleep")


@pytest.fixture
def claims(world: World) -> Iterator[list[str]]:
    """Two ResourceClaims for the two GPUs that a driver, were there one, would tell of."""
    driver = f"{world.namespace}.gpus.test"
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    gpus = [{"name": f"gpu-{number}"} for number in range(2)]
    mine = {"cel": {"expression": f"device.driver == '{driver}'"}}
    asked = {"requests": [{"name": "gpu", "exactly": {"deviceClassName": driver}}]}
    api = {"apiVersion": "resource.k8s.io/v1"}
    made: list[dict[str, Any]] = [
        api | {"kind": "DeviceClass", "metadata": {"name": driver}, "spec": {"selectors": [mine]}},
        api | {
            "kind": "ResourceSlice", "metadata": {"name": driver},
            "spec": {"driver": driver, "nodeName": NODE, "pool": pool, "devices": gpus},
        },
        *(
            api | {"kind": "ResourceClaim", "metadata": {"name": gpu["name"]}, "spec": {"devices": asked}}
            for gpu in gpus
        ),
    ]  # fmt: skip
    for manifest in made:
        world.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    yield [gpu["name"] for gpu in gpus]
    world.kubectl("delete", "deviceclass,resourceslice", driver)


def test_a_pod_gets_the_claim_of_its_slot(world: World, claims: list[str]) -> None:
    slots = [{"name": name} for name in claims]
    world.apply(gpu={"sharing": "SharedClaim", "slots": slots}, replicas=2)
    world.phase("Asleep")
    pods = {p["metadata"]["labels"]["genrm.dev/slot"]: p["metadata"]["name"] for p in world.pods()}
    for name in claims:
        claim = json.loads(world.kubectl("get", "resourceclaim", name, "-o", "json").stdout)
        assert [user["name"] for user in claim["status"]["reservedFor"]] == [pods[name]]
    devices = [
        json.loads(world.kubectl("get", "resourceclaim", name, "-o", "json").stdout)["status"]["allocation"]["devices"]
        for name in claims
    ]
    assert {d["results"][0]["device"] for d in devices} == {"gpu-0", "gpu-1"}, "one each"
    world.patch({"lifecycle": {"state": "Awake"}})
    world.phase("Serving")


def test_a_change_comes_to_one_slot_after_another(world: World) -> None:
    world.apply(**colocated(7, 8))
    world.phase("Asleep")
    before = {p["metadata"]["uid"] for p in world.pods()}
    world.patch({"engine": {"dtype": "float32"}})

    def changed() -> list[dict[str, Any]] | None:
        new = [p for p in world.pods() if p["metadata"]["uid"] not in before]
        return new if len(new) == 2 else None

    first, second = sorted(
        wait_for("both are new", changed, 60), key=lambda p: p["metadata"]["labels"]["genrm.dev/slot"]
    )
    world.phase("Asleep")
    conditions = world.cluster.reader.get("pods", world.namespace, first["metadata"]["name"])["status"]["conditions"]
    (verified,) = (c for c in conditions if c["type"] == "genrm.dev/verified")
    assert second["metadata"]["creationTimestamp"] >= verified["lastTransitionTime"], "not before the first runs"
    stamps = {p["metadata"]["annotations"]["genrm.dev/revision"] for p in world.pods()}
    assert len(stamps) == 1


def test_a_slot_that_an_older_model_holds_is_waited_for_without_pods(world: World) -> None:
    world.apply(**colocated(2, 3))
    world.phase("Asleep")
    older(world)
    world.apply("second", **colocated(3, 4))
    wait_for("it says so", lambda: world.condition("Degraded", "second").get("reason") == "SlotTaken")
    assert world.condition("Degraded", "second")["message"].startswith(
        f"spec.gpu.slots: gpu-3, device 3 of node {NODE}, is held by RewardModel {world.namespace}/judge, which is"
    )
    assert world.condition("Ready", "second")["status"] == "False" and not world.pods("second")
    assert world.status()["phase"] == "Asleep" and len(world.pods()) == 2, "the older one does not notice"
    world.kubectl("delete", "rm", "judge")
    world.phase("Asleep", "second")
    assert world.condition("Degraded", "second")["status"] == "False"


def test_the_younger_one_may_name_another_slot(world: World) -> None:
    world.apply(**colocated(5))
    wait_for("it is there", lambda: world.pods())
    older(world)
    world.apply("second", **colocated(5))
    wait_for("it says so", lambda: world.condition("Degraded", "second").get("reason") == "SlotTaken")
    world.patch(colocated(6), "second")
    world.phase("Asleep", "second")
