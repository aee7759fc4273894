"""Answers in events, passed on by the gateway while they are being written, and what breaks off in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from genrm_api.rewardmodel import RewardModel
from genrm_gateway.limits import Limits
from genrm_gateway.relay import Relay
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.errors import Disconnected, ServerFailed
from genrm_scoring.targets import Reached
from genrm_scoring.transport import AiohttpTransport

from tests.unit.gateway.serving import EXACT, external, fleet, of_file
from tests.unit.scoring.scripted_judge import (
    Reaction,
    Request,
    ScriptedJudge,
    drops_connection,
    hangs,
    says,
    status,
    streams,
)

CHAT = {"model": "judge", "messages": [{"role": "user", "content": "hi"}], "stream": True}
DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


HEL, LO = event("Hel"), event("lo")


@asynccontextmanager
async def asked(gateway: httpx.AsyncClient, path: str = "/v1/chat/completions") -> AsyncIterator[AsyncIterator[bytes]]:
    """The pieces of an answer, as they come."""
    async with gateway.stream("POST", path, json=CHAT) as reply:
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield reply.aiter_raw()


async def until(gateway: httpx.AsyncClient, line: str) -> None:
    """Wait for a line of the metrics."""
    async with asyncio.timeout(20):
        while line not in (await gateway.get("/metrics")).text.splitlines():
            pass


def error_in(events: bytes) -> dict[str, Any]:
    """The error that is the last of these events."""
    assert DONE not in events
    found: dict[str, Any] = json.loads(events.rstrip().rpartition(b"\n\n")[2].removeprefix(b"data: "))["error"]
    return found


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/judge/v1/chat/completions", "/v1/completions"])
async def test_events_are_passed_on_as_they_come(path: str) -> None:
    more = asyncio.Event()
    async with ScriptedJudge(streams(HEL, more, LO, DONE)) as judge, of_file(external("judge", judge.url)) as gateway:
        async with asked(gateway, path) as pieces:
            assert await anext(pieces) == HEL, "before the next is there"
            more.set()
            assert b"".join([piece async for piece in pieces]) == LO + DONE
        await until(gateway, 'genrm_gateway_streams_total{outcome="ok"} 1.0')
        await until(gateway, 'genrm_gateway_requests_total{code="200",format="relay"} 1.0')
    assert judge.requests == [CHAT], "in the client's own words"


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(streams(HEL, LO, breaks=True), id="the connection breaks"),
        pytest.param(streams(HEL, LO + LO[:20], breaks=True), id="in the middle of an event"),
        pytest.param(streams(HEL, LO), id="it ends as if it were whole"),
    ],
)
async def test_an_answer_that_breaks_off_ends_with_an_error(ends: Reaction) -> None:
    async with ScriptedJudge(ends) as judge, of_file(external("judge", judge.url)) as gateway:
        async with asked(gateway) as pieces:
            found = b"".join([piece async for piece in pieces])
        assert found.startswith(HEL + LO + b'data: {"error"') and len(judge.requests) == 1, "nobody can go on with it"
        error = error_in(found)
        assert error["code"] == "transport" and error["message"].startswith("the answer broke off: ")
        await until(gateway, 'genrm_gateway_streams_total{outcome="transport"} 1.0')


async def test_an_answer_that_stops_in_the_middle_ends_with_an_error_at_its_deadline() -> None:
    judge = ScriptedJudge(streams(HEL, asyncio.Event()))
    async with judge, of_file(external("judge", judge.url, timeout="1s")) as gateway, asked(gateway) as pieces:
        found = b"".join([piece async for piece in pieces])
    assert found.startswith(HEL) and error_in(found)["code"] == "timeout"


@asynccontextmanager
async def relay_to(*pods: ScriptedJudge) -> AsyncIterator[Relay]:
    model = RewardModel.model_validate(external("judge", "http://localhost", timeout="3s"))
    transport = AiohttpTransport()
    yield Relay(model, Reached(StaticEndpoints([f"{pod.url}/v1" for pod in pods]), transport))
    await transport.close()


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(drops_connection(), id="no answer"),
        pytest.param(streams(breaks=True), id="no event"),
        pytest.param(streams(HEL[:10], breaks=True), id="half an event"),
        pytest.param(streams(), id="an empty answer"),
        pytest.param(status(500), id="500"),
        pytest.param(status(503), id="asleep"),
        pytest.param(hangs(), id="it hangs"),
        pytest.param(streams(asyncio.Event()), id="it hangs behind its headers"),
    ],
)
async def test_until_the_first_event_another_pod_can_answer(trouble: Reaction) -> None:
    async with ScriptedJudge(trouble) as ill, ScriptedJudge(streams(LO, DONE)) as well, relay_to(ill, well) as relay:
        body = json.dumps(CHAT).encode()
        while not ill.requests:  # who is asked first, a hash decides
            async with relay.begun("/v1/chat/completions", body) as (stream, _, judgement):
                assert stream is not None and await stream.events() == LO + DONE and not await stream.events()
            body += b" "
    assert len(judgement.failures) == 1


async def test_a_pod_that_broke_off_is_left_alone_for_a_while() -> None:
    breaks = streams(HEL, breaks=True)
    async with ScriptedJudge(breaks) as one, ScriptedJudge(breaks) as other, relay_to(one, other) as relay:
        for _ in range(2):  # the same question, which would go to the same pod
            with pytest.raises(Disconnected):
                async with relay.begun("/v1/chat/completions", b"{}") as (stream, _, _):
                    while stream is not None and await stream.events():
                        pass
    assert len(one.requests) == len(other.requests) == 1


async def test_a_server_that_never_says_that_it_is_done_is_asked_on() -> None:
    async with ScriptedJudge(streams(HEL)) as judge, relay_to(judge) as relay:
        for _ in range(2):
            async with asyncio.timeout(2):  # nobody would ask a pod that was lost so soon again
                with pytest.raises(ServerFailed, match="without"):
                    async with relay.begun("/v1/chat/completions", b"{}") as (stream, _, _):
                        while stream is not None and await stream.events():
                            pass


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (says("hello"), 200, "hello"),
        (status(400, "max_tokens is too large"), 400, "max_tokens is too large"),
        (status(500, "it broke"), 500, "it broke"),
        (status(503, "the door is asleep"), 503, "the door is asleep"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_no_stream_comes_in_one_piece(said: Reaction, code: int, words: str, stream: bool) -> None:
    async with ScriptedJudge(said) as judge, of_file(external("judge", judge.url, timeout="1s")) as gateway:
        reply = await gateway.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert reply.status_code == code and words in reply.text
        if code == 503:
            error = reply.json()["error"]
            assert (error["outcome"], error["code"], reply.headers["retry-after"]) == ("asleep", "asleep", "1")
        assert (
            f'genrm_gateway_requests_total{{code="{code}",format="relay"}} 1.0' in (await gateway.get("/metrics")).text
        )


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_that_was_asked_again_is_not_the_answer(stream: bool) -> None:
    judge = ScriptedJudge(status(500, "it broke"), hangs())
    async with judge, of_file(external("judge", judge.url, timeout="1s")) as gateway:
        reply = await gateway.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "timeout") and len(judge.requests) == 2


async def test_a_client_that_reads_slowly_slows_the_engine_down_and_misses_nothing() -> None:
    big, paused, written = event("x" * 2**20), asyncio.Event(), 0

    async def react(http: web.Request, _: Request) -> web.StreamResponse:
        nonlocal written
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(http)
        for _ in range(64):
            writing = asyncio.ensure_future(reply.write(big))
            await asyncio.wait([writing], timeout=0.5)
            if not writing.done():
                paused.set()
            await writing
            written += 1
        await reply.write(DONE)
        return reply

    judge = ScriptedJudge(react)
    async with judge, of_file(external("judge", judge.url, timeout="60s")) as gateway, asked(gateway) as pieces:
        first = await anext(pieces)
        await asyncio.wait_for(paused.wait(), 30)
        assert written < 64, "the rest is nobody's memory"
        found = len(first) + sum([len(piece) async for piece in pieces])
    assert found == 64 * len(big) + len(DONE)


async def test_a_client_that_reads_nothing_is_not_waited_for_beyond_the_deadline() -> None:
    big, gone = event("x" * 2**20), asyncio.Event()

    async def react(http: web.Request, _: Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(http)
        try:
            while True:
                await reply.write(big)
        finally:
            gone.set()

    judge = ScriptedJudge(react)
    async with judge, of_file(external("judge", judge.url, timeout="3s")) as gateway, asked(gateway) as pieces:
        await anext(pieces)
        await asyncio.wait_for(gone.wait(), 20)
        await until(gateway, 'genrm_gateway_streams_total{outcome="left"} 1.0')
        with pytest.raises(httpx.RemoteProtocolError):  # what is missing does not look like an end
            async for _ in pieces:
                pass


def tells(gone: asyncio.Event, *pieces: bytes, stream: bool = True) -> Reaction:
    """Goes on until nobody asks any more."""

    async def react(http: web.Request, request: Request) -> web.StreamResponse:
        try:
            return await (streams(*pieces, asyncio.Event()) if stream else hangs())(http, request)
        finally:
            gone.set()

    return react


async def test_who_hangs_up_in_the_middle_is_not_asked_for_any_longer() -> None:
    gone = asyncio.Event()
    async with ScriptedJudge(tells(gone, HEL)) as judge, of_file(external("judge", judge.url)) as gateway:
        async with asked(gateway) as pieces:
            assert await anext(pieces) == HEL
        await asyncio.wait_for(gone.wait(), 20)
        await until(gateway, 'genrm_gateway_streams_total{outcome="left"} 1.0')
        await until(gateway, 'genrm_gateway_requests_total{code="499",format="relay"} 1.0')
    assert len(judge.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_who_hangs_up_before_the_first_event_is_not_asked_for_any_longer(stream: bool) -> None:
    gone = asyncio.Event()
    judge = ScriptedJudge(tells(gone, stream=stream))
    async with judge, of_file(external("judge", judge.url)) as gateway:
        asking = asyncio.create_task(gateway.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
        await asyncio.wait_for(judge.asked.wait(), 20)
        asking.cancel()
        await asyncio.wait_for(gone.wait(), 20)
        await until(gateway, 'genrm_gateway_requests_total{code="499",format="relay"} 1.0')


async def test_a_stream_is_one_of_the_requests_at_once_until_it_ends() -> None:
    more = asyncio.Event()
    judge = ScriptedJudge(streams(HEL, more, DONE))
    async with judge, of_file(external("judge", judge.url), limits=Limits(most_at_once=1)) as gateway:
        async with asked(gateway) as pieces:
            assert await anext(pieces) == HEL
            refused = await gateway.post("/v1/chat/completions", json=CHAT)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            more.set()
            assert b"".join([piece async for piece in pieces]) == DONE
        async with asked(gateway) as pieces:
            assert b"".join([piece async for piece in pieces]) == HEL + DONE


async def test_a_client_at_its_limit_keeps_no_other_out() -> None:
    more = asyncio.Event()
    limits = Limits(most_of_a_client=1, keys={"s3cret": "trainer", "t0ken": "script"})
    judge = ScriptedJudge(streams(HEL, more, DONE))
    async with judge, of_file(external("judge", judge.url), limits=limits) as gateway:

        async def ask(key: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"}
            return await gateway.post("/v1/chat/completions", json=CHAT, headers=headers)

        first = asyncio.create_task(ask("s3cret"))
        await asyncio.wait_for(judge.asked.wait(), 20)
        refused = await ask("s3cret")
        assert refused.status_code == 429 and refused.json()["error"]["message"].endswith("1 yours")
        judge.asked.clear()
        other = asyncio.create_task(ask("t0ken"))
        await asyncio.wait_for(judge.asked.wait(), 20)
        more.set()
        assert (await first).content == (await other).content == HEL + DONE


async def test_a_fleet_streams_nothing() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 404
