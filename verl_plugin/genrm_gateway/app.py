"""The routes. Each says in its own format what `formats` makes of a request, and what became of its samples.

Every route is there twice: for the gateway's default target, and below `/NAME` for any other. Query parameters
`group_size`, and `group` where the prompt is not name enough, gather the members of a group that come one by one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from genrm_scoring.types import Sample, Score
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from genrm_gateway import formats, openai_routes, openapi
from genrm_gateway.catalog import Catalog, Target
from genrm_gateway.desk import CLIENT_LEFT, Desk, Refused, desk_of, error, in_json, name_in, refused
from genrm_gateway.formats import (
    CompareRequest,
    OpenRlhfRequest,
    RewardApiRequest,
    ScoreRequest,
    SlimeRequest,
    VerifyRequest,
)
from genrm_gateway.limits import Admission, Limits
from genrm_gateway.metrics import CONTENT_TYPE, Metrics
from genrm_gateway.peers import Peers

Open = Callable[[], Awaitable[Catalog]]
NDJSON: Final = "application/x-ndjson"


def application(
    open_catalog: Open, limits: Limits | None = None, patience: float = 300.0, peers: Peers | None = None
) -> Admission:
    """The gateway as an ASGI application. `open_catalog` is called once, when the server starts."""

    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.desk = desk = Desk(await open_catalog(), patience, peers or Peers(), metrics)
        try:
            yield
        finally:
            await desk.peers.close()
            await desk.catalog.close()

    app = FastAPI(title="genrm-gateway", description=openapi.DESCRIPTION, lifespan=lifespan)
    read_off, page = app.openapi, cache(lambda: openapi.described(read_off()))
    app.openapi = page  # type: ignore[method-assign]
    app.add_exception_handler(Refused, _say)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _say_unreadable)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _say_unknown)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, _say_nothing)
    app.add_exception_handler(Exception, _say_broken)
    app.get("/healthz", summary="Whether it lives", response_class=PlainTextResponse)(_healthz)
    app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)(_metrics)
    for prefix in ("", "/{target}"):
        _add_routes(app, prefix)
    return Admission(app, limits or Limits(), metrics.refused)


def _add_routes(app: FastAPI, prefix: str) -> None:
    app.post(f"{prefix}/get_reward2", summary="reward_api")(_get_reward2)
    app.post(f"{prefix}/get_reward", summary="reward_api, or OpenRLHF")(_get_reward)
    app.post(f"{prefix}/slime", summary="slime")(_slime)
    app.post(f"{prefix}/verify", summary="NeMo-Gym")(_verify)
    app.post(f"{prefix}/compare", summary="NeMo-Gym, all responses to a prompt")(_compare)
    app.post(f"{prefix}/v1/score", summary="Any number of samples")(_score)
    openai_routes.add_to(app, prefix)


# -- one sample, or some


async def _get_reward2(said: RewardApiRequest, request: Request) -> Response:
    return await _one(request, "get-reward2", formats.of_reward_api(said), formats.as_reward_api)


async def _slime(said: SlimeRequest, request: Request) -> Response:
    return await _one(request, "slime", formats.of_slime(said), lambda score: score.value)


async def _get_reward(said: RewardApiRequest | OpenRlhfRequest, request: Request) -> Response:
    if isinstance(said, RewardApiRequest):
        return await _one(request, "get-reward", formats.of_reward_api(said), formats.as_reward_api)
    began, desk = time.monotonic(), desk_of(request)
    try:
        samples = formats.of_openrlhf(said)
    except ValueError as e:
        raise refused(422, "query", str(e)) from e
    target = await desk.target(name_in(request))
    if len(samples) == 1:
        score = await desk.gathered("openrlhf", request, target, samples[0])
        if isinstance(score, Response):
            return score
        scores: Sequence[Score] = [score]
    else:
        scores = await _by_groups(desk, "openrlhf", target, samples, [None] * len(samples))
    if failed := [score for score in scores if score.value is None]:
        raise _failed(failed)
    return _answered(desk, "openrlhf", began, formats.as_openrlhf(scores))


async def _verify(said: VerifyRequest, request: Request) -> Response:
    began, desk = time.monotonic(), desk_of(request)
    target = await desk.target(name_in(request))
    score = await desk.gathered("nemo-gym", request, target, formats.of_verify(said))
    if isinstance(score, Response):
        return score
    return _answered(desk, "nemo-gym", began, formats.as_verify(said, score))


async def _compare(said: CompareRequest, request: Request) -> Response:
    began, desk = time.monotonic(), desk_of(request)
    target = await desk.target(name_in(request))
    if said.principle is not None and not target.principled:
        raise refused(422, "principle", f"nobody behind {target.name} is told it, so it would change nothing; write "
                       "{{ principle }} into a template of its RewardModels, or leave it out")  # fmt: skip
    scores, report = await desk.compared("nemo-gym", target, formats.of_compare(said))
    if all(score.value is None for score in scores):
        raise _failed(scores)
    return _answered(desk, "nemo-gym", began, formats.as_compare(scores, report))


async def _one(request: Request, wire_format: str, sample: Sample, answer: Callable[[Score], Any]) -> Response:
    began, desk = time.monotonic(), desk_of(request)
    score = await desk.gathered(wire_format, request, await desk.target(name_in(request)), sample)
    if isinstance(score, Response):
        return score
    if score.value is None:
        raise _failed([score])
    headers = {"genrm-outcome": score.outcome.value, "genrm-source": score.source.value}
    return _answered(desk, wire_format, began, answer(score), headers)


# -- ours


async def _score(said: ScoreRequest, request: Request) -> Response:
    began, desk = time.monotonic(), desk_of(request)
    target = await desk.target(said.target or name_in(request))
    samples, names = [formats.of_score(sample) for sample in said.samples], [sample.group for sample in said.samples]
    if NDJSON in request.headers.get("accept", ""):
        lines = _lines(desk, target, samples, formats.grouped(samples, names))
        return StreamingResponse(lines, media_type=NDJSON)
    scores = await _by_groups(desk, "score", target, samples, names)
    return _answered(desk, "score", began, {"target": target.name, "scores": [formats.in_words(s) for s in scores]})


async def _by_groups(
    desk: Desk, wire_format: str, target: Target, samples: Sequence[Sample], names: Sequence[str | None]
) -> list[Score]:
    """The scores of samples of several prompts, in their order."""
    groups = formats.grouped(samples, names)
    found = await asyncio.gather(*(desk.scores(wire_format, target, [samples[p] for p in group]) for group in groups))
    by_place = {p: s for group, scores in zip(groups, found, strict=True) for p, s in zip(group, scores, strict=True)}
    return [by_place[place] for place in range(len(samples))]


async def _lines(
    desk: Desk, target: Target, samples: Sequence[Sample], groups: Sequence[Sequence[int]]
) -> AsyncIterator[bytes]:
    """A line for each sample, as soon as its group is scored."""

    async def scored(group: Sequence[int]) -> list[dict[str, Any]]:
        try:
            scores = await desk.scores("score", target, [samples[place] for place in group])
        except Refused as e:
            return [{"index": place, **e.content} for place in group]
        return [{"index": place, **formats.in_words(s)} for place, s in zip(group, scores, strict=True)]

    began, asked = time.monotonic(), [asyncio.create_task(scored(group)) for group in groups]
    try:
        for ended in asyncio.as_completed(asked):
            yield b"".join(json.dumps(line).encode() + b"\n" for line in await ended)
        desk.metrics.answered("score", 200, time.monotonic() - began)
    finally:
        for task in asked:  # nobody waits for them any more, if their client left
            task.cancel()


# -- the server's own


async def _healthz() -> Response:
    return Response("ok", media_type="text/plain")


async def _metrics(request: Request) -> Response:
    desk = desk_of(request)
    desk.metrics.gathering.set(desk.meetings.waiting)
    return Response(desk.metrics.page(), media_type=CONTENT_TYPE)


def _answered(
    desk: Desk, wire_format: str, began: float, content: Any, headers: Mapping[str, str] | None = None
) -> Response:
    desk.metrics.answered(wire_format, 200, time.monotonic() - began)
    return in_json(content, headers=headers)


def _failed(scores: Sequence[Score]) -> Refused:
    """No score, and why; of several the first is told."""
    first = scores[0]
    return Refused(
        formats.status_of(scores),
        {"outcome": first.outcome, "message": f"no score: {first.detail or first.outcome}", **formats.in_words(first)},
    )


async def _say(request: Request, why: Refused) -> Response:
    desk_of(request).metrics.refused(why.status)
    return error(why.status, why.content)


async def _say_unreadable(request: Request, unreadable: RequestValidationError) -> Response:
    """Without what was sent, which FastAPI would send back: an image is large."""
    if isinstance(unreadable.body, bytes):
        found = [("content-type", "the body is not read as JSON; send `content-type: application/json`")]
    else:
        found = [_in_words(one) for one in unreadable.errors()]
    sentences = dict.fromkeys(f"{field}: {what}" for field, what in found)
    desk_of(request).metrics.refused(422)
    return error(422, {"field": found[0][0], "message": "; ".join(sentences)})


def _in_words(one: Mapping[str, Any]) -> tuple[str, str]:
    """A field, and what is wrong with it."""
    if one["type"] == "json_invalid":
        return "body", f"no JSON: {one['ctx']['error']} at character {one['loc'][-1]}"
    return ".".join(map(str, one["loc"][1:])) or "body", one["msg"].removeprefix("Value error, ")


async def _say_unknown(request: Request, found: HTTPException) -> Response:
    """What is no matter of a route: there is none, or not by this method; a body is too large, or cannot be parsed."""
    desk_of(request).metrics.refused(found.status_code)
    answer = error(found.status_code, {"message": str(found.detail)})
    answer.headers.update(found.headers or {})
    return answer


async def _say_nothing(_: Request, __: Exception) -> Response:
    """To a client that left before it had sent its request."""
    return Response(status_code=CLIENT_LEFT)


async def _say_broken(request: Request, _: Exception) -> Response:
    """A fault of ours; the server writes it to its log."""
    desk_of(request).metrics.refused(500)
    return error(500, {"message": "the gateway could not deal with this request; its log says why"})
