"""Nights that did not go well, though every call was answered 200: a corrupt engine, memory that stays in use."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase
from genrm_operator.transitions import LAG_SECONDS

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

VERIFIED = {"wake": {"verify": True}}
PAIR = {"prompt": "How much is 3 + 3?", "better": "It is 6.", "worse": "It is 7."}
"""As every simulated engine has it, while it is not corrupt."""


def recorded(world: World) -> dict[str, Any]:
    found = world.objects("configmaps", "genrm.dev/reward-model=judge")
    return next(o for o in found if o["metadata"]["name"] == "judge-golden-rows")


@pytest.mark.parametrize(
    "spec",
    [{"lifecycle": VERIFIED}, {"type": "Classifier"}, {"engine": {"name": "sglang"}}],
    ids=["asked for", "classifier", "sglang"],
)
def test_who_computes_something_else_after_a_wake_does_not_serve(world: World, spec: dict[str, Any]) -> None:
    world.apply(**spec)
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


def test_an_engine_that_computes_for_who_did_not_come_by_its_door_is_told_and_sleeps(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    (address,) = world.addresses()
    world.simulator.put(address, faults={"strays": 2})
    wait_for(
        "nobody has been inside for as long as metrics lag",
        lambda: world.simulator.pod(address)["idleSeconds"] > LAG_SECONDS,
    )
    world.patch({"lifecycle": {"state": "Asleep"}})
    world.phase("Asleep")
    told = wait_for("it is told", lambda: [note for reason, note in world.events() if reason == "StrayRequests"])
    assert len(told) == 1 and "computed 2 requests" in told[0]
    metrics = httpx.get(f"http://127.0.0.1:{world.operator.metrics_port}/metrics", trust_env=False).text
    (count,) = re.findall(r'^genrm_stray_requests_total\{engine="vllm"\} (\S+)$', metrics, re.MULTILINE)
    assert float(count) >= 2


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
    assert world.condition("ScoresVerified")["reason"] == "NotConfirmed"


@pytest.mark.parametrize("kind", ["Generative", "Classifier"])
def test_who_prefers_the_worse_response_of_a_pair_does_not_serve(world: World, kind: str) -> None:
    world.apply(type=kind, lifecycle={"wake": {"verify": False}}, scoring={"canary": {"pairs": [PAIR]}})
    world.phase("Asleep")
    said = world.condition("ScoresVerified")
    assert (said["status"], said["reason"]) == ("True", "BetterPreferred"), "asked after the start, without verify"
    sick, well = world.addresses()
    world.simulator.put(sick, faults={"corrupt": True})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("it is told", lambda: world.condition("ScoresVerified")["status"] == "False")
    said = world.condition("ScoresVerified")
    assert said["reason"] == "WorsePreferred"
    assert "does not prefer the better response of spec.scoring.canary.pairs[0]" in said["message"]
    wait_for("the other one serves", lambda: world.serving() == [well])
    world.simulator.put(sick, faults={})
    world.phase("Serving")
    assert world.condition("ScoresVerified")["status"] == "True"


def test_a_pair_that_is_wrong_keeps_all_out_until_it_is_corrected(world: World) -> None:
    wrong = {**PAIR, "better": PAIR["worse"], "worse": PAIR["better"]}
    world.apply(replicas=1, lifecycle={"state": "Awake"}, scoring={"canary": {"pairs": [PAIR, wrong]}})
    wait_for("it is told", lambda: world.condition("ScoresVerified").get("reason") == "WorsePreferred")
    assert "pairs[1]" in world.condition("ScoresVerified")["message"]
    assert world.serving() == []
    world.patch({"scoring": {"canary": {"pairs": [PAIR]}}})
    world.phase("Serving")
    assert world.condition("ScoresVerified")["reason"] == "BetterPreferred"


def first_is_corrupt(world: World, **wake: Any) -> str:
    """A model of one replica that serves, and whose recording is of a corrupt engine; its address."""
    world.apply(replicas=1, lifecycle={"wake": {"verify": True, **wake}})
    world.phase("Asleep")
    (first,) = world.addresses()
    world.simulator.put(first, faults={"corrupt": True})
    world.kubectl("delete", "configmap", "judge-golden-rows")
    world.lease("run-1", Phase.SCORING, ttl=120)
    world.phase("Serving")
    assert world.condition("ScoresVerified")["reason"] == "NotConfirmed"
    return first


def never_beside(world: World, first: str) -> list[str]:
    """Who serves: one of the first and others at a time."""
    serving = world.serving()
    assert first not in serving or serving == [first], "a fleet serves one reward"
    return serving


def test_the_first_serves_until_a_third_is_there_and_not_beside_those_who_outvote_it(world: World) -> None:
    first = first_is_corrupt(world, maxFailures=100)
    world.patch({"replicas": 2})
    wait_for("the second is told", lambda: world.condition("ScoresVerified")["status"] == "False")
    said = world.condition("ScoresVerified")
    assert said["reason"] == "ScoresDiffer" and "No third pod has decided which of the two is right" in said["message"]
    assert never_beside(world, first) == [first]
    world.patch({"replicas": 3})
    others = wait_for("the others serve", lambda: len(found := never_beside(world, first)) == 2 and found)
    assert first not in others
    wait_for("the first is told", lambda: "and another pod since" in world.condition("ScoresVerified")["message"])
    world.simulator.put(first, faults={})
    world.phase("Serving")
    assert world.condition("ScoresVerified")["status"] == "True"


def test_a_fleet_of_two_whose_first_engine_is_corrupt_heals_by_itself(world: World) -> None:
    """Who differs is replaced, and the one that comes for it decides; then the first is."""
    first_is_corrupt(world, maxFailures=1)
    (before,) = (pod["metadata"]["uid"] for pod in world.pods())
    world.patch({"replicas": 2})
    wait_for("the first is replaced", lambda: before not in {pod["metadata"]["uid"] for pod in world.pods()})
    world.phase("Serving")
    assert len(world.pods()) == 2 and world.condition("ScoresVerified")["status"] == "True"
    assert sum(reason == "PodReplaced" for reason, _ in world.events()) == 2
