"""Requests in OpenAI's form, passed on to the pods of a RewardModel: as they are, but for its name.

So a client that only knows a base URL gets what ours get: a pod that serves, another one if that fails, and a wait for
the wake instead of an error. An answer that comes in events is one as soon as its first event is there: until then
another pod may be asked, after that what comes is the client's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from genrm_api import durations
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.balancing import LeastInFlight
from genrm_scoring.errors import AttemptFailed, ServerFailed
from genrm_scoring.replies import refusal
from genrm_scoring.retries import RetryBudget
from genrm_scoring.scorer import Scorer
from genrm_scoring.speech import InOneStep
from genrm_scoring.targets import Reached
from genrm_scoring.transport import AiohttpTransport, Incoming, Reply, Transport
from genrm_scoring.types import Answer, Judgement, Question, Verdict

from genrm_gateway.events import MEDIA_TYPE, Cutter

AFFINITY_BYTES: Final = 512
"""Of a request, by which those that begin alike are told."""


class Stream:
    """An answer in events, as they come. It has to be at its end by `until`, a time of the event loop."""

    def __init__(self, incoming: Incoming, until: float) -> None:
        self._incoming, self.until = incoming, until
        self._cutter = Cutter()
        self._first = b""

    async def begin(self, until: float) -> None:
        """Return when the first event is there; `events` begins with it.

        Raises:
            EndpointLost, AttemptTimeout, ServerFailed
        """
        self._first = await self._next(until)
        if not self._first:
            raise ServerFailed("the answer ended before its first event")

    async def events(self) -> bytes:
        """The next events, each of them whole; none after the last.

        Raises:
            EndpointLost, AttemptTimeout, ServerFailed: there would have been more.
        """
        first, self._first = self._first, b""
        return first or await self._next(self.until)

    async def _next(self, until: float) -> bytes:
        while some := await self._incoming.some(until):
            if events := self._cutter.whole(some):
                return events
        rest = self._cutter.rest()
        if not self._cutter.ended:
            raise ServerFailed("the answer ended without `data: [DONE]`")
        return rest

    def close(self) -> None:
        self._incoming.close()


@dataclass(slots=True)
class _AsItIs(InOneStep):
    """One request, in its client's own words."""

    path: str
    request: bytes

    def body(self, question: Question, vote: int) -> bytes:
        return self.request

    def answer(self, reply: Reply) -> Answer:
        if reply.status != 200:
            raise refusal(reply)
        return Answer("")

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return Verdict("", 0.0)


@dataclass(slots=True)
class _Whole:
    """A transport that keeps the last answer, whatever it says."""

    transport: AiohttpTransport
    reply: Reply | None = None

    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        self.reply = None
        self.reply = await self.transport.post(url, body, timeout)
        return self.reply

    async def close(self) -> None:
        """Whoever opened it closes it."""


@dataclass(slots=True)
class _Begun(_Whole):
    """The same, but an answer in events is there with the first; `until` is when the last has to be."""

    until: float = 0.0
    stream: Stream | None = None

    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        self.reply = None
        limit = asyncio.get_running_loop().time() + timeout
        incoming = await self.transport.begin(url, body, timeout)
        try:
            if incoming.status == 200 and incoming.headers.get("content-type", "").startswith(MEDIA_TYPE):
                stream = Stream(incoming, self.until)
                await stream.begin(limit)
                self.stream, self.reply = stream, Reply(incoming.status, incoming.headers, b"")
            else:
                self.reply = await incoming.rest(limit)
        except BaseException:
            incoming.close()
            raise
        return self.reply


class Relay:
    """To one RewardModel; belongs to one event loop."""

    def __init__(self, model: RewardModel, way: Reached) -> None:
        self._model, self._way = model, way
        self._balancer, self._budget = LeastInFlight(), RetryBudget()
        self._scoring = model.spec.scoring.model_copy(update={"votes": None})
        self._base = "/v1" if model.spec.external is not None else ""

    async def ask(self, path: str, request: bytes) -> tuple[Reply | None, Judgement]:
        """The reply of whoever answered last, and how it went. Without a reply nobody was reached in time."""
        whole = _Whole(self._way.transport)
        judgement = await self._asked(path, request, whole)
        return whole.reply, judgement

    @asynccontextmanager
    async def begun(self, path: str, request: bytes) -> AsyncIterator[tuple[Stream | None, Reply | None, Judgement]]:
        """The same with a stream, if the answer comes in events. Where that breaks off the caller lets the error out of
        here, so that the pod is left alone for a while."""
        now = asyncio.get_running_loop().time
        begun = _Begun(self._way.transport, until=now() + durations.seconds(self._scoring.timeout))
        failure: AttemptFailed | None = None
        try:
            judgement = await self._asked(path, request, begun)
            if begun.stream is None or judgement.endpoint is None:
                yield None, begun.reply, judgement
                return
            self._balancer.started(judgement.endpoint, now())
            try:
                yield begun.stream, begun.reply, judgement
            except AttemptFailed as e:
                failure = e
                raise
            finally:
                self._balancer.finished(judgement.endpoint, failure, now())
        finally:
            if begun.stream is not None:
                begun.stream.close()

    async def _asked(self, path: str, request: bytes, transport: Transport) -> Judgement:
        said = _AsItIs(path.removeprefix(self._base), self._named(request))
        way, name = self._way, self._model.served_name
        scorer = Scorer(self._scoring, name, way.endpoints, transport, self._balancer, self._budget, speech=said)
        return await scorer.ask(Question(request[:AFFINITY_BYTES].decode(errors="replace"), ("",)))

    def _named(self, request: bytes) -> bytes:
        """Clients know the RewardModel's name, which `/v1/models` tells them; its engine may know another."""
        if (name := self._model.served_name) == self._model.name:
            return request
        try:
            asked = json.loads(request)
        except (ValueError, RecursionError):
            return request
        if not isinstance(asked, dict) or asked.get("model") != self._model.name:
            return request
        return json.dumps({**asked, "model": name}).encode()
