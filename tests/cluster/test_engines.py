"""Every engine through the operator: verified, woken and put to sleep again, by the calls that are its own."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

NIGHTS = 3
CHATS = "/v1/chat/completions"
CHAT = {"model": "judge", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}


def spec(engine: str, kind: str) -> dict[str, Any]:
    return {"type": kind, "engine": {"name": engine}}


@pytest.mark.parametrize(
    ("engine", "kind", "route", "question", "version"),
    [
        ("vllm", "Generative", "/v1/chat/completions", CHAT, "vllm 0.32.0"),
        ("vllm", "Classifier", "/classify", {"model": "judge", "input": "good"}, "vllm 0.32.0"),
        ("sglang", "Generative", "/v1/chat/completions", CHAT, "sglang 0.5.23"),
        ("sglang", "Classifier", "/classify", {"text": "good"}, "sglang 0.5.23"),
    ],
)
def test_an_engine_sleeps_and_wakes_and_says_the_same(
    world: World, engine: str, kind: str, route: str, question: dict[str, Any], version: str
) -> None:
    def scores() -> list[Any]:
        said = [
            httpx.post(f"http://{ip}:8000{route}", json=question, timeout=30, trust_env=False)
            for ip in world.addresses()
        ]
        assert [answer.status_code for answer in said] == [200] * 2
        return [{k: v for k, v in a.json().items() if k not in ("id", "created", "meta_info")} for a in said]

    world.apply(**spec(engine, kind))
    world.phase("Asleep")
    seen = []
    for night in range(NIGHTS):
        world.lease(f"run-{night}", Phase.SCORING)
        world.phase("Serving")
        wait_for("both endpoints are published", lambda: world.serving() == world.addresses())
        seen.append(scores())
        world.release(f"run-{night}")
        world.phase("Asleep")
    assert seen == [seen[0]] * NIGHTS
    assert world.status()["engine"] == version
    assert [world.simulator.pod(ip)["diedOf"] for ip in world.addresses()] == [None, None]


HOOKS = {
    "sleep": {"path": "/sleep?level=1"},
    "wake": {"path": "/wake_up"},
    "isSleeping": {"path": "/is_sleeping"},
    "inFlight": {"path": "/in_flight"},
}


def test_a_server_of_ones_own_sleeps_and_wakes_by_its_hooks(world: World) -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "/judge.py"], **HOOKS}}
    world.apply(engine=engine)
    world.phase("Asleep")
    assert world.serving() == []
    for night in range(NIGHTS):
        world.lease(f"run-{night}", Phase.SCORING)
        world.phase("Serving")
        wait_for("both endpoints are published", lambda: world.serving() == world.addresses())
        assert [world.simulator.pod(ip)["asleep"] for ip in world.addresses()] == [False] * 2
        said = [
            httpx.post(f"http://{ip}:8000{CHATS}", json=CHAT, timeout=30, trust_env=False) for ip in world.serving()
        ]
        assert [answer.status_code for answer in said] == [200] * 2
        world.release(f"run-{night}")
        world.phase("Asleep")
        assert [world.simulator.pod(ip)["asleep"] for ip in world.addresses()] == [True] * 2
        wait_for("no endpoint is published", lambda: world.serving() == [])
    assert world.status()["engine"] == "custom"
    for pod, endpoint in zip(world.pods(), world.status()["endpoints"], strict=True):
        assert endpoint["bootId"].endswith(".0") and endpoint["uid"] in endpoint["bootId"]
        assert not pod["spec"].get("readinessGates"), "nobody guards it, so nothing is verified"
    for ip in world.addresses():
        assert world.simulator.pod(ip)["violations"] == []


def test_a_server_of_ones_own_that_started_again_serves_once_it_has_said_that_it_is_awake(world: World) -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "/judge.py"], **HOOKS}}
    world.apply(engine=engine, replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    (address,) = world.addresses()
    world.simulator.put(address, faults={"status": {"/is_sleeping": 500}})
    (pod,) = world.pods()
    again = [{"op": "replace", "path": "/status/containerStatuses/0/restartCount", "value": 1}]
    world.kubectl(
        "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=json", "-p", json.dumps(again)
    )
    wait_for("it loses its place", lambda: world.serving() == [])
    wait_for(
        "the reason is told", lambda: "/is_sleeping answered 500" in world.condition("Degraded").get("message", "")
    )
    world.simulator.put(address, faults={})
    wait_for("it serves again", lambda: world.serving() == [address])
    assert [endpoint["bootId"] for endpoint in world.status()["endpoints"]] == [f"{pod['metadata']['uid']}.1"]


def test_a_model_of_the_wrong_kind_never_serves_and_the_reason_is_told(world: World) -> None:
    """The simulator plays what the container's arguments say; here they do not fit the weights, as they may not."""
    world.apply(**spec("sglang", "Generative"), replicas=1)
    world.phase("Asleep")
    (address,) = world.addresses()
    settings = world.simulator.pod(address)["settings"] | {"engine": "sglang-embedding"}
    world.simulator.put(address, settings=settings)
    world.lease("run", Phase.SCORING)
    wait_for("the reason is told", lambda: "does not generate text" in world.condition("Degraded").get("message", ""))
    assert world.serving() == []
    assert world.simulator.pod(address)["diedOf"] is None
