"""What fails around the operator: the API server, its watches, engines that hang, containers that end unseen.

Each ends in a word that somebody can read, in bounded time, and heals.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
import pytest
from genrm_api.leases import Phase
from genrm_operator.leadership import RENEWAL_HOLDS_SECONDS
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.apiserver import ApiProxy, Away
from tests.cluster.conftest import Operator, World, wait_for

pytestmark = pytest.mark.cluster

WATCHES: Final = 8
"""Kinds that the operator follows."""
RECOVERY_SECONDS: Final = 15.0
"""After the API server is back: the next leader, its first look, and what is left of a wake. A container starts at once
here; a kubelet waits longer from time to time."""


@pytest.fixture
def world(proxied: World) -> World:
    """In this file there is one operator, behind the proxy: two of one name would take the Lease from each other."""
    return proxied


def says(operator: Operator, metric: str, **labels: str) -> float | None:
    """What the operator shows of itself; `None` while it shows nothing."""
    try:
        text = httpx.get(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=2, trust_env=False).text
    except httpx.HTTPError:
        return None
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples if s.name == metric)
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def reasons(world: World) -> set[str]:
    return {reason for reason, _ in world.events()}


# -------------------------------------------------------------------------------------------------- the API server


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        (Away.REFUSES, 12.0),
        *(pytest.param(how, 30.0, marks=pytest.mark.proof) for how in Away),
    ],
)
def test_an_api_server_that_goes_away_in_the_middle_of_a_wake(
    proxied: World, api: ApiProxy, how: Away, seconds: float
) -> None:
    proxied.apply()
    proxied.phase("Asleep")
    for ip in proxied.addresses():
        proxied.simulator.put(ip, faults={"slow": {"/wake_up": 2.0}})
    proxied.lease("run-1", Phase.SCORING, ttl=600)
    wait_for("both wakes have begun", lambda: all(proxied.calls("/wake_up").values()))
    before = len(proxied.operator.restarts)
    with api.away(how):
        left = time.monotonic()
        pods = proxied.addresses()
        wait_for("engines wake all the same", lambda: not any(proxied.simulator.pod(ip)["asleep"] for ip in pods))
        wait_for("it leads no more, and says so", lambda: says(proxied.operator, "genrm_leader") == 0.0)
        assert time.monotonic() - left < RENEWAL_HOLDS_SECONDS + RECOVERY_SECONDS
        wait_for("it has lasted", lambda: time.monotonic() - left > seconds, timeout=seconds + 1)
        assert proxied.serving() == [], "nobody could be told of them"
    back = time.monotonic()
    proxied.phase("Serving", timeout=RECOVERY_SECONDS)
    print(f"{how} for {seconds:g} s: serves {time.monotonic() - back:.1f} s after the return")
    wait_for("both endpoints are published", lambda: proxied.serving() == proxied.addresses())
    assert len(proxied.operator.restarts) - before == 1, (
        "it ended because it led no more; the next one waited, so that no back-off grew"
    )
    assert set(proxied.calls("/wake_up").values()) == {1}
    assert says(proxied.operator, "genrm_leader") == 1.0
    proxied.release("run-1")
    proxied.phase("Asleep")


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.proof)])
def test_a_watch_that_is_cut_again_and_again_misses_nothing(proxied: World, api: ApiProxy, times: int) -> None:
    proxied.apply()
    proxied.phase("Asleep")
    proxied.lease("run-1", Phase.IDLE, ttl=600)
    process = proxied.operator.process
    for number in range(times):
        wait_for("all watches are open", lambda: api.watches() >= WATCHES)
        api.cut()
        proxied.renew("run-1", Phase.IDLE if number % 2 else Phase.SCORING)
        proxied.phase("Asleep" if number % 2 else "Serving", timeout=10)
    assert proxied.operator.process is process and proxied.operator.alive()
    assert set(proxied.calls("/wake_up").values()) == {(times + 1) // 2}


def test_what_was_deleted_while_the_api_server_forgot_it_is_not_waited_for(proxied: World, api: ApiProxy) -> None:
    """An API server that starts anew remembers nothing: watches begin with a list, and no list names what is gone."""
    proxied.apply("gone", replicas=1)
    proxied.apply(lifecycle={"state": "Awake"})
    proxied.phase("Asleep", "gone")
    proxied.phase("Serving")
    proxied.lease("run-1", Phase.IDLE, ttl=600)
    wait_for("the run is seen", lambda: proxied.status().get("leases"))
    process, lost = proxied.operator.process, proxied.pods()[0]["metadata"]["name"]
    with api.deaf():
        proxied.kubectl("delete", "pod", lost, "--wait=false")
        proxied.kubectl("delete", "rewardmodel", "gone", "--wait=false")
        proxied.release("run-1")
        wait_for("it is gone, and another one there", lambda: lost not in names(proxied) and len(names(proxied)) == 2)
    wait_for(
        "both that there are serve", lambda: len(proxied.serving()) == 2 and proxied.status()["phase"] == "Serving"
    )
    assert {endpoint["pod"] for endpoint in proxied.status()["endpoints"]} == set(names(proxied))
    wait_for("the run is forgotten", lambda: not proxied.status().get("leases"))
    proxied.patch({"lifecycle": {"state": "Asleep"}})
    proxied.phase("Asleep")
    assert proxied.operator.process is process and proxied.operator.alive(), "or a new one would know no better"
    left = "deployments,services,configmaps"
    wait_for("what belonged to it is gone", lambda: not proxied.objects(left, "genrm.dev/reward-model=gone"))
    log = proxied.operator.log.read_text()
    assert len(re.findall(r"applied Deployment .* name=gone\n", log)) == 1, "nothing is made for who is gone"
    assert re.search(r"listed kind=Pod there=\d gone=[12]\n", log), (
        "the one deleted by us, and perhaps that of who is gone"
    )


def names(world: World) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.pods()]


# -------------------------------------------------------------------------------------------------- engines


def test_an_engine_that_hangs_in_its_sleep_is_told_and_tried_again(world: World) -> None:
    world.apply(lifecycle={"state": "Awake", "sleep": {"timeout": "1s"}})
    world.phase("Serving")
    stuck, _ = world.addresses()
    world.simulator.put(stuck, faults={"hang": ["/sleep"]})
    world.patch({"lifecycle": {"state": "Asleep"}})
    wait_for("it is told", lambda: "SleepFailed" in reasons(world))
    wait_for("in the status, too", lambda: world.condition("Degraded").get("reason") == "TransitionFailed")
    assert "/sleep" in world.condition("Degraded")["message"]
    wait_for("the other one sleeps", lambda: states(world)["Asleep"] == 1)
    assert world.serving() == [], "and nobody is sent to the one that hangs"
    world.simulator.put(stuck, faults={})
    world.phase("Asleep")
    assert world.condition("Degraded")["status"] == "False"
    assert set(world.calls("/sleep").values()) == {1}


def test_an_engine_that_hangs_in_its_sleep_is_replaced_when_a_run_needs_it(world: World) -> None:
    world.apply(lifecycle={"state": "Awake", "sleep": {"timeout": "1s"}, "wake": {"maxFailures": 2}})
    world.phase("Serving")
    stuck = world.pods()[0]
    world.simulator.put(stuck["status"]["podIP"], faults={"hang": ["/sleep"]})
    world.patch({"lifecycle": {"state": "Asleep"}})
    wait_for("it is told", lambda: "SleepFailed" in reasons(world))
    world.patch({"lifecycle": {"state": "Awake"}})
    wait_for("the other one serves", lambda: len(world.serving()) == 1)
    wait_for("it is replaced", lambda: "PodReplaced" in reasons(world))
    world.phase("Serving")
    assert stuck["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in world.pods()}


def test_an_engine_that_hangs_in_its_wake_is_replaced_and_the_others_serve_meanwhile(world: World) -> None:
    world.apply(lifecycle={"wake": {"timeout": "1s", "maxFailures": 3}})
    world.phase("Asleep")
    stuck = world.pods()[0]
    world.simulator.put(stuck["status"]["podIP"], faults={"hang": ["/wake_up"]})
    began = time.monotonic()
    world.lease("run-1", Phase.SCORING, ttl=300)
    wait_for("it is told", lambda: "WakeFailed" in reasons(world))
    told = wait_for("so does the status", lambda: (c := world.condition("Degraded"))["status"] == "True" and c)
    assert told["reason"] == "TransitionFailed" and "/wake_up" in told["message"]
    wait_for("the other one serves", lambda: len(world.serving()) == 1)
    wait_for("it is replaced", lambda: "PodReplaced" in reasons(world))
    world.phase("Serving")
    assert time.monotonic() - began < 30
    assert stuck["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in world.pods()}
    assert world.condition("Degraded")["status"] == "False"


def test_a_slot_whose_last_holder_kept_the_memory_is_given_to_nobody_until_it_is_given_back(world: World) -> None:
    slots = [{"name": "gpu-80", "node": "fake-0", "devices": [80]}]
    for name in ("judge", "second"):
        world.apply(name, gpu={"sharing": "Colocated", "slots": slots}, replicas=1)
        world.phase("Asleep", name)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.simulator.put(world.addresses()[0], faults={"keeps": 0.85})
    world.release("run-1")
    world.lease("run-2", Phase.SCORING, name="second")
    wait_for("it is told", lambda: world.condition("SlotBlocked", "second").get("reason") == "SlotUnseen")
    assert "keeps 61.2 of 72.0 GiB" in world.condition("SlotBlocked", "second")["message"]
    assert world.condition("SleepEffective")["reason"] == "MemoryKept"
    world.patch({"lifecycle": {"sleep": {"mode": "Restart"}}})
    world.phase("Serving", "second")
    assert world.simulator.collisions() == []


def test_what_a_sleep_kept_is_known_to_the_operator_that_comes_after_the_order(world: World) -> None:
    """Its predecessor died while the engine fell asleep, and has measured nothing."""
    slots = [{"name": "gpu-81", "node": "fake-0", "devices": [81]}]
    for name in ("judge", "second"):
        world.apply(name, gpu={"sharing": "Colocated", "slots": slots}, replicas=1)
        world.phase("Asleep", name)
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    (engine,) = world.addresses()
    world.simulator.put(engine, faults={"keeps": 0.45, "slow": {"/sleep": 1.0}})
    world.release("run-1")
    wait_for("it is told to sleep", lambda: world.calls("/sleep")[engine] == 1)
    world.operator.kill()
    wait_for("it sleeps", lambda: world.simulator.pod(engine)["asleep"])
    world.lease("run-2", Phase.SCORING, name="second")
    world.operator.start()
    kept = "keeps 32.4 of 72.0 GiB"
    wait_for("it is told", lambda: kept in world.condition("SlotBlocked", "second").get("message", ""))
    assert world.condition("SlotBlocked", "second")["reason"] == "SlotUnseen"
    wait_for("and why", lambda: world.condition("SleepEffective").get("reason") == "MemoryKept")
    assert world.calls("/sleep")[engine] == 1 and not world.serving("second")


def states(world: World) -> dict[str, int]:
    found = [endpoint["state"] for endpoint in world.status().get("endpoints", [])]
    return {state: found.count(state) for state in ("Asleep", "Serving")}


# -------------------------------------------------------------------------------------------------- containers


def container(world: World, pod: Mapping[str, Any], *, ready: bool, **said: Any) -> None:
    """Say of a pod's container what a kubelet says; kwok never does."""
    (now,) = pod["status"]["containerStatuses"]
    conditions = [{"type": "ContainersReady", "status": "True" if ready else "False"}]
    told = {"status": {"conditions": conditions, "containerStatuses": [{**now, **said, "ready": ready}]}}
    name = pod["metadata"]["name"]
    world.kubectl("patch", "pod", name, "--subresource=status", "--type=strategic", "-p", json.dumps(told))


KILLED: Final = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
RUNNING: Final = {"running": {"startedAt": "2026-11-22T04:00:00Z"}}


def begins_anew(world: World, pod: Mapping[str, Any]) -> None:
    address = pod["status"]["podIP"]
    settings = world.simulator.pod(address)["settings"]
    world.simulator.forget(address)
    world.simulator.put(address, settings=settings)
    container(world, pod, ready=True, started=True, restartCount=1, state=RUNNING, lastState=KILLED)


def test_an_engine_that_is_killed_for_memory_in_its_sleep_sleeps_again(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("run-1", Phase.IDLE)
    pod, _ = world.pods()
    before = world.simulator.pod(pod["status"]["podIP"])["bootId"]
    world.simulator.put(pod["status"]["podIP"], faults={"refuse": True})
    container(world, pod, ready=False, started=False, state=KILLED)
    world.phase("Degraded")
    assert world.condition("Degraded")["reason"] == "OutOfMemory"
    begins_anew(world, pod)
    world.phase("Asleep")
    assert "EngineRestarted" in reasons(world) and world.condition("Degraded")["status"] == "False"
    now = world.simulator.pod(pod["status"]["podIP"])
    assert now["bootId"] != before and (now["state"], now["asleep"]) == ("asleep", True)
    world.renew("run-1", Phase.SCORING)
    world.phase("Serving")


@pytest.mark.parametrize("state", ["Asleep", "Serving"])
def test_containers_that_began_anew_while_no_operator_looked(world: World, state: str) -> None:
    world.apply(lifecycle={"state": "Awake" if state == "Serving" else "Asleep"})
    world.phase(state)
    before = {endpoint["bootId"] for endpoint in world.status()["endpoints"]}
    world.operator.kill()
    for pod in world.pods():
        begins_anew(world, pod)
    world.operator.start()

    def seen() -> bool:
        now = {endpoint.get("bootId") for endpoint in world.status()["endpoints"]}
        return not now & before and states(world)[state] == 2

    wait_for("each is verified anew, and where it belongs", seen)
    world.phase(state)
    pods = [world.simulator.pod(ip) for ip in world.addresses()]
    assert {(pod["state"], pod["asleep"]) for pod in pods} == {
        ("asleep" if state == "Asleep" else "serving", state == "Asleep")
    }
    if state == "Serving":
        wait_for("both are endpoints", lambda: world.serving() == world.addresses())
        labels = {pod["metadata"]["annotations"]["genrm.dev/boot-id"] for pod in world.pods()}
        assert labels == {pod["bootId"] for pod in pods}


# -------------------------------------------------------------------------------------------------- runs


def test_of_two_runs_one_crashes_and_the_model_is_awake_as_long_as_the_other_one_needs_it(world: World) -> None:
    ttl = 4
    world.apply()
    world.phase("Asleep")
    world.lease("lives", Phase.SCORING, ttl=300)
    world.lease("crashes", Phase.SCORING, ttl=ttl)
    world.phase("Serving")
    wait_for("its crash is told", lambda: "LeaseExpired" in reasons(world), timeout=ttl + 5)
    wait_for("one run is left", lambda: [held["run"] for held in world.status()["leases"]] == ["lives"])
    assert world.status()["phase"] == "Serving" and world.serving() == world.addresses()
    began = time.monotonic()
    world.release("lives")
    world.phase("Asleep", timeout=10)
    assert time.monotonic() - began < 4, "at once: nobody waits for who crashed"
    assert set(world.calls("/sleep").values()) == {2} and set(world.calls("/wake_up").values()) == {1}


def test_of_two_runs_the_last_one_crashes_and_the_model_sleeps_within_its_ttl(world: World) -> None:
    ttl = 4
    world.apply()
    world.phase("Asleep")
    world.lease("lives", Phase.SCORING, ttl=300)
    world.phase("Serving")
    before = time.monotonic()
    world.lease("crashes", Phase.SCORING, ttl=ttl)
    began = time.monotonic()
    wait_for("both are seen", lambda: len(world.status()["leases"]) == 2)
    world.release("lives")
    world.phase("Asleep", timeout=ttl + 10)
    asleep = time.monotonic()
    assert asleep - before >= ttl, "nobody knows before that it has crashed"
    assert asleep - began < ttl + 4
