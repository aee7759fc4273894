"""Every engine through the operator: verified, woken and put to sleep again, by the calls that are its own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

NIGHTS = 3
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
