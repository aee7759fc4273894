"""One simulated engine: vLLM 0.32's HTTP as the operator and the scoring library meet it, without a model.

What is imitated was seen on the real one (tests/e2e/test_engine_contract.py compares): `/sleep` with its modes (`abort`
ends running requests with status 200, cut-off text and `finish_reason: "abort"`; `wait` lets them finish; `keep` holds
them), requests that hang while the engine sleeps and go on when it wakes, routes that answer in every state, metric
names and labels, the shape of errors.

An answer is a function of the request's content: the same question gets the same verdict from every pod. A request that
reaches a sleeping engine is a *violation*: the door exists so that there are none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs

from tests.simulator.asgi import Receive, Scope, Send, answer, answer_json, body_of, lifespan
from tests.simulator.faults import Faults

VERSION = "0.32.0"
TAGS = frozenset({"weights", "kv_cache"})
MAX_CALLS = 10_000
WORDS = ("the", "answer", "is", "correct", "because", "reasoning", "sound", "score", "out", "of", "7", "10")


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
        self.status = status
        self.document = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class Job:
    """One request in the engine."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()


Handler = Callable[[Scope, bytes, Receive, Send], Awaitable[None]]


class SimEngine:
    """An engine that starts awake. `faults` may be replaced at any time."""

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
        self.sleeping: frozenset[str] = frozenset()
        self.paused = False
        self.frozen = False
        self.level = 0
        self.running = 0
        self.jobs: set[Job] = set()
        self.succeeded = 0
        self.operations = {"sleep": (0, 0.0), "wake": (0, 0.0)}
        self._changed = asyncio.Condition()
        self._now = now
        self._handlers: Mapping[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("GET", "/is_sleeping"): self._is_sleeping,
            ("POST", "/sleep"): self._sleep,
            ("POST", "/wake_up"): self._wake_up,
            ("POST", "/reset_prefix_cache"): self._reset_prefix_cache,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completion,
        }
        self._paths = {path for _, path in self._handlers}

    @property
    def asleep(self) -> bool:
        return self.paused or bool(self.sleeping)

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
        scoring = path in ("/v1/chat/completions", "/v1/completions")
        call = Call(self._now(), method, path, query, self.asleep, scoring)
        self.calls.append(call)
        if call.asleep and scoring:
            self.violations.append(call)
        body = await body_of(receive)
        if not scoring:  # those hang and dawdle in `_work`, where they can be aborted
            await self._not_hanging(path)
            await asyncio.sleep(self.faults.slow.get(path, 0.0))
        faults = self.faults
        if path in faults.status:
            await answer_json(
                send, faults.status[path], Bad(faults.status[path], "InternalServerError", "told to").document
            )
            return
        handler = self._handlers.get((method, path))
        try:
            if handler is None:
                allowed = path in self._paths
                await answer_json(
                    send, 405 if allowed else 404, {"detail": "Method Not Allowed" if allowed else "Not Found"}
                )
            else:
                await handler(scope, body, receive, send)
        except Bad as bad:
            await answer_json(send, bad.status, bad.document)

    # -- routes that answer in every state

    async def _health(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer(send, 200)

    async def _version(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"version": VERSION})

    async def _models(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(self._now()),
            "owned_by": "vllm",
            "root": self.model,
        }
        await answer_json(send, 200, {"object": "list", "data": [{**card, "parent": None, "max_model_len": 8192}]})

    async def _metrics(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        text = self.metrics()
        await answer(send, 200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")

    def metrics(self) -> str:
        """The metrics that the operator and the balancer read, as vLLM spells them."""
        labels = f'engine="0",model_name="{self.model}"'
        states = {"awake": not self.asleep, "weights_offloaded": self.level == 1, "discard_all": self.level == 2}
        lines = ["# HELP vllm:engine_sleep_state Engine sleep state.", "# TYPE vllm:engine_sleep_state gauge"]
        lines += [f'vllm:engine_sleep_state{{{labels},sleep_state="{s}"}} {float(on)}' for s, on in states.items()]
        for name, value in (
            ("vllm:num_requests_running", self.running),
            ("vllm:num_requests_waiting", len(self.jobs) - self.running),
        ):
            lines += [f"# TYPE {name} gauge", f"{name}{{{labels}}} {float(value)}"]
        lines += ["# TYPE vllm:request_success_total counter"]
        lines += [f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(self.succeeded)}']
        lines += ["# TYPE vllm:sleep_mode_operation_duration_seconds histogram"]
        for operation, (count, seconds) in self.operations.items():
            if count:
                name, label = "vllm:sleep_mode_operation_duration_seconds", f'operation="{operation}"'
                lines += [f"{name}_count{{{label}}} {float(count)}", f"{name}_sum{{{label}}} {seconds}"]
        return "\n".join(lines) + "\n"

    async def _tokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = _json(body)
        if not {"prompt", "messages"} & set(request):
            raise Bad(400, "Bad Request", "1 validation error: body.prompt is missing")
        text = request.get("prompt") or "".join(str(m.get("content", "")) for m in request["messages"])
        tokens = [ord(c) % 1000 for c in text]
        await answer_json(
            send, 200, {"count": len(tokens), "max_model_len": 8192, "tokens": tokens, "token_strs": None}
        )

    async def _detokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = _json(body)
        if "tokens" not in request:
            raise Bad(400, "Bad Request", "1 validation error: body.tokens is missing")
        await answer_json(send, 200, {"prompt": "".join(chr(token) for token in request["tokens"])})

    # -- sleep

    async def _is_sleeping(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"is_sleeping": self.asleep != self.faults.lie})

    async def _sleep(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode())
        level, mode = query.get("level", ["1"])[-1], query.get("mode", ["abort"])[-1]
        if level not in ("0", "1", "2"):
            raise Bad(400, "Bad Request", f"1 validation error: query.level is {level}")
        if mode not in ("abort", "wait", "keep"):
            raise Bad(400, "Bad Request", f"1 validation error: query.mode is {mode}")
        began = time.perf_counter()
        if "/sleep" not in self.faults.deaf:
            self.paused, self.frozen = True, mode == "keep"
            if mode == "abort":
                for job in self.jobs:
                    job.aborted.set()
            async with self._changed:
                self._changed.notify_all()
                if mode == "wait":
                    await self._changed.wait_for(lambda: not self.running)
            self.level = int(level)
            if self.level:
                self.sleeping = TAGS
        self._took("sleep", time.perf_counter() - began)
        await answer_json(send, 200, {"status": "sleeping", "level": int(level)})

    async def _wake_up(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        tags = parse_qs(scope["query_string"].decode()).get("tags")
        began = time.perf_counter()
        awake = True
        if "/wake_up" not in self.faults.deaf:
            self.sleeping = self.sleeping - set(tags) if tags else frozenset()
            awake = not self.sleeping
            if awake:
                self.paused, self.frozen, self.level = False, False, 0
            async with self._changed:
                self._changed.notify_all()
        self._took("wake", time.perf_counter() - began)
        await answer_json(send, 200, {"status": "awake" if awake else "sleeping", "tags": tags})

    def _took(self, operation: str, seconds: float) -> None:
        count, total = self.operations[operation]
        self.operations[operation] = (count + 1, total + seconds + self.faults.slow.get(f"/{operation}", 0.0))

    async def _reset_prefix_cache(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"success": True})

    # -- scoring

    async def _chat(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self._request(body, "messages")
        text, reason = speak(request["messages"], request)
        stream = bool(request.get("stream"))
        aborted = await self._generate(scope["path"], receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": _id("chatcmpl", body), "created": int(self._now()), "model": self.model}
        if stream:
            await self._stream(send, common, text, reason)
            return
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
            "logprobs": None,
            "finish_reason": reason,
            "stop_reason": None,
        }
        usage = _usage(request["messages"], text)
        await answer_json(send, 200, {**common, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def _completion(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self._request(body, "prompt")
        text, reason = speak(request["prompt"], request)
        aborted = await self._generate(scope["path"], receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": _id("cmpl", body), "created": int(self._now()), "model": self.model}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        usage = _usage(request["prompt"], text)
        await answer_json(send, 200, {**common, "object": "text_completion", "choices": [choice], "usage": usage})

    async def _stream(self, send: Send, common: Mapping[str, Any], text: str, reason: str) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": piece}, None) for piece in text.split(" ")] + [({}, reason)]
        for delta, finish in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            event = json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]})
            await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _request(self, body: bytes, needs: str) -> dict[str, Any]:
        request = _json(body)
        if request.get("model", self.model) != self.model:
            raise Bad(404, "NotFoundError", f"The model `{request['model']}` does not exist.", "model")
        if needs not in request:
            raise Bad(400, "Bad Request", f"1 validation error: body.{needs} is missing")
        return request

    async def _generate(self, path: str, receive: Receive) -> bool | None:
        """Take the time that a request takes. Whether it was aborted; None if the client hung up."""
        job = Job()
        self.jobs.add(job)
        work = asyncio.create_task(self._work(path, job))
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

    async def _work(self, path: str, job: Job) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self.asleep and self.running < self.capacity)
            self.running += 1
        try:
            await self._not_hanging(path)
            await asyncio.sleep(self.faults.slow.get(path, 0.0))
            if self.frozen:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self.frozen)
        finally:
            self.running -= 1
            async with self._changed:
                self._changed.notify_all()


def speak(content: Any, request: Mapping[str, Any]) -> tuple[str, str]:
    """What the engine says to `content`, and why it stops: one and the same on every pod, chosen by a hash."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    outputs = request.get("structured_outputs") or {}
    choices = outputs.get("choice") if isinstance(outputs, Mapping) else None
    if choices:
        return str(choices[int.from_bytes(digest[:8], "big") % len(choices)]), "stop"
    wanted = int(request.get("max_completion_tokens") or request.get("max_tokens") or 16)
    spoken = " ".join(WORDS[digest[i % len(digest)] % len(WORDS)] for i in range(wanted))
    return spoken, "length"


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Bad(400, "Bad Request", f"1 validation error: {error}") from error
    if not isinstance(request, dict):
        raise Bad(400, "Bad Request", "1 validation error: body is no object")
    return request


def _usage(prompt: Any, text: str) -> dict[str, int]:
    asked, said = len(json.dumps(prompt)) // 4, len(text.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _id(kind: str, body: bytes) -> str:
    return f"{kind}-{hashlib.sha256(body).hexdigest()[:16]}"


def call_json(call: Call) -> dict[str, Any]:
    return asdict(call)
