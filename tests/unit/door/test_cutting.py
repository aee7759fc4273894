"""At the end of a drain the operator may have the door end what is still inside."""

from __future__ import annotations

import asyncio
import json

import pytest
from genrm_door import Door
from genrm_door.asgi import Receive, Scope, Send

from tests.unit.door.support import TOKEN, Answer, Client, Engine, settle

CHAT = "/v1/chat/completions"


class Held:
    """A handler that holds requests, some of them after the beginning of an answer; it counts those that it lost."""

    def __init__(self, *, begins: bool = False) -> None:
        self.begins, self.inside, self.lost = begins, 0, 0
        self.gate = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        try:
            if self.begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"data: half", "more_body": True})
            await self.gate.wait()
        except asyncio.CancelledError:
            self.lost += 1
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def serving(client: Client, engine: Engine, held: Held, many: int) -> list[asyncio.Task[Answer]]:
    engine.paths[CHAT] = held
    await client.put_state("serving")
    tasks = [asyncio.create_task(client.post(CHAT)) for _ in range(many)]
    await settle()
    assert held.inside == many
    return tasks


async def cut(client: Client, token: str | None = TOKEN) -> Answer:
    return await client("PUT", "/genrm/door", token=token, body=b'{"state": "draining"}', query=b"cut=1")


async def test_those_inside_are_answered_503_and_the_engine_hears_of_it(
    client: Client, door: Door, engine: Engine
) -> None:
    held = Held()
    three = await serving(client, engine, held, 3)
    assert (await client.put_state("draining")).json()["inside"] == 3, "a drain alone ends nobody"
    await cut(client)
    answers = await asyncio.gather(*three)
    assert [(a.status, a.header("retry-after"), a.json()["state"]) for a in answers] == [(503, "1", "draining")] * 3
    assert (held.lost, door.record.inside, door.record.served) == (3, 0, 3)
    document = await client.document()
    assert [entry["call"] for entry in document["ledger"]][-2:] == ["PUT draining", "cut off 3"]
    assert (await cut(client)).status == 200, "again, and there is nobody"
    assert len((await client.document())["ledger"]) == len(document["ledger"])


async def test_a_client_that_has_half_an_answer_gets_no_second_beginning(client: Client, engine: Engine) -> None:
    held = Held(begins=True)
    (one,) = await serving(client, engine, held, 1)
    await cut(client)
    answer = await one
    assert (answer.status, answer.chunks) == (200, [b"data: half"]), "the server breaks the connection: it is not whole"
    assert held.lost == 1


async def test_an_engine_that_does_not_let_go_is_waited_for(client: Client, door: Door, engine: Engine) -> None:
    held = Held()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        while not held.gate.is_set():
            try:
                await held(scope, receive, send)
            except asyncio.CancelledError:
                continue

    engine.paths[CHAT] = stubborn
    await client.put_state("serving")
    task = asyncio.create_task(client.post(CHAT))
    await settle()
    assert (await cut(client)).json()["inside"] == 1
    await settle()
    assert door.record.inside == 1, "counted until the engine has let go of it"
    held.gate.set()
    assert (await task).status == 200


async def test_a_server_that_shuts_down_still_ends_its_requests(client: Client, engine: Engine) -> None:
    (one,) = await serving(client, engine, Held(), 1)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one


@pytest.mark.parametrize("token", [None, "guess"])
async def test_nobody_but_the_operator_cuts_off(client: Client, engine: Engine, token: str | None) -> None:
    held = Held()
    (one,) = await serving(client, engine, held, 1)
    assert (await cut(client, token)).status == 404
    for query in (b"cut=0", b"cut=1&x=2", b""):
        body = json.dumps({"state": "draining"}).encode()
        assert (await client("PUT", "/genrm/door", token=TOKEN, body=body, query=query)).status == 200
    await settle()
    assert held.lost == 0
    held.gate.set()
    assert (await one).status == 200
