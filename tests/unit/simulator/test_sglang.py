"""The simulated SGLang dies of what ends the real one, when nobody stands before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulator.engine import Dead
from tests.simulator.faults import Faults
from tests.simulator.sglang import SimSglang, SimSglangEmbedding
from tests.unit.door.support import Answer, Client

PAUSE = ("/pause_generation", {"mode": "abort"})
RELEASE = ("/release_memory_occupation", {"tags": ["weights", "kv_cache"]})
RESUME = ("/resume_memory_occupation", {"tags": ["weights", "kv_cache"]})
CONTINUE: tuple[str, dict[str, Any]] = ("/continue_generation", {})
GENERATE = ("/generate", {"text": "x", "sampling_params": {"max_new_tokens": 3}})
Step = tuple[str, dict[str, Any]]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not become true")


async def send(engine: SimSglang, step: Step) -> Answer:
    path, body = step
    return await Client(engine).post(path, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        pytest.param([PAUSE, RESUME], "a resume of what was not released", id="resume"),
        pytest.param([PAUSE, RELEASE, ("/resume_memory_occupation", {})], "not released", id="resume of everything"),
        pytest.param([RELEASE, GENERATE], "/generate on released memory", id="a request"),
    ],
)
async def test_it_dies_of_the_wrong_order_and_stays_dead(steps: list[Step], end: str) -> None:
    engine = SimSglang()
    for step in steps[:-1]:
        assert (await send(engine, step)).status == 200
    for last in (steps[-1], PAUSE):
        with pytest.raises(Dead, match=end):
            await send(engine, last)
    assert end in str(engine.died_of)


async def test_a_health_check_kills_a_sleeper_and_a_ping_does_not() -> None:
    engine = SimSglang()
    await send(engine, PAUSE)
    await send(engine, RELEASE)
    assert (await Client(engine).get("/ping")).status == 200
    with pytest.raises(Dead):
        await Client(engine).get("/health")


async def test_it_dies_of_a_release_under_a_running_request() -> None:
    engine = SimSglang(faults=Faults(hang=frozenset({"/generate"})))
    running = asyncio.create_task(send(engine, GENERATE))
    await until(lambda: engine.running > 0)
    with pytest.raises(Dead, match="while a request ran"):
        await send(engine, RELEASE)
    running.cancel()


async def test_a_request_in_a_pause_waits_uncounted_and_goes_on() -> None:
    engine = SimSglang()
    await send(engine, PAUSE)
    waiting = asyncio.create_task(send(engine, GENERATE))
    await until(lambda: bool(engine.jobs))
    load = (await Client(engine).get("/v1/loads")).json()["loads"][0]
    assert (load["num_running_reqs"], load["num_waiting_reqs"]) == (0, 0)
    await send(engine, CONTINUE)
    assert (await waiting).json()["meta_info"]["finish_reason"]["type"] == "length"


async def test_a_pause_cuts_off_those_inside_with_status_200() -> None:
    engine = SimSglang(faults=Faults(hang=frozenset({"/generate"})))
    running = asyncio.create_task(send(engine, GENERATE))
    await until(lambda: engine.running > 0)
    await send(engine, PAUSE)
    answer = await running
    assert (answer.status, answer.json()["meta_info"]["finish_reason"]["type"]) == (200, "abort")


async def test_rewards_are_of_the_text_and_come_as_they_were_asked_for() -> None:
    engine = SimSglangEmbedding()
    one = (await send(engine, ("/classify", {"text": "good"}))).json()
    both = (await send(engine, ("/classify", {"text": ["good", "bad"]}))).json()
    assert one["embedding"] == both[0]["embedding"] != both[1]["embedding"]
    assert (await send(engine, ("/v1/classify", {"input": ["a"]}))).json()["data"][0]["probs"] == [1.0]
