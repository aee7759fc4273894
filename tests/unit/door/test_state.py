"""The door's document, its changes of state against a living engine, and who is inside while they happen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from genrm_door import Door, State
from genrm_door.asgi import Message, Receive, Scope, Send
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.door.support import SETTINGS, TOKEN, Client, Engine, answer, receiver, scope_of, settle

CHAT = "/v1/chat/completions"


def held(gate: asyncio.Event) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """A handler that answers when the gate opens."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(send, 200)

    return handler


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("engine bug")


# -- the document


async def test_the_document_follows_a_sleep_and_a_wake(client: Client, engine: Engine) -> None:
    assert (await client.put_state("serving")).json()["state"] == "serving"
    await client.post(CHAT)
    await client.put_state("draining")
    await client.post("/sleep", token=TOKEN, query=b"level=1&mode=abort")
    document = (await client.put_state("asleep")).json()
    assert (document["state"], document["asleep"], document["inside"], document["served"]) == ("asleep", True, 0, 1)
    await client.post("/wake_up", token=TOKEN)
    await client.put_state("serving")
    document = await client.document()
    assert (document["state"], document["asleep"]) == ("serving", False)
    assert [(entry["call"], entry["status"]) for entry in document["ledger"]] == [
        ("PUT serving", 200),
        ("PUT draining", 200),
        ("POST /sleep?level=1&mode=abort", 200),
        ("PUT asleep", 200),
        ("POST /wake_up", 200),
        ("PUT serving", 200),
    ]


async def test_two_doors_in_one_process_are_strangers() -> None:
    first, second = Door(Engine(), SETTINGS), Door(Engine(), SETTINGS)
    await Client(first).put_state("serving")
    assert (first.record.state, second.record.state) == (State.SERVING, State.CLOSED)
    assert first.record.boot_id != second.record.boot_id


@pytest.mark.parametrize(
    "body",
    [b"", b"serving", b"{}", b"[]", b'"serving"', b'{"state": "Serving"}', b'{"state": null}', b'{"state": ["closed"]}',
     b"\xff\xfe", b"[" * 4000, b'{"state": "serving"}' + b" " * 5000],
)  # fmt: skip
async def test_a_put_that_is_no_state_is_answered_with_what_to_write(client: Client, body: bytes) -> None:
    got = await client("PUT", "/genrm/door", token=TOKEN, body=body)
    assert got.status == 400
    assert got.json()["error"] == 'write {"state": X} with X one of "gated", "closed", "serving", "draining", "asleep"'
    assert (await client.document())["state"] == "closed"


async def test_a_put_in_pieces_is_read_whole_and_one_cut_short_changes_nothing(door: Door) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def put(*messages: Message) -> None:
        pieces = iter(messages)

        async def receive() -> Message:
            return next(pieces)

        await door(scope_of("PUT", "/genrm/door", TOKEN), receive, send)

    await put({"type": "http.request", "body": b'{"state": "serv', "more_body": True}, {"type": "http.disconnect"})
    assert sent == []
    assert door.record.state.value == "closed"
    await put(
        {"type": "http.request", "body": b'{"state": "serv', "more_body": True},
        {"type": "http.request", "body": b'ing"}', "more_body": False},
    )
    assert sent[0]["status"] == 200
    assert door.record.state.value == "serving"


async def test_a_forbidden_change_is_refused_with_the_ways_out(client: Client) -> None:
    await client.put_state("serving")
    got = await client.put_state("asleep")
    assert got.status == 409
    assert got.json() == {
        "error": "the door is serving and cannot become asleep: from here it can be closed or draining",
        "state": "serving",
    }


# -- opening on an engine that does not want


async def test_the_door_never_serves_an_engine_that_says_it_sleeps(client: Client, engine: Engine) -> None:
    engine.asleep = True
    got = await client.put_state("serving")
    assert (got.status, got.json()["state"]) == (409, "closed")
    assert "wake it" in got.json()["error"]


@pytest.mark.parametrize("behaviour", [hangs, fails, lambda *a: answer(a[2], 500), lambda *a: answer(a[2], 200, b"?")])
async def test_nor_one_that_does_not_say(client: Client, engine: Engine, behaviour: Callable[..., object]) -> None:
    engine.paths["/is_sleeping"] = behaviour
    got = await client.put_state("serving")
    assert (got.status, got.json()["state"]) == (409, "closed")
    assert "does not say" in got.json()["error"]
    assert (await client.document())["asleep"] is None


async def test_closing_wins_over_an_opening_that_waits_for_the_engine(client: Client, engine: Engine) -> None:
    gate = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        del engine.paths["/is_sleeping"]
        await gate.wait()
        await answer(send, 200, b'{"is_sleeping": false}')

    await client.put_state("asleep")
    engine.paths["/is_sleeping"] = slow
    opening = asyncio.create_task(client.put_state("serving"))
    await settle()
    assert (await client.put_state("closed")).status == 200
    gate.set()
    assert (await opening).status == 409
    assert (await client.document())["state"] == "closed"


# -- admin calls, one at a time


async def test_admin_calls_do_not_overlap_and_are_not_queued(client: Client, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.paths["/wake_up"] = held(gate)
    waking = asyncio.create_task(client.post("/wake_up", token=TOKEN))
    await settle()
    for second in (
        client.post("/wake_up", token=TOKEN),
        client.post("/sleep", token=TOKEN),
        client.put_state("serving"),
    ):
        got = await second
        assert got.status == 409
        assert "POST /wake_up is running since" in got.json()["error"]
    assert (await client.get("/is_sleeping", token=TOKEN)).status == 200
    running = (await client.document())["ledger"][-1]
    assert (running["call"], running["status"], running["seconds"]) == ("POST /wake_up", None, None)
    gate.set()
    assert (await waking).status == 200
    assert engine.calls.count("POST /wake_up") == 1
    assert (await client.put_state("serving")).status == 200


@pytest.mark.parametrize("state", ["draining", "closed"])
async def test_shutting_waits_for_no_admin_call(client: Client, engine: Engine, state: str) -> None:
    await client.put_state("serving")
    engine.paths["/wake_up"] = hangs
    waking = asyncio.create_task(client.post("/wake_up", token=TOKEN))
    await settle()
    assert (await client.put_state(state)).status == 200
    waking.cancel()


async def test_an_admin_call_that_fails_is_written_down_and_goes_through(client: Client, engine: Engine) -> None:
    engine.paths["/wake_up"] = fails
    with pytest.raises(RuntimeError, match="engine bug"):
        await client.post("/wake_up", token=TOKEN)
    engine.paths["/wake_up"] = lambda scope, receive, send: answer(send, 500)
    assert (await client.post("/wake_up", token=TOKEN)).status == 500
    assert [entry["status"] for entry in (await client.document())["ledger"]] == [500, 500]


# -- health


@pytest.mark.parametrize("state", ["closed", "serving", "asleep"])
async def test_a_living_engine_is_healthy_in_every_state(client: Client, engine: Engine, state: str) -> None:
    await client.put_state(state)
    got = await client.get("/health")
    assert (got.status, got.json()) == (200, {"engine": "alive", "state": state})


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [(hangs, "says nothing"), (fails, "says nothing"), (lambda *a: answer(a[2], 503), "answers 503")],
    ids=["hangs", "raises", "dead"],
)
async def test_a_dead_engine_is_not(
    client: Client, engine: Engine, behaviour: Callable[..., object], said: str
) -> None:
    engine.paths["/health"] = behaviour
    got = await client.get("/health")
    assert (got.status, got.json()["engine"]) == (503, said)


async def test_an_engine_that_swallows_its_cancellation_does_not_hold_the_probe(client: Client, engine: Engine) -> None:
    gate = asyncio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    engine.paths["/health"] = stubborn
    async with asyncio.timeout(5):
        assert (await client.get("/health")).status == 503
    gate.set()


async def test_the_question_carries_the_servers_scope_but_nothing_of_the_clients(
    client: Client, engine: Engine
) -> None:
    await client.get("/health", token="x", query=b"q=1")
    scope = engine.scopes[-1]
    assert (scope["headers"], scope["query_string"], scope["path"]) == ([], b"", "/health")


# -- who is inside


async def test_draining_lets_those_inside_finish_and_nobody_enter(client: Client, door: Door, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.paths[CHAT] = held(gate)
    await client.put_state("serving")
    four = [asyncio.create_task(client.post(CHAT)) for _ in range(4)]
    await settle()
    assert (await client.put_state("draining")).json()["inside"] == 4
    fifth = await client.post(CHAT)
    assert (fifth.status, fifth.json()["state"], fifth.header("retry-after")) == (503, "draining", "1")
    assert (await client.post(CHAT, token=TOKEN)).status == 503
    gate.set()
    assert [task.status for task in await asyncio.gather(*four)] == [200] * 4
    document = await client.document()
    assert (document["inside"], document["served"], engine.calls.count(f"POST {CHAT}")) == (0, 4, 4)


async def test_a_canary_through_the_closed_door_is_inside_but_not_served(client: Client, engine: Engine) -> None:
    gate = asyncio.Event()
    engine.paths[CHAT] = held(gate)
    canary = asyncio.create_task(client.post(CHAT, token=TOKEN))
    await settle()
    assert (await client.document())["inside"] == 1
    gate.set()
    assert (await canary).status == 200
    document = await client.document()
    assert (document["inside"], document["served"], document["lastRequestAt"]) == (0, 0, None)


async def test_an_error_of_the_engine_goes_through_and_is_counted_out(
    client: Client, door: Door, engine: Engine
) -> None:
    await client.put_state("serving")
    engine.paths[CHAT] = fails
    with pytest.raises(RuntimeError, match="engine bug"):
        await client.post(CHAT)
    assert (door.record.inside, door.record.served) == (0, 1)


async def test_a_cancelled_request_is_counted_out(client: Client, door: Door, engine: Engine) -> None:
    await client.put_state("serving")
    engine.paths[CHAT] = hangs
    task = asyncio.create_task(client.post(CHAT))
    await settle()
    assert door.record.inside == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.record.inside == 0


async def test_a_client_that_hangs_up_is_inside_until_the_engine_let_go(
    client: Client, door: Door, engine: Engine
) -> None:
    released = asyncio.Event()

    async def aborts(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await released.wait()

    engine.paths[CHAT] = aborts
    await client.put_state("serving")
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.disconnect"})
    task = asyncio.create_task(door(scope_of("POST", CHAT), messages.get, lambda _: asyncio.sleep(0)))
    await settle()
    assert door.record.inside == 1
    released.set()
    await task
    assert door.record.inside == 0


async def test_a_stream_passes_untouched_piece_by_piece(door: Door, client: Client, engine: Engine) -> None:
    pieces = [b"data: %d\n\n" % i for i in range(50)]
    seen: list[bytes] = []
    got_at: list[int] = []

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for i, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": i < len(pieces) - 1})
            got_at.append(len(seen))

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            assert door.record.inside == 1
            seen.append(message["body"])

    engine.paths[CHAT] = streams
    await client.put_state("serving")
    await door(scope_of("POST", CHAT), receiver(), send)
    assert seen == pieces
    assert got_at == list(range(1, 51))
    assert door.record.inside == 0


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.integers(0, 3)),
            st.tuples(
                st.sampled_from(
                    ["leave", "raise", "serving", "draining", "closed", "asleep", "ends", "ends, and still admits"]
                ),
                st.just(0),
            ),
        ),
        max_size=40,
    )
)
async def test_nobody_enters_a_door_that_does_not_serve_and_the_count_is_exact(steps: list[tuple[str, int]]) -> None:
    engine = Engine()
    door = Door(engine, SETTINGS)
    client = Client(door)
    coming: set[asyncio.Task[Any]] = set()
    running: list[tuple[asyncio.Task[Any], asyncio.Future[None]]] = []
    admitted: list[State] = []

    async def scores(scope: Scope, receive: Receive, send: Send) -> None:
        admitted.append(door.record.state)
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        assert task is not None
        running.append((task, end))
        await end
        await answer(send, 200)

    engine.paths[CHAT] = scores
    for step, ticks in steps:
        if step == "enter":
            coming.add(asyncio.create_task(client.post(CHAT)))
            for _ in range(ticks):  # so far it has come when the next thing happens
                await asyncio.sleep(0)
        elif step in ("leave", "raise"):
            if running:
                task, end = running.pop(0)
                coming.discard(task)
                if step == "leave":
                    end.set_result(None)
                else:
                    end.set_exception(RuntimeError("engine bug"))
                await asyncio.wait({task}, timeout=5)
                assert (task.exception() is None) == (step == "leave")
        elif step.startswith("ends"):
            door.record.terminate(admit="admits" in step)
        else:
            got = await client.put_state(step)
            assert json.loads(got.body)["state"] == door.record.state.value
        assert door.record.inside == len(running)
    await settle()
    assert door.record.inside == len(running)
    assert set(admitted) <= {State.SERVING}
    assert ("ends", 0) not in steps or door.record.state is not State.SERVING
    for refused in coming.difference(task for task, _ in running):
        assert refused.result().status == 503 and refused.result().json()["state"] != "serving"
    for task, end in running:
        end.set_result(None)
        await asyncio.wait({task}, timeout=5)
    assert door.record.inside == 0
