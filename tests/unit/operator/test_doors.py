"""What the operator makes of engines that answer, but not as engines should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from genrm_operator import calls
from genrm_operator.doors import Doors
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import DoorUnreachable, EngineError, NotVerified

from tests.unit.operator.test_lifecycle import make_pod

ADDRESS = "127.9.8.7"  # a loopback address of this test's own, because doors listen on a fixed port
IS_ASLEEP = Call("GET", "/is_sleeping")


@asynccontextmanager
async def answering(answer: bytes, *, drip: bool = False) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if drip:  # a byte from time to time: no single read takes long
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(serve, ADDRESS, 8000)
    try:
        yield
    finally:
        server.close()


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    "body", [b"", b"yes", b"[]", b"null", b'{"asleep": true}', b"\xff", pytest.param(b"[" * 9999, id="deep")]
)
async def test_an_answer_in_another_shape_is_the_engines_error_and_names_the_pod(body: bytes) -> None:
    async with answering(http(body)), Doors() as doors:
        with pytest.raises(EngineError, match=r"judge-0: .*cannot be read"):
            await doors.is_asleep(make_pod(ip=ADDRESS), "token", IS_ASLEEP)
        with pytest.raises(EngineError, match="judge-0"):
            await doors.look(make_pod(ip=ADDRESS), "token")


async def test_an_answer_that_drips_is_given_up_at_the_deadline() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    async with answering(head, drip=True), Doors() as doors:
        with pytest.raises(DoorUnreachable):
            await doors.look(make_pod(ip=ADDRESS), "token", timeout=0.3)


async def test_an_answer_without_an_end_is_given_up_before_it_fills_the_operators_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "MOST_BYTES", 1000)
    for answer in (http(b"[" * 1001), b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"[" * 100_000):
        async with answering(answer), Doors() as doors:
            with pytest.raises(DoorUnreachable, match="an answer of more than 1000 bytes"):
                await doors.look(make_pod(ip=ADDRESS), "token")
    async with answering(http(b"[" * 1000)), Doors() as doors:
        with pytest.raises(EngineError, match="cannot be read"):
            await doors.look(make_pod(ip=ADDRESS), "token")


async def test_an_engine_that_lets_anyone_in_is_not_verified() -> None:
    async with answering(http(b'{"is_sleeping": false}')), Doors() as doors:
        with pytest.raises(NotVerified, match="without a token answers 200"):
            await doors.verify_guarded(make_pod(ip=ADDRESS), IS_ASLEEP)


async def test_nobody_there_is_told_apart_from_a_wrong_answer() -> None:
    async with Doors() as doors:
        with pytest.raises(DoorUnreachable):
            await doors.look(make_pod(ip=ADDRESS), "token")


async def test_who_looks_does_not_wait_for_those_who_wait_for_engines() -> None:
    """An order may last for minutes, and there is one for each pod of a cluster that wakes."""
    many, arrived, over = 300, asyncio.Semaphore(0), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST /wake_up"):
            arrived.release()
            await over.wait()
        writer.write(http(b'{"state": "closed", "inside": 0, "bootId": "b1"}'))
        writer.close()

    async with Doors() as doors, await asyncio.start_server(serve, ADDRESS, 8000, backlog=many):
        pod, wake = make_pod(ip=ADDRESS), Call("POST", "/wake_up")
        orders = [asyncio.create_task(doors.call_engine(pod, "token", wake)) for _ in range(many)]
        async with asyncio.timeout(30):
            for _ in range(many):
                await arrived.acquire()
            assert (await doors.look(pod, "token", timeout=10)).boot_id == "b1"
            over.set()
            await asyncio.gather(*orders)
