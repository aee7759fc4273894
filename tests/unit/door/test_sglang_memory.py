"""What the door lets reach an SGLang that dies of the wrong order: a table, and a walk through all orders."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from genrm_door import Door
from genrm_door.asgi import Receive, Scope, Send
from genrm_door.record import Refused
from genrm_door.sglang_memory import CONTINUE, PAUSE, RELEASE, RESUME, TAGS, SglangMemory
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.door.support import SETTINGS, TOKEN, Answer, Client, Engine, answer, settle

BOTH = {"tags": ["kv_cache", "weights"]}
ABORT = {"mode": "abort"}
Step = tuple[str, Any]


def carried(memory: SglangMemory, path: str, body: Any, inside: int = 0, status: int | None = 200) -> bool:
    """Whether the call reached the engine, which answered with `status`."""
    order = memory.judge(path, b"", json.dumps(body).encode(), inside)
    if order is None:
        return False
    memory.note(order, status)
    return True


def after(*steps: Step) -> SglangMemory:
    memory = SglangMemory()
    for path, body in steps:
        carried(memory, path, body)
    return memory


PAUSED: tuple[Step, ...] = ((PAUSE, ABORT),)
ASLEEP: tuple[Step, ...] = (*PAUSED, (RELEASE, BOTH))
RESUMED: tuple[Step, ...] = (*ASLEEP, (RESUME, BOTH))


def test_a_night_and_a_morning_reach_the_engine_once() -> None:
    memory = SglangMemory()
    assert memory.asleep is False
    for _ in range(3):
        for path, body in (*RESUMED, (CONTINUE, {})):
            assert carried(memory, path, body)
            assert memory.asleep is (path != CONTINUE)
    assert memory.document() == {"paused": False, "released": [], "level": None}


@pytest.mark.parametrize(
    ("before", "path", "body"),
    [
        pytest.param((), RESUME, BOTH, id="a resume of what was never released"),
        pytest.param(RESUMED, RESUME, BOTH, id="a resume again"),
        pytest.param(ASLEEP, RELEASE, BOTH, id="a release again"),
        pytest.param(ASLEEP, RELEASE, {"tags": ["weights"]}, id="a release of a part that is released"),
    ],
)
def test_what_is_done_already_is_not_done_again(before: tuple[Step, ...], path: str, body: Any) -> None:
    memory = after(*before)
    was = memory.document()
    assert not carried(memory, path, body)
    assert memory.document() == was


@pytest.mark.parametrize(
    ("before", "path", "body", "inside", "sentence"),
    [
        ((), RELEASE, BOTH, 0, "not paused"),
        (PAUSED, RELEASE, BOTH, 2, "2 requests are inside"),
        (PAUSED, RELEASE, {}, 0, "tags"),
        (PAUSED, RELEASE, {"tags": []}, 0, "tags"),
        (PAUSED, RELEASE, {"tags": ["weights", "all"]}, 0, "tags"),
        (PAUSED, RELEASE, {"tags": "weights"}, 0, "tags"),
        (PAUSED, RELEASE, {"tags": [1]}, 0, "tags"),
        ((*PAUSED, (RELEASE, {"tags": ["weights"]})), RELEASE, BOTH, 0, "weights is released already"),
        (ASLEEP, RESUME, {}, 0, "tags"),
        (ASLEEP, RESUME, {"tags": ["weights", "cuda_graph"]}, 0, "cuda_graph is not released"),
        (ASLEEP, CONTINUE, {}, 0, "resume it first"),
        ((), PAUSE, {}, 0, "abort"),
        ((), PAUSE, {"mode": "in_place"}, 0, "abort"),
        ((), PAUSE, [], 0, "no JSON object"),
    ],
)
def test_what_would_kill_the_engine_is_refused_with_a_sentence(
    before: tuple[Step, ...], path: str, body: Any, inside: int, sentence: str
) -> None:
    memory = after(*before)
    was = memory.document()
    with pytest.raises(Refused, match=sentence):
        memory.judge(path, b"", json.dumps(body).encode(), inside)
    assert memory.document() == was


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff", b"[" * 4000])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    for path in (PAUSE, RELEASE, RESUME):
        with pytest.raises(Refused):
            after(*PAUSED).judge(path, b"", body, 0)


@pytest.mark.parametrize("status", [400, 500, None])
@pytest.mark.parametrize(("before", "path"), [(PAUSED, RELEASE), (ASLEEP, RESUME)])
def test_after_a_release_or_resume_that_failed_nobody_knows_and_nothing_passes(
    before: tuple[Step, ...], path: str, status: int | None
) -> None:
    memory = after(*before)
    assert carried(memory, path, BOTH, status=status)
    assert memory.asleep is None
    for again in (PAUSE, RELEASE, RESUME, CONTINUE):
        with pytest.raises(Refused, match="restart"):
            memory.judge(again, b"", json.dumps(BOTH | ABORT).encode(), 0)


def test_a_pause_that_failed_may_be_repeated() -> None:
    memory = SglangMemory()
    assert carried(memory, PAUSE, ABORT, status=500)
    assert memory.asleep is False
    assert carried(memory, PAUSE, ABORT)


async def test_an_engine_of_which_nobody_knows_is_started_anew_by_the_kubelet() -> None:
    engine = Engine()
    client = Client(Door(engine, replace(SETTINGS, engine="sglang")))

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 400)

    assert (await client.get("/health")).status == 200
    for path, body in ASLEEP:
        engine.paths[RELEASE] = fail
        await client.post(path, token=TOKEN, body=json.dumps(body).encode())
    health = await client.get("/health")
    assert (health.status, (await client.document())["asleep"]) == (503, None)
    assert "lost" in health.json()["engine"]


async def sleeping(engine: Engine, idle_seconds: float) -> tuple[Client, int]:
    client = Client(Door(engine, replace(SETTINGS, engine="sglang", idle_seconds=idle_seconds)))
    statuses = [(await client.post(path, token=TOKEN, body=json.dumps(body).encode())).status for path, body in ASLEEP]
    return client, statuses[-1]


async def test_a_release_waits_until_the_engine_itself_has_finished() -> None:
    engine, busy = Engine(), [400, 400, 200]

    async def flush(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, busy.pop(0))

    engine.paths["/flush_cache"] = flush
    client, status = await sleeping(engine, idle_seconds=5)
    assert (status, (await client.document())["asleep"], busy) == (200, True, [])
    assert engine.calls.index(f"POST {RELEASE}") > engine.calls.index("GET /flush_cache")


async def test_an_engine_that_does_not_finish_keeps_its_memory_and_may_be_asked_again() -> None:
    engine = Engine()

    async def flush(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 400)

    engine.paths["/flush_cache"] = flush
    client, status = await sleeping(engine, idle_seconds=0.1)
    assert status == 409 and f"POST {RELEASE}" not in engine.calls
    assert (await client.document())["memory"] == {"paused": True, "released": [], "level": None}
    engine.paths.clear()
    assert (await client.post(RELEASE, token=TOKEN, body=json.dumps(BOTH).encode())).status == 200


async def test_a_release_with_somebody_inside_does_not_reach_the_engine() -> None:
    engine, gate = Engine(), asyncio.Event()
    client = Client(Door(engine, replace(SETTINGS, engine="sglang")))

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(send, 200)

    async def release() -> Answer:
        return await client.post(RELEASE, token=TOKEN, body=json.dumps(BOTH).encode())

    engine.paths["/v1/chat/completions"] = generate
    await client.put_state("serving")
    stays = asyncio.create_task(client.post("/v1/chat/completions"))
    await settle()
    await client.put_state("draining")
    assert (await client.post(PAUSE, token=TOKEN, body=json.dumps(ABORT).encode())).status == 200
    refused = await release()
    assert refused.status == 409 and "1 requests are inside" in refused.json()["error"]
    assert f"POST {RELEASE}" not in engine.calls
    gate.set()
    assert (await stays).status == 200
    assert (await release()).status == 200


class MortalEngine:
    """SGLang's own rules, as its source has them: any order is believed, and some kill."""

    def __init__(self) -> None:
        self.paused, self.gone, self.alive = False, set[str](), True

    def take(self, path: str, tags: frozenset[str], running: int) -> None:
        match path:
            case "/pause_generation":
                self.paused = True
            case "/continue_generation":
                self.alive = self.alive and not self.gone
                self.paused = False
            case "/release_memory_occupation":
                self.alive = self.alive and not running and self.paused and not tags & self.gone
                self.gone |= tags
            case "/resume_memory_occupation":
                self.alive = self.alive and tags <= self.gone
                self.gone -= tags


bodies = st.one_of(
    st.just({}),
    st.just(ABORT),
    st.sets(st.sampled_from([*sorted(TAGS), "else"])).map(lambda tags: {"tags": sorted(tags)}),
)
calls = st.tuples(st.sampled_from([PAUSE, RELEASE, RESUME, CONTINUE]), bodies, st.integers(0, 1))


@given(st.lists(calls, max_size=40))
def test_whatever_is_asked_the_engine_lives_and_the_door_knows_its_state(asked: list[tuple[str, Any, int]]) -> None:
    engine, memory = MortalEngine(), SglangMemory()
    for path, body, inside in asked:
        try:
            order = memory.judge(path, b"", json.dumps(body).encode(), inside)
        except Refused:
            continue
        if order is not None:
            engine.take(order.path, order.tags, inside)
            memory.note(order, 200)
        assert engine.alive
        assert (memory.paused, memory.released) == (engine.paused, engine.gone)
