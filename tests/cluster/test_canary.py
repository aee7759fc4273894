"""Nights that did not go well, though every call was answered 200: a corrupt engine, memory that stays in use."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

VERIFIED = {"wake": {"verify": True}}


def recorded(world: World) -> dict[str, Any]:
    found = world.objects("configmaps", "genrm.dev/reward-model=judge")
    return next(o for o in found if o["metadata"]["name"] == "judge-golden-rows")


def test_who_computes_something_else_after_a_wake_does_not_serve(world: World) -> None:
    world.apply(lifecycle=VERIFIED)
    status = world.phase("Asleep")
    assert world.condition("ScoresVerified")["status"] == "True"
    assert status["goldenRows"] == recorded(world)["metadata"]["annotations"]["genrm.dev/golden-digest"]
    sick, well = world.addresses()
    world.simulator.put(sick, faults={"corrupt": True})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("it is told", lambda: world.condition("ScoresVerified")["status"] == "False")
    said = world.condition("ScoresVerified")
    assert said["reason"] == "ScoresDiffer" and "computes other scores than pod" in said["message"]
    wait_for("the other one serves", lambda: world.serving() == [well])
    assert any("computes other scores" in note for _, note in world.events())
    world.simulator.put(sick, faults={})
    world.phase("Serving")
    assert world.condition("ScoresVerified")["status"] == "True"


def test_a_sleep_that_keeps_the_memory_is_told(world: World) -> None:
    world.apply(replicas=1)
    world.phase("Asleep")
    assert world.condition("SleepEffective")["status"] == "True"
    world.simulator.put(world.addresses()[0], faults={"keeps": 0.85})
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.renew("run-1", Phase.IDLE)
    world.phase("Asleep")
    wait_for("it is told", lambda: world.condition("SleepEffective")["status"] == "False")
    said = world.condition("SleepEffective")
    assert said["reason"] == "MemoryKept" and "kept 61.2 of 72.0 GiB" in said["message"]


def test_what_was_recorded_is_there_for_the_next_operator_and_may_be_deleted(world: World) -> None:
    world.apply(replicas=1, lifecycle=VERIFIED)
    world.phase("Asleep")
    before = recorded(world)["data"]
    world.operator.kill()
    world.operator.start()
    (ip,) = world.addresses()
    world.simulator.put(ip, faults={"corrupt": True})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("it is told", lambda: world.condition("ScoresVerified")["status"] == "False")
    assert recorded(world)["data"] == before
    world.kubectl("delete", "configmap", "judge-golden-rows")
    world.phase("Serving")
    assert recorded(world)["data"] != before
    assert "nobody was there to compare with" in world.condition("ScoresVerified")["message"]
