"""A request and an order that arrive together: whoever is told that nobody is inside may put the engine to sleep."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from genrm_door import Door, State
from genrm_door.asgi import Receive, Scope, Send

from tests.unit.door.support import SETTINGS, Client, Engine, answer, settle

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("ticks", range(10))
@pytest.mark.parametrize("shut", ["draining", "closed", "ends"])
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_nobody_enters_after_a_door_has_said_that_it_does_not_serve(kind: str, shut: str, ticks: int) -> None:
    """However far a request has come when the order does: who is told `inside: 0` may put the engine to sleep."""
    engine, gate = Engine(), asyncio.Event()
    door = Door(engine, replace(SETTINGS, engine=kind))
    client = Client(door)
    admitted: list[State] = []

    async def finishes(scope: Scope, receive: Receive, send: Send) -> None:
        admitted.append(door.record.state)
        await gate.wait()
        await answer(send, 200)

    engine.paths[CHAT] = finishes
    assert (await client.put_state("serving")).status == 200
    task = asyncio.create_task(client.post(CHAT))
    for _ in range(ticks):
        await asyncio.sleep(0)
    if shut == "ends":
        door.record.terminate(admit=False)
        told = door.record.inside
    else:
        told = (await client.put_state(shut)).json()["inside"]
    assert told == len(admitted) == bool(ticks), "who came first is inside, and counted"
    await settle()
    assert told == len(admitted) == door.record.inside
    assert set(admitted) <= {State.SERVING}
    gate.set()
    assert (await task).status == (200 if admitted else 503)
