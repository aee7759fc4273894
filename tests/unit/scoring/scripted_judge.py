"""An OpenAI-compatible server that does what a test tells it, in the test's own event loop.

A *reaction* gets the request's JSON and answers it, or misbehaves. The server plays its script of reactions one after
another and the last one for ever; every request is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from genrm_api.names import HEADER_BOOT_ID, HEADER_REVISION

Request = dict[str, Any]
Reaction = Callable[[web.Request, Request], Awaitable[web.StreamResponse]]


def says(
    text: str | Callable[[Request], str],
    finish_reason: str = "stop",
    after: float = 0.0,
    logprobs: list[dict[str, Any]] | None = None,
) -> Reaction:
    async def react(_: web.Request, request: Request) -> web.StreamResponse:
        await asyncio.sleep(after)
        content = text if isinstance(text, str) else text(request)
        choice = {"index": 0, "finish_reason": finish_reason, "message": {"content": content}}
        if logprobs is not None:
            choice["logprobs"] = {"content": logprobs}
        body = {
            "choices": [choice],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7},
        }
        return web.json_response(body, headers={HEADER_REVISION: "r1", HEADER_BOOT_ID: "b1"})

    return react


def status(code: int, body: str = "") -> Reaction:
    async def react(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(status=code, text=body)

    return react


def garbage() -> Reaction:
    async def react(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(text="<html>it works</html>")

    return react


def hangs() -> Reaction:
    async def react(_: web.Request, __: Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return react


def drops_connection() -> Reaction:
    async def react(http: web.Request, __: Request) -> web.StreamResponse:
        assert http.transport is not None
        http.transport.abort()
        return web.Response()

    return react


def streams(*pieces: bytes | asyncio.Event, breaks: bool = False) -> Reaction:
    """An answer in these pieces, which goes on after an event only when that is set; at its end the connection may
    break."""

    async def react(http: web.Request, _: Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await reply.prepare(http)
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                await reply.write(piece)
        if breaks:
            assert http.transport is not None
            http.transport.abort()
        return reply

    return react


class ScriptedJudge:
    """`async with ScriptedJudge(says("\\\\boxed{True}")) as judge: judge.url`."""

    def __init__(self, *script: Reaction) -> None:
        self.script = list(script)
        self.requests: list[Request] = []
        self.asked = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        for path in ("/v1/chat/completions", "/v1/completions"):
            app.router.add_post(path, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        request = json.loads(await http.read())
        self.requests.append(request)
        self.asked.set()
        reaction = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await reaction(http, request)
