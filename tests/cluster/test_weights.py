"""Which weights pods serve while a branch of the hub moves, on a real control plane, with a hub on this machine."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.cluster.conftest import World, wait_for
from tests.unit.door.hub import Hub, hub

pytestmark = pytest.mark.cluster

ONE, TWO = "1" * 40, "2" * 40


@pytest.fixture
def moving() -> Iterator[Hub]:
    """The branch is ONE for who asks first, and TWO from then on."""
    with hub([ONE, TWO]) as up:
        yield up


def asks(of: Hub, **spec: Any) -> dict[str, Any]:
    return {"env": [{"name": "HF_ENDPOINT", "value": of.url}], **spec}


def commits(world: World) -> list[str]:
    """What the engines of all pods were started with."""
    told = []
    for address in world.addresses():
        with suppress(httpx.HTTPStatusError):  # it is not there yet, or is just being replaced
            told.append(world.simulator.pod(address)["settings"]["weights"])
    revisions = {json.loads(weights)["revision"] for weights in told if weights}
    return sorted(revisions - {None})  # an address may have been another test's pod's, which had none


def pins(world: World) -> dict[str, str]:
    found = world.objects("configmaps", "genrm.dev/reward-model=judge")
    texts = {m["metadata"]["name"]: m.get("data", {}).get("weights.json") for m in found}  # a door has binaryData
    return {name: text for name, text in texts.items() if text is not None}


def test_a_pod_that_comes_later_serves_what_the_first_one_does(world: World, moving: Hub) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"}, **asks(moving))
    status = world.phase("Serving")
    assert status["resolvedRevision"] == ONE and status["resolvedModel"] == "hf://test/judge@main"
    assert status["weightBytes"] == 5_000_000_000
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    wait_for("the pin is there", lambda: list(pins(world).values()) == [json.dumps(
        {"revision": ONE, "bytes": 5_000_000_000}, separators=(",", ":"))])  # fmt: skip
    asked = len(moving.asked)
    world.patch({"replicas": 3})
    wait_for("three serve", lambda: world.status().get("awake") == 3)
    assert commits(world) == [ONE] and len(moving.asked) == asked, "nobody asked the hub again"
    assert before < {pod["metadata"]["uid"] for pod in world.pods()}, "and no pod was replaced for the pin"
    world.patch({"model": {"revision": "v2"}})
    wait_for("another model is looked up anew", lambda: world.status().get("resolvedRevision") == TWO, 60)
    wait_for("all pods have it", lambda: commits(world) == [TWO] and world.status().get("awake") == 3, 60)
    wait_for("the pin of before is gone", lambda: len(pins(world)) == 1)


def test_of_two_pods_that_looked_while_it_moved_one_is_replaced(world: World, moving: Hub) -> None:
    world.apply(replicas=0, lifecycle={"state": "Awake"}, **asks(moving))
    world.phase("Off")
    world.operator.kill(signal.SIGTERM)  # so that nobody leaves a pin between the first pod's look and the second's
    world.kubectl("scale", "deployment", "judge", "--replicas=2")
    wait_for("both have looked", lambda: commits(world) == [ONE, TWO])
    world.patch({"replicas": 2})
    world.operator.start()
    status = world.phase("Serving", timeout=60)
    assert commits(world) == [status["resolvedRevision"]] and len(world.serving()) == 2
    ((_, note),) = [event for event in world.events() if event[0] == "WeightsDiffer"]
    assert ONE in note and TWO in note and "is replaced" in note
    assert world.condition("Degraded")["status"] == "False"


def test_a_commit_in_the_spec_is_what_it_is(world: World, moving: Hub) -> None:
    world.apply(model={"uri": "hf://test/judge", "revision": "3" * 40}, replicas=1, **asks(moving))
    assert world.phase("Asleep")["resolvedRevision"] == "3" * 40
    assert commits(world) == ["3" * 40]


def test_a_model_that_nobody_can_look_up_serves_as_before(world: World) -> None:
    world.apply()
    assert "resolvedRevision" not in world.phase("Asleep")
    assert pins(world) == {}


def test_a_folder_of_the_node_has_a_condition(world: World) -> None:
    world.apply(model={"uri": "file:///models/judge"})
    world.phase("Asleep")
    assert world.condition("HostPath")["reason"] == "NodeFolder"
