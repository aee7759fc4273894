"""OpenAI's routes, and vLLM's for classifiers: what is asked there goes on to a RewardModel, and comes back as it is.

Whoever hangs up is not asked for any longer: the pod hears of it, and stops. An answer in events (`stream: true`) is
passed on event by event. Once the first is out no other pod can take over, so one that breaks off there ends with an
error event in OpenAI's form instead of `data: [DONE]`; clients of OpenAI's raise it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response
from genrm_scoring.errors import AttemptFailed, ClusterError
from genrm_scoring.transport import Reply
from genrm_scoring.types import Judgement, Outcome
from starlette.types import Receive, Scope, Send

from genrm_gateway.catalog import Target
from genrm_gateway.desk import CLIENT_LEFT, PASSED_BACK, Desk, desk_of, error, in_json, name_in, refused
from genrm_gateway.events import error_event, error_in_words
from genrm_gateway.relay import Relay, Stream

T = TypeVar("T")

RELAYED: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/classify", "/pooling")
STREAMED: Final = ("/v1/chat/completions", "/v1/completions")
LAST_WORD_SECONDS: Final = 5.0
"""For an error event to reach a client that reads slowly."""


def add_to(app: FastAPI, prefix: str) -> None:
    app.get(f"{prefix}/v1/models", summary="OpenAI")(_models)
    for path in RELAYED:
        app.post(f"{prefix}{path}", summary="Passed on to a RewardModel")(_relay)


async def _models(request: Request) -> Response:
    """All that requests can be passed on to; below `/NAME`, NAME if it is one of them."""
    desk, name = desk_of(request), name_in(request)
    try:
        names = await desk.catalog.models()
    except ClusterError as e:
        raise refused(503, "cluster", str(e)) from e
    if name is not None:
        await desk.target(name)
        names = [model for model in names if model == name]
    models = [{"id": model, "object": "model", "owned_by": "genrm", "created": 0} for model in names]
    return in_json({"object": "list", "data": models})


async def _relay(request: Request) -> Response:
    began, desk, body = time.monotonic(), desk_of(request), await request.body()
    path = next(path for path in RELAYED if request.url.path.endswith(path))
    asked = _object_in(body)
    target = await desk.target(name_in(request) or _model_in(asked))
    if target.relay is None:
        raise refused(404, "model", f"{target.name} is a RewardFleet, which is asked through /v1/score")
    if path in STREAMED and asked.get("stream"):
        return _Streamed(desk, target, target.relay, path, body)
    async with target.used():
        done = await _while_there(request.receive, target.relay.ask(path, body))
    answer = Response(status_code=CLIENT_LEFT) if done is None else _in_one_piece(*done)
    desk.metrics.answered("relay", answer.status_code, time.monotonic() - began)
    return answer


class _Streamed(Response):
    """An answer in events; one piece, if the engine gives none."""

    def __init__(self, desk: Desk, target: Target, relay: Relay, path: str, body: bytes) -> None:
        super().__init__()
        self._desk, self._target, self._relay, self._path, self._request = desk, target, relay, path, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, metrics = time.monotonic(), self._desk.metrics
        status = await _while_there(receive, self._pass_on(scope, receive, send))
        if status is None:
            metrics.streamed("left")
        metrics.answered("relay", status or CLIENT_LEFT, time.monotonic() - began)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> int:
        """The status that was answered."""
        try:
            async with self._target.used(), self._relay.begun(self._path, self._request) as (stream, reply, judgement):
                if stream is not None:
                    await self._events(stream, send)
                    return 200
        except AttemptFailed as e:  # of a stream that had begun
            self._desk.metrics.streamed(e.outcome)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    said = error_event(e.outcome, f"the answer broke off: {e}")
                    await send({"type": "http.response.body", "body": said})
            return 200
        except TimeoutError:  # its client reads too slowly, and finds the connection broken
            self._desk.metrics.streamed("left")
            return 200
        answer = _in_one_piece(reply, judgement)
        await answer(scope, receive, send)
        return answer.status_code

    async def _events(self, stream: Stream, send: Send) -> None:
        """
        Raises:
            AttemptFailed: it broke off.
            TimeoutError: its client does not take what there is.
        """
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while events := await stream.events():
            async with asyncio.timeout_at(stream.until):
                await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self._desk.metrics.streamed(Outcome.OK)


async def _while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What comes of `work`; `None`, and it is given up, if the client leaves first."""
    working, left = asyncio.current_task(), False
    assert working is not None

    async def watch() -> None:
        nonlocal left
        await _left(receive)
        left = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not left or working.uncancel() > 0:
            raise
        return None
    finally:
        watching.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _in_one_piece(reply: Reply | None, judgement: Judgement) -> Response:
    """In the words of who answered last, unless nobody did, or only that he sleeps."""
    if reply is None or judgement.outcome is Outcome.ASLEEP:
        return error(503, error_in_words(judgement.outcome, judgement.detail))
    headers = {name: value for name, value in reply.headers.items() if name in PASSED_BACK}
    return Response(reply.body, reply.status, headers)


def _object_in(body: bytes) -> dict[str, Any]:
    """What is asked; of something that is no object, nothing."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _model_in(asked: dict[str, Any]) -> str | None:
    """The RewardModel that is meant by a request's `model`."""
    model = asked.get("model")
    return model if isinstance(model, str) else None
