"""Models on slots: where their pods go, and who gets a slot that two models name. GPUs are names here.

That no two engines on one GPU have their memory up is the simulator's own word (`Fleet.collisions`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from genrm_api.leases import Phase, lease_name
from genrm_api.names import slot_deployment_name

from dev.bootstrap import ROOT
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
def device_class(world: World) -> Iterator[str]:
    """Of the two GPUs that a driver, were there one, would tell of."""
    driver = f"{world.namespace}.gpus.test"
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    gpus = [{"name": f"gpu-{number}"} for number in range(2)]
    mine = {"cel": {"expression": f"device.driver == '{driver}'"}}
    api = {"apiVersion": "resource.k8s.io/v1"}
    made: list[dict[str, Any]] = [
        api | {"kind": "DeviceClass", "metadata": {"name": driver}, "spec": {"selectors": [mine]}},
        api | {
            "kind": "ResourceSlice", "metadata": {"name": driver},
            "spec": {"driver": driver, "nodeName": NODE, "pool": pool, "devices": gpus},
        },
    ]  # fmt: skip
    for manifest in made:
        world.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    yield driver
    world.kubectl("delete", "deviceclass,resourceslice", driver)


def test_a_pod_gets_the_claim_of_its_slot(world: World, device_class: str) -> None:
    claims = ["gpu-0", "gpu-1"]
    asked = {"requests": [{"name": "gpu", "exactly": {"deviceClassName": device_class}}]}
    for name in claims:
        claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}}
        world.kubectl("apply", "-f", "-", input=json.dumps(claim | {"spec": {"devices": asked}}))
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


def slot_word(world: World, name: str) -> tuple[str, str]:
    found = world.condition("SlotBlocked", name)
    return found.get("status", ""), found.get("reason", "")


def two_models(world: World, device: int, **lifecycle: Any) -> None:
    """`judge` and `second`, both at rest, on one GPU."""
    for name in ("judge", "second"):
        world.apply(name, **colocated(device), lifecycle=lifecycle)
    for name in ("judge", "second"):
        world.phase("Asleep", name)
    assert {e["state"] for name in ("judge", "second") for e in world.status(name)["endpoints"]} == {"Gated"}


def hand_over(world: World, giver: str, taker: str) -> None:
    """One run goes from a model to another one on the same GPU."""
    world.renew("run-1", Phase.IDLE, giver)
    world.renew("run-1", Phase.SCORING, taker)
    world.phase("Serving", taker)
    world.phase("Asleep", giver)


@pytest.mark.parametrize("mode", ["Engine", "Restart"])
def test_two_models_take_turns_on_one_gpu(world: World, mode: str) -> None:
    two_models(world, 2 if mode == "Engine" else 11, sleep={"mode": mode})
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.lease("run-1", Phase.IDLE, name="second")
    for giver, taker in [("judge", "second"), ("second", "judge")] * 2 + [("judge", "second")]:
        hand_over(world, giver, taker)
        assert slot_word(world, taker) == ("False", "SlotGiven")
        assert slot_word(world, giver) == ("False", "SlotNotAsked")
    resting = {e["state"] for e in world.status("judge")["endpoints"]}
    assert resting == ({"Gated"} if mode == "Restart" else {"Asleep"})
    (pod,) = world.addresses("second")
    assert world.simulator.pod(pod)["starts"] == (3 if mode == "Restart" else 1)
    assert world.simulator.collisions() == []


def test_a_run_waits_until_another_ones_model_rests(world: World) -> None:
    two_models(world, 3)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.lease("run-2", Phase.SCORING, name="second")
    world.phase("Waiting", "second")
    assert slot_word(world, "second") == ("False", "SlotAwaited")
    message = world.condition("SlotBlocked", "second")["message"]
    assert message.startswith(f"slot gpu-3 is {world.namespace}/judge's, as long as it is asked for or until")
    assert message in world.condition("Ready", "second")["message"] and world.status()["phase"] == "Serving"
    world.release("run-1")
    world.phase("Serving", "second")
    assert world.simulator.collisions() == []


def test_nobody_waits_for_ever_for_a_model_that_is_always_wanted(world: World) -> None:
    two_models(world, 4)
    world.operator.kill()
    world.operator.start(GENRM_SLOT_TURN_SECONDS="1")
    try:
        world.patch({"lifecycle": {"state": "Awake"}})
        world.phase("Serving")
        world.patch({"lifecycle": {"state": "Awake"}}, "second")
        for name in ("second", "judge", "second"):
            world.phase("Serving", name)
    finally:
        world.operator.kill()
        world.operator.start()
    assert world.simulator.collisions() == []


def test_a_run_that_would_wait_for_itself_is_refused_at_once(world: World) -> None:
    two_models(world, 5)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.lease("run-1", Phase.SCORING, name="second")
    wait_for("it says so", lambda: slot_word(world, "second") == ("True", "SlotDeadlock"))
    said = world.condition("SlotBlocked", "second")["message"]
    assert said.startswith(f"run run-1 holds slot gpu-5 by {world.namespace}/judge and waits for")

    def refused(name: str) -> str | None:
        lease = world.cluster.reader.get("leases", world.namespace, lease_name("run-1", name))
        found = lease["metadata"]["annotations"].get("genrm.dev/refused")
        return None if found is None else str(found)

    assert (
        wait_for("the run is told", lambda: refused("second")) == f"SlotDeadlock: {said}" and refused("judge") is None
    )
    world.renew("run-1", Phase.IDLE)
    world.phase("Serving", "second")
    wait_for("and told no more", lambda: refused("second") is None)


def test_a_slot_that_nobody_sees_to_be_free_is_given_to_nobody(world: World) -> None:
    two_models(world, 6)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    (address,) = world.addresses()
    world.simulator.put(address, faults={"refuse": True})
    world.release("run-1")
    world.lease("run-2", Phase.SCORING, name="second")
    wait_for("it says so", lambda: slot_word(world, "second") == ("True", "SlotUnseen"))
    (pod,) = world.pods()
    assert world.condition("SlotBlocked", "second")["message"] == (
        f"slot gpu-6 is not seen to be free: {world.namespace}/judge, which names the same GPUs, has pod "
        f"{pod['metadata']['name']}, which does not answer"
    )
    world.simulator.put(address, faults={})
    world.phase("Serving", "second")
    assert world.simulator.collisions() == []


def test_who_deletes_the_holder_frees_the_slot(world: World) -> None:
    two_models(world, 12)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.lease("run-2", Phase.SCORING, name="second")
    world.phase("Waiting", "second")
    world.kubectl("delete", "rm", "judge", "--wait=false")
    world.phase("Serving", "second")
    assert not world.pods()


def test_an_operator_that_dies_in_a_handover_gives_no_slot_twice(world: World) -> None:
    two_models(world, 13)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.lease("run-1", Phase.IDLE, name="second")
    models = ["judge", "second"]

    def begun(giver: str) -> bool:
        return bool(world.status(giver)["phase"] != "Serving")

    for route, slow in [("/sleep", "judge"), ("/start", "judge"), ("/sleep", "second"), ("/wake_up", "second")]:
        giver, taker = models
        (address,) = world.addresses(slow)
        world.simulator.put(address, faults={"slow": {route: 1.0}})
        world.renew("run-1", Phase.IDLE, giver)
        world.renew("run-1", Phase.SCORING, taker)
        wait_for("it has begun", partial(begun, giver))
        world.operator.kill()
        world.operator.start()
        world.phase("Serving", taker)
        world.simulator.put(address, faults={})
        models.reverse()
    assert world.simulator.collisions() == []


def test_two_slots_of_one_model_that_are_one_gpu_are_refused(world: World) -> None:
    slots = [{"name": name, "node": NODE, "devices": [14]} for name in ("x", "y")]
    world.apply(gpu={"sharing": "Colocated", "slots": slots}, replicas=2)
    wait_for("it says so", lambda: world.condition("Degraded").get("reason") == "SlotTwice")
    assert not world.pods()


def test_an_engine_that_sleeps_by_its_end_comes_back_at_the_next_wake(world: World) -> None:
    """Without a slot: it starts once, is verified, and rests at its gate from then on."""
    world.apply(lifecycle={"sleep": {"mode": "Restart"}})
    status = world.phase("Asleep")
    assert {e["state"] for e in status["endpoints"]} == {"Gated"}
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    wait_for("both are endpoints", lambda: world.serving() == world.addresses())
    world.release("run-1")
    world.phase("Asleep")
    assert [world.simulator.pod(a)["starts"] for a in world.addresses()] == [1, 1]
    assert [world.simulator.pod(a)["up"] for a in world.addresses()] == [False, False]
    assert world.condition("SleepEffective")["status"] == "True"


# ---------------------------------------------------------------------- what we tell people to apply


def apply_example(world: World, file: str, here: Mapping[str, str] = MappingProxyType({})) -> None:
    """With other words where it names what this cluster does not have."""
    text = (ROOT / "examples" / file).read_text()
    for shown, instead in here.items():
        assert shown in text
        text = text.replace(shown, instead)
    world.kubectl("apply", "-f", "-", input=text)


def test_the_example_with_gpus_of_its_own_comes_about(world: World) -> None:
    gpus = {"status": {kind: {"nvidia.com/gpu": "4"} for kind in ("capacity", "allocatable")}}
    world.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(gpus))
    apply_example(world, "rewardmodel.yaml")
    world.phase("Asleep")
    (deployment,) = world.objects("deployments", "genrm.dev/reward-model=judge")
    assert deployment["spec"]["replicas"] == 2
    for pod in world.pods():
        (engine,) = pod["spec"]["containers"]
        assert engine["resources"]["limits"]["nvidia.com/gpu"] == "2" and pod["spec"]["nodeName"] == NODE
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")


def nobody_serves(world: World, name: str) -> bool:
    return world.serving(name) == []


@pytest.mark.parametrize("file", ["rewardmodel-slots.yaml", "rewardmodel-shared-gpus.yaml"])
def test_the_examples_whose_models_share_gpus_come_about_and_take_turns(
    world: World, device_class: str, file: str
) -> None:
    if file == "rewardmodel-slots.yaml":
        apply_example(world, file, {"gpu.nvidia.com": device_class})
    else:
        # No claim of a volume is here; and other tests have the node's first GPUs.
        places = {"gpu-node-1": NODE, "devices: [0]": "devices: [60]", "devices: [1]": "devices: [61]"}
        apply_example(world, file, {**places, "pvc://weights/": "hf://weights/"})
    names = ("judge", "preference")
    for name in names:
        world.phase("Asleep", name)
        pods = {p["metadata"]["labels"]["genrm.dev/slot"]: p["spec"]["nodeName"] for p in world.pods(name)}
        assert pods == {"left": NODE, "right": NODE}, "one in each slot"
        owned = world.objects("deployments", f"genrm.dev/reward-model={name}")
        assert [d["spec"]["replicas"] for d in owned] == [1, 1]
    for name, other in (names, names[::-1], names):
        world.lease(f"run-{name}", Phase.SCORING, name=name)
        world.phase("Serving", name)
        wait_for("nobody sends to the other", partial(nobody_serves, world, other))
        world.release(f"run-{name}", name)
    assert world.simulator.collisions() == []
    if file == "rewardmodel-slots.yaml":
        for slot in ("left", "right"):
            claim = json.loads(world.kubectl("get", "resourceclaim", slot, "-o", "json").stdout)
            assert len(claim["status"]["reservedFor"]) == 2, "a pod of each"
