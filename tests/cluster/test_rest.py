"""What a model does when no run asks for it, beyond sleeping at once: idle for a while, and without pods."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster


def ask(address: str) -> int:
    body = {"model": "judge", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}
    return httpx.post(f"http://{address}:8000/v1/chat/completions", json=body, timeout=30, trust_env=False).status_code


def replicas(world: World) -> tuple[int, int]:
    """What the spec says, and what the Deployment is told."""
    (deployment,) = world.objects("deployments")
    (rm,) = world.objects("rewardmodels")
    return rm["spec"]["replicas"], deployment["spec"]["replicas"]


def off(world: World) -> dict[str, Any]:
    status = world.phase("Off")
    assert world.condition("Ready")["status"] == "True", "as wanted"
    assert (status["replicas"], replicas(world)) == (0, (2, 0)), "and without a word in the spec"
    return status


def test_a_model_that_scales_to_zero_has_pods_while_a_run_needs_them(world: World) -> None:
    world.apply(lifecycle={"sleep": {"mode": "ScaleToZero"}})
    off(world)
    world.lease("run-1", Phase.SCORING)
    status = world.phase("Serving")
    assert [ask(ip) for ip in world.addresses()] == [200, 200]
    assert status["lastWakeSeconds"] > 0
    world.renew("run-1", Phase.IDLE)
    off(world)
    world.patch({"env": [{"name": "NEW", "value": "1"}]})
    wait_for("the change waits for the run", lambda: world.condition("RolloutWaiting").get("status") == "True")
    world.release("run-1")
    wait_for("and comes after it", lambda: not world.condition("RolloutWaiting"))


def test_a_prewake_begins_as_late_as_is_safe(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    for ip in world.addresses():
        world.simulator.put(ip, faults={"slow": {"/wake_up": 1.0}})
    world.lease("run-1", Phase.SCORING, ttl=60)
    usual = world.phase("Serving")["usualWakeSeconds"]
    assert usual > 1, "it has learned from one"
    world.renew("run-1", Phase.IDLE)
    world.phase("Asleep")
    before = world.calls("/wake_up")
    began = time.monotonic()
    world.renew("run-1", Phase.PREWAKE, needed_in=6.0)
    wait_for("the wake begins", lambda: world.calls("/wake_up") != before)
    begins = time.monotonic() - began
    world.phase("Serving")
    assert time.monotonic() - began < 6, "in time"
    assert begins > 6 - usual * 1.1 - 0.5 - 0.5, "and for most of the time the GPUs were free"


def test_a_scaler_takes_no_warm_pods_from_a_sleeper(world: World) -> None:
    """Written as an autoscaler writes it, that sees no load."""
    world.apply(replicas=3)
    world.phase("Asleep")
    world.kubectl("scale", "rm", "judge", "--replicas=1")
    later = "spec.replicas: 1 counts from the next wake"
    wait_for("it is told", lambda: later in world.condition("Ready").get("message", ""))
    world.operator.kill()
    world.operator.start()
    world.patch({"access": {"clients": [{"podSelector": {}}]}})
    wait_for("it has looked", lambda: world.status().get("observedGeneration") == 3)
    assert (world.status()["phase"], len(world.pods())) == ("Asleep", 3)
    world.lease("run-1", Phase.SCORING)
    wait_for("one serves", lambda: (world.status().get("awake"), len(world.pods())) == (1, 1))
    world.release("run-1")
    world.phase("Asleep")
    world.kubectl("scale", "rm", "judge", "--replicas=2")
    wait_for("more come at once", lambda: len(world.pods()) == 2)


def test_a_model_awake_without_a_run_sleeps_when_nobody_asked_for_a_while(world: World) -> None:
    world.apply(lifecycle={"idle": {"sleepAfter": "3s"}})
    world.phase("Serving")
    one, two = world.addresses()
    assert ask(one) == 200
    world.phase("Asleep")
    served = [world.simulator.pod(ip)["served"] for ip in (one, two)]
    assert served == [1, 0], "one that is asked keeps the other awake"
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    world.patch({"lifecycle": {"idle": {"sleepAfter": "10m"}}})
    world.release("run-1")
    world.phase("Asleep")  # at once: what a run gives back does not wait for idleness


def test_pods_go_when_nobody_asked_for_long_and_come_back_for_a_run(world: World) -> None:
    world.apply(lifecycle={"idle": {"offAfter": "4s"}})
    world.phase("Asleep")
    off(world)
    world.operator.kill()
    world.operator.start()
    world.lease("run-1", Phase.IDLE)
    world.phase("Asleep")  # a run is under way: it will want them soon
    world.renew("run-1", Phase.SCORING)
    world.phase("Serving")
    world.release("run-1")
    world.phase("Asleep")
    off(world)
    world.patch({"lifecycle": {"idle": {"offAfter": "10m"}}})
    world.phase("Asleep")  # a change of the spec is a person's word
