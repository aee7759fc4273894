"""The routes. Each says in its own format what `formats` makes of a request, and what became of its samples.

Every route is there twice: for the gateway's default target, and below `/NAME` for any other. Query parameters
`group_size`, and `group` where the prompt is not name enough, gather the members of a group that come one by one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from genrm_scoring.errors import ClusterError, ConfigurationError, RunStopped
from genrm_scoring.gathering import LONGEST
from genrm_scoring.groups import Report
from genrm_scoring.rankings import Listwise
from genrm_scoring.sources import Pairwise
from genrm_scoring.types import Sample, Score

from genrm_gateway import formats
from genrm_gateway.catalog import Catalog, Target, UnknownTarget
from genrm_gateway.formats import (
    CompareRequest,
    OpenRlhfRequest,
    RewardApiRequest,
    ScoreRequest,
    SlimeRequest,
    VerifyRequest,
)
from genrm_gateway.limits import RETRY_AFTER_SECONDS, Admission, Limits
from genrm_gateway.meetings import Meetings
from genrm_gateway.metrics import CONTENT_TYPE, Metrics
from genrm_gateway.peers import Peers

Open = Callable[[], Awaitable[Catalog]]
NDJSON: Final = "application/x-ndjson"
PASSED_BACK: Final = ("content-type", "retry-after", "genrm-outcome", "genrm-source")
ANSWER_SECONDS: Final = 600.0
"""For another gateway to score a group that is complete; judgements have deadlines of their own."""
RELAYED: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/classify", "/pooling")


class Refused(Exception):
    """A request that gets no score; `content` says why."""

    def __init__(self, status: int, content: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status, self.content = status, content


class Desk:
    """What all routes share while the gateway runs."""

    def __init__(self, catalog: Catalog, patience: float, peers: Peers) -> None:
        self.catalog = catalog
        self.peers = peers
        self._patience = patience
        self.meetings = Meetings()
        self.metrics = Metrics()

    async def target(self, name: str | None) -> Target:
        """
        Raises:
            Refused
        """
        if (name := name or self.catalog.default) is None:
            raise _refused(404, "target", "this gateway has no default; name one in the path, like /judge/get_reward2")
        try:
            return await self.catalog.find(name)
        except UnknownTarget as e:
            raise _refused(404, e.field, e.sentence) from e
        except ConfigurationError as e:
            raise _refused(501, e.field, e.sentence) from e
        except ClusterError as e:
            raise _refused(503, "cluster", str(e)) from e

    async def scores(self, wire_format: str, target: Target, samples: Sequence[Sample]) -> Sequence[Score]:
        """Responses to one prompt, together.

        Raises:
            Refused: a failure under policy raise, or a rule that does not start.
        """
        return (await self.compared(wire_format, target, samples))[0]

    async def compared(
        self, wire_format: str, target: Target, samples: Sequence[Sample]
    ) -> tuple[Sequence[Score], Report | None]:
        """The same, with what is known of their tournament where a RewardModel held one."""
        report = None
        with _refusals():
            async with target.used():
                if isinstance(target.source, Pairwise | Listwise):
                    scores, report = await target.source.compared(samples)
                else:
                    scores = await target.source.scores(samples)
        for score in scores:
            self.metrics.scored(wire_format, target.name, score)
        return scores, report

    async def gathered(self, wire_format: str, request: Request, target: Target, sample: Sample) -> Score | Response:
        """One response, with its siblings if the request says that it has any; or the answer of another gateway, which
        has the siblings. What can be asked about it before they come, is.

        Raises:
            Refused: as `scores`.
        """
        size = _group_size(request)
        if size <= 1:
            (score,) = await self.scores(wire_format, target, [sample])
            return score
        group = request.query_params.get("group") or sample.question
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        key = f"{target.name}\0{group}"
        reply = await self.peers.elsewhere(key, path, request.headers, await request.body(), self.patience_of(size))
        if reply is not None:
            return Response(reply.body, reply.status, {k: v for k, v in reply.headers.items() if k in PASSED_BACK})
        with _refusals():
            async with self.meetings.joined(key, size, target) as target:
                score = await target.arrivals.score(key, size, sample)
        self.metrics.scored(wire_format, target.name, score)
        return score

    def patience_of(self, size: int) -> float:
        """Seconds for a whole group at another gateway: each member may come at the last moment."""
        return self._patience * min(size, LONGEST) + ANSWER_SECONDS


def application(
    open_catalog: Open, limits: Limits | None = None, patience: float = 300.0, peers: Peers | None = None
) -> Admission:
    """The gateway as an ASGI application. `open_catalog` is called once, when the server starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.desk = desk = Desk(await open_catalog(), patience, peers or Peers())
        try:
            yield
        finally:
            await desk.peers.close()
            await desk.catalog.close()

    app = FastAPI(title="genrm-gateway", description=__doc__, lifespan=lifespan)
    app.add_exception_handler(Refused, _say)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _say_unreadable)  # type: ignore[arg-type]
    app.get("/healthz", response_class=Response)(_healthz)
    app.get("/metrics", response_class=Response)(_metrics)
    for prefix in ("", "/{target}"):
        app.include_router(_routes(), prefix=prefix)
    return Admission(app, limits or Limits())


def _routes() -> APIRouter:
    routes = APIRouter()
    routes.post("/get_reward2", summary="reward_api")(_get_reward2)
    routes.post("/get_reward", summary="reward_api, or OpenRLHF")(_get_reward)
    routes.post("/slime", summary="slime")(_slime)
    routes.post("/verify", summary="NeMo-Gym")(_verify)
    routes.post("/compare", summary="NeMo-Gym, all responses to a prompt")(_compare)
    routes.post("/v1/score", summary="Any number of samples")(_score)
    routes.get("/v1/models", summary="OpenAI")(_models)
    for path in RELAYED:
        routes.post(path, summary="Passed on to a RewardModel")(_relay)
    return routes


# -- one sample, or some


async def _get_reward2(said: RewardApiRequest, request: Request) -> Response:
    return await _one(request, "get-reward2", formats.of_reward_api(said), formats.as_reward_api)


async def _slime(said: SlimeRequest, request: Request) -> Response:
    return await _one(request, "slime", formats.of_slime(said), lambda score: score.value)


async def _get_reward(said: RewardApiRequest | OpenRlhfRequest, request: Request) -> Response:
    if isinstance(said, RewardApiRequest):
        return await _one(request, "get-reward", formats.of_reward_api(said), formats.as_reward_api)
    began, desk = time.monotonic(), _desk(request)
    try:
        samples = formats.of_openrlhf(said)
    except ValueError as e:
        raise _refused(422, "query", str(e)) from e
    target = await desk.target(_name(request))
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
    began, desk = time.monotonic(), _desk(request)
    target = await desk.target(_name(request))
    score = await desk.gathered("nemo-gym", request, target, formats.of_verify(said))
    if isinstance(score, Response):
        return score
    return _answered(desk, "nemo-gym", began, formats.as_verify(said, score))


async def _compare(said: CompareRequest, request: Request) -> Response:
    began, desk = time.monotonic(), _desk(request)
    target = await desk.target(_name(request))
    if said.principle is not None and not target.principled:
        raise _refused(422, "principle", f"nobody behind {target.name} is told it, so it would change nothing; write "
                       "{{ principle }} into a template of its RewardModels, or leave it out")  # fmt: skip
    scores, report = await desk.compared("nemo-gym", target, formats.of_compare(said))
    if all(score.value is None for score in scores):
        raise _failed(scores)
    return _answered(desk, "nemo-gym", began, formats.as_compare(scores, report))


async def _one(request: Request, wire_format: str, sample: Sample, answer: Callable[[Score], Any]) -> Response:
    began, desk = time.monotonic(), _desk(request)
    score = await desk.gathered(wire_format, request, await desk.target(_name(request)), sample)
    if isinstance(score, Response):
        return score
    if score.value is None:
        raise _failed([score])
    headers = {"genrm-outcome": score.outcome.value, "genrm-source": score.source.value}
    return _answered(desk, wire_format, began, answer(score), headers)


# -- ours


async def _score(said: ScoreRequest, request: Request) -> Response:
    began, desk = time.monotonic(), _desk(request)
    target = await desk.target(said.target or _name(request))
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

    for ended in asyncio.as_completed([asyncio.ensure_future(scored(group)) for group in groups]):
        yield b"".join(json.dumps(line).encode() + b"\n" for line in await ended)


# -- what is passed on


async def _relay(request: Request) -> Response:
    began, desk, body = time.monotonic(), _desk(request), await request.body()
    path = next(path for path in RELAYED if request.url.path.endswith(path))
    target = await desk.target(_name(request) or _model_in(body))
    if target.relay is None:
        raise _refused(404, "model", f"{target.name} is a RewardFleet, which is asked through /v1/score")
    async with target.used():
        reply, judgement = await target.relay.ask(path, body)
    code = 503 if reply is None else reply.status
    desk.metrics.answered("relay", code, time.monotonic() - began)
    if reply is None:
        return _error(503, {"outcome": judgement.outcome, "message": judgement.detail})
    return Response(reply.body, reply.status, media_type=reply.headers.get("content-type"))


async def _models(request: Request) -> Response:
    """All that requests can be passed on to; below `/NAME`, NAME if it is one of them."""
    desk, name = _desk(request), _name(request)
    try:
        names = await desk.catalog.models()
    except ClusterError as e:
        raise _refused(503, "cluster", str(e)) from e
    if name is not None:
        await desk.target(name)
        names = [model for model in names if model == name]
    models = [{"id": model, "object": "model", "owned_by": "genrm", "created": 0} for model in names]
    return JSONResponse({"object": "list", "data": models})


def _model_in(body: bytes) -> str | None:
    """The RewardModel that is meant by a request's `model`."""
    try:
        model = json.loads(body).get("model")
    except (ValueError, AttributeError, RecursionError):
        return None
    return model if isinstance(model, str) else None


# -- the server's own


async def _healthz() -> Response:
    return Response("ok", media_type="text/plain")


async def _metrics(request: Request) -> Response:
    desk = _desk(request)
    desk.metrics.gathering.set(desk.meetings.waiting)
    return Response(desk.metrics.page(), media_type=CONTENT_TYPE)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _name(request: Request) -> str | None:
    name: str | None = request.path_params.get("target") or request.query_params.get("target")
    return name


def _group_size(request: Request) -> int:
    """
    Raises:
        Refused
    """
    given = request.query_params.get("group_size", "1")
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= formats.MOST_SAMPLES:
        raise _refused(422, "group_size", f"found {given[:20]!r}; write a number from 1 to {formats.MOST_SAMPLES}")
    return int(given)


def _answered(
    desk: Desk, wire_format: str, began: float, content: Any, headers: Mapping[str, str] | None = None
) -> Response:
    desk.metrics.answered(wire_format, 200, time.monotonic() - began)
    return JSONResponse(content, headers=dict(headers or {}))


def _refused(status: int, field: str, message: str) -> Refused:
    """`field` as the client, or who wrote the resource, wrote it."""
    return Refused(status, {"field": field, "message": message})


@contextmanager
def _refusals() -> Iterator[None]:
    """What keeps a target from scoring at all, as an answer.

    Raises:
        Refused
    """
    try:
        yield
    except RunStopped as e:
        raise _refused(503, "onFailure", str(e)) from e
    except ConfigurationError as e:
        raise _refused(501, e.field, e.sentence) from e


def _failed(scores: Sequence[Score]) -> Refused:
    """No score, and why; of several the first is told."""
    first = scores[0]
    return Refused(
        formats.status_of(scores),
        {"outcome": first.outcome, "message": f"no score: {first.detail or first.outcome}", **formats.in_words(first)},
    )


async def _say(request: Request, refused: Refused) -> Response:
    _desk(request).metrics.refused(refused.status)
    return _error(refused.status, refused.content)


async def _say_unreadable(request: Request, unreadable: RequestValidationError) -> Response:
    """Without what was sent, which FastAPI would send back: an image is large."""
    found = [(".".join(map(str, e["loc"][1:])), e["msg"].removeprefix("Value error, ")) for e in unreadable.errors()]
    sentences = dict.fromkeys(f"{field}: {what}" if field else what for field, what in found)
    _desk(request).metrics.refused(422)
    return _error(422, {"field": found[0][0], "message": "; ".join(sentences)})


def _error(status: int, content: Mapping[str, Any]) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    return JSONResponse({"error": dict(content)}, status, headers=headers)
