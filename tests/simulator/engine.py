"""What simulated engines have in common: calls are written down, faults happen, requests take their time.

A subclass says which routes there are and what they do. A request that reaches a sleeping engine is a *violation*: the
door exists so that there are none. An engine that dies of a call answers nobody any more, as a server that is gone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from genrm_door.nvml import DeviceMemory

from tests.simulator.asgi import Receive, Scope, Send, answer_json, body_of, lifespan
from tests.simulator.faults import Faults

MAX_CALLS = 10_000


@dataclass
class Call:
    """One call that reached the engine. `asleep` is the engine's state when it arrived."""

    at: float
    method: str
    path: str
    query: str
    asleep: bool
    scoring: bool


class Bad(Exception):
    """A request that the engine does not accept."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param


class Dead(Exception):
    """The engine did what it was asked, and it was its end."""


class Job:
    """One request in the engine."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()


Handler = Callable[[Scope, bytes, Receive, Send], Awaitable[None]]


class SimEngine:
    """An engine that starts awake. `faults` may be replaced at any time."""

    door: ClassVar[str]
    """The name by which the door knows this engine's routes; empty: there is no door before it."""
    scoring: frozenset[str]
    wakes: ClassVar[str] = ""
    """The route that gives it its memory back: it has it from the beginning of the call."""

    def __init__(
        self,
        model: str = "judge",
        faults: Faults | None = None,
        *,
        capacity: int = 256,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.model = model
        self._faults = faults or Faults()
        self._other_faults = asyncio.Event()
        self.capacity = capacity
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self.violations: deque[Call] = deque(maxlen=MAX_CALLS)
        self.died_of: str | None = None
        self.frozen = False
        self.waking = 0
        """Wakes that have begun and did not answer yet."""
        self.running = 0
        self.jobs: set[Job] = set()
        self.succeeded = 0
        self.changed = asyncio.Condition()
        self.now = now
        self._handlers = self.handlers()
        self._paths = {path for _, path in self._handlers}

    def again(self) -> Self:
        """The engine that the same container starts next, with the same account of calls."""
        other = type(self)(self.model, self.faults, capacity=self.capacity, now=self.now)
        other.calls, other.violations = self.calls, self.violations
        return other

    def handlers(self) -> Mapping[tuple[str, str], Handler]:
        raise NotImplementedError

    @property
    def asleep(self) -> bool:
        raise NotImplementedError

    @property
    def has_memory(self) -> bool:
        """Whether it has what it computes with, or takes it just now."""
        return self.died_of is None and (not self.asleep or self.waking > 0)

    def error(self, bad: Bad, path: str) -> Mapping[str, Any]:
        """An error as this engine writes it on this route."""
        raise NotImplementedError

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._other_faults.set()  # those that hang look again
        self._other_faults = asyncio.Event()

    async def _not_hanging(self, path: str) -> None:
        while path in self.faults.hang:
            await self._other_faults.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        method, path, query = scope["method"], scope["path"], scope["query_string"].decode()
        scoring = path in self.scoring
        call = Call(self.now(), method, path, query, self.asleep, scoring)
        self.calls.append(call)
        if call.asleep and scoring:
            self.violations.append(call)
        body = await body_of(receive)
        if not scoring:  # those hang and dawdle in `_work`, where they can be aborted
            self.waking += path == self.wakes
            try:
                await self._not_hanging(path)
                await asyncio.sleep(self.faults.slow.get(path, 0.0))
            finally:
                self.waking -= path == self.wakes
        status = self.faults.status.get(path)
        try:
            if self.died_of is not None:
                raise Dead(self.died_of)
            if status is not None:
                raise Bad(status, "InternalServerError", "told to")
            handler = self._handlers.get((method, path))
            if handler is None:
                known = path in self._paths
                await answer_json(
                    send, 405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"}
                )
            else:
                await handler(scope, body, receive, send)
        except Bad as bad:
            await answer_json(send, bad.status, self.error(bad, path))
        except Dead as dead:
            self.died_of = str(dead)
            raise

    async def generate(self, path: str, receive: Receive) -> bool | None:
        """Take the time that a request takes. Whether it was aborted; None if the client hung up."""
        job = Job()
        self.jobs.add(job)
        work = asyncio.create_task(self._work(path))
        aborted = asyncio.create_task(job.aborted.wait())
        gone = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait({work, aborted, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                self.succeeded += 1
                return False
            return True if aborted.done() else None
        finally:
            self.jobs.discard(job)
            for task in (work, aborted, gone):
                task.cancel()
            await asyncio.gather(work, aborted, gone, return_exceptions=True)

    async def _work(self, path: str) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: not self.asleep and self.running < self.capacity)
            self.running += 1
        try:
            await self._not_hanging(path)
            await asyncio.sleep(self.faults.slow.get(path, 0.0))
            if self.frozen:
                async with self.changed:
                    await self.changed.wait_for(lambda: not self.frozen)
        finally:
            self.running -= 1
            async with self.changed:
                self.changed.notify_all()

    def gpus(self, *, gone: bool = False) -> DeviceMemory:
        """As if it had one of 80 GiB. `gone`: its processes have ended, and it has nothing of it."""
        total, took = 80 << 30, 72 << 30
        used = 0 if gone else round(took * self.faults.keeps) if self.asleep and not self.waking else took
        return DeviceMemory(min(used + round(total * self.faults.taken), total), total)

    def abort_all(self) -> None:
        for job in self.jobs:
            job.aborted.set()

    async def wake_waiters(self) -> None:
        async with self.changed:
            self.changed.notify_all()


async def stream_chat(send: Send, common: Mapping[str, Any], text: str, reason: str) -> None:
    """A chat answer piece by piece, as OpenAI's and all who follow it send it."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in text.split(" ")] + [({}, reason)]
    for delta, finish in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]})
        await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def read_json(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Bad(400, "Bad Request", f"1 validation error: {error}") from error
    if not isinstance(request, dict):
        raise Bad(400, "Bad Request", "1 validation error: body is no object")
    return request


def call_json(call: Call) -> dict[str, Any]:
    return asdict(call)
