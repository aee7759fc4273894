"""The door: the ASGI middleware that every request to an engine meets first.

Deny by default. A route that `routes` does not list answers one constant 404, and so does an admin route without the
operator's token: from outside, the two cannot be told apart. Scoring passes while the door is `serving`; in any other
state it is answered at once with 503, because a request to a sleeping engine hangs. `/health` is answered here, from a
check that is safe in every state: kubelet asks whether the engine lives, not whether it is awake.

The door does not know tokens, only the SHA-256 of the operator's. It streams: bodies are never held or read, except
the few bytes of a `PUT /genrm/door`. What it passes is stamped with the revision and the boot id. State lives in the
instance, so one process can hold many doors (the engine simulator does). Errors of the engine go through untouched.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from genrm_door.record import Record, Refused, State
from genrm_door.routes import ROUTES, Kind, canonical

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NOT_FOUND = b'{"error":"not found"}'
MAX_PUT_BYTES = 4096
MAX_CALL_CHARACTERS = 200


@dataclass(frozen=True)
class Settings:
    """What a door is told by the pod that it runs in."""

    token_sha256: str = ""
    """Hex digest of the operator's token. Empty: nobody is the operator, and the door stays closed for good."""
    engine: str = "vllm"
    revision: str = ""
    health_seconds: float = 2.0
    """How long the engine may take to say that it lives."""
    word_seconds: float = 0.5
    """How long the engine may take to say whether it sleeps, for the document."""
    opening_seconds: float = 3.0
    """The same before the door serves: a busy engine answers late, and one that never answers gets no clients."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        return cls(
            token_sha256=environ.get("GENRM_TOKEN_SHA256", "").strip().lower(),
            engine=environ.get("GENRM_ENGINE", "vllm"),
            revision=environ.get("GENRM_REVISION", ""),
        )


class Door:
    """One door in front of one engine's ASGI application. Starts `closed`, with a boot id of its own."""

    def __init__(
        self,
        app: App,
        settings: Settings | None = None,
        *,
        now: Callable[[], float] = time.time,
        boot_id: str | None = None,
    ) -> None:
        self.app = app
        self.settings = settings = Settings.from_env(os.environ) if settings is None else settings
        if settings.engine not in ROUTES:
            raise ValueError(f"GENRM_ENGINE is {settings.engine!r}: the door knows {', '.join(ROUTES)}")
        if settings.token_sha256 and not _is_sha256(settings.token_sha256):
            raise ValueError("GENRM_TOKEN_SHA256 is no SHA-256: write 64 hexadecimal digits, not the token itself")
        self.routes = ROUTES[settings.engine]
        self.record = Record(boot_id or secrets.token_hex(8), settings.engine, settings.revision, now=now)
        self._stamp = [
            (b"genrm-revision", settings.revision.encode("latin-1", "replace")),
            (b"genrm-boot-id", self.record.boot_id.encode()),
        ]
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"the door does not know the protocol {scope['type']!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        kind = self.routes.table.get((scope["method"], path))
        tokens = [value for name, value in scope["headers"] if name == b"authorization"]
        if kind is None or len(tokens) > 1 or not canonical(path, scope.get("raw_path")):
            return await _answer(send, 404, NOT_FOUND)
        if kind is Kind.SCORING:
            return await self._score(tokens, scope, receive, send)
        if kind is Kind.OPEN:
            return await self.app(scope, receive, self._stamped(send))
        if kind is Kind.HEALTH:
            return await self._health(scope, send)
        if not self._is_operator(tokens):
            return await _answer(send, 404, NOT_FOUND)
        try:
            if kind is Kind.DOOR:
                await self._door(scope, receive, send)
            elif kind is Kind.ADMIN_READ:
                await self.app(_without_token(scope), receive, self._stamped(send))
            else:
                await self._admin(kind, scope, receive, send)
        except Refused as refused:
            await _answer_json(send, 409, {"error": str(refused), "state": self.record.state.value})

    def _is_operator(self, tokens: list[bytes]) -> bool:
        if len(tokens) != 1 or not tokens[0].startswith(b"Bearer ") or not self.settings.token_sha256:
            return False
        digest = hashlib.sha256(tokens[0][len(b"Bearer ") :]).hexdigest()
        return hmac.compare_digest(digest, self.settings.token_sha256)

    async def _score(self, tokens: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        record = self.record
        operator = False
        if record.state is not State.SERVING:
            operator = record.state is State.CLOSED and self._is_operator(tokens)
            if not operator:
                state = record.state.value
                body = {"error": f"the door is {state}: ask another replica, or again later", "state": state}
                return await _answer_json(send, 503, body, (b"retry-after", b"1"))
            scope = _without_token(scope)
        # Nothing is awaited between the look at the state and here: admission and draining cannot cross.
        record.enter(operator=operator)
        try:
            await self.app(scope, receive, self._stamped(send))
        finally:
            record.leave(operator=operator)

    async def _admin(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one call that changes the engine, alone, and remember how it ended."""
        call = _call(scope)
        if kind is Kind.ADMIN_SHUT and self.record.state is State.SERVING:
            raise Refused(f"{call} while the door is serving would shut the engine under its clients: drain first")
        with self.record.turn(call) as entry:
            stamped = self._stamped(send)

            def watched(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    entry.status = message["status"]
                return stamped(message)

            try:
                await self.app(_without_token(scope), receive, watched)
            except BaseException:
                entry.status = entry.status or 500
                raise

    async def _door(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            body = await _read(receive)
            if body is None:
                return
            try:
                state = _wanted(body)
            except ValueError as error:
                return await _answer_json(send, 400, {"error": str(error), "state": self.record.state.value})
            await self._set(state, scope)
        word = await self._engine_sleeps(scope, self.settings.word_seconds)
        await _answer_json(send, 200, self.record.document(word), *self._stamp)

    async def _set(self, state: State, scope: Scope) -> None:
        """Change the state. Shutting acts at once, always; opening waits for nobody, and never opens on a sleeper."""
        record = self.record
        record.check(state)
        if state is record.state:
            return
        call = f"PUT {state.value}"
        if state in (State.CLOSED, State.DRAINING):
            record.state = state
            record.note(call, 200)
            return
        with record.turn(call) as entry:
            entry.status = 409
            before = record.state
            if state is State.SERVING and self.routes.asleep is not None:
                word = await self._engine_sleeps(scope, self.settings.opening_seconds)
                if word is None:
                    raise Refused("the engine does not say whether it sleeps: the door serves when it does")
                if word:
                    raise Refused("the engine says that it sleeps: wake it before the door serves")
            if record.state is not before:
                raise Refused(f"the door was set to {record.state.value} meanwhile")
            record.state = state
            entry.status = 200

    async def _health(self, scope: Scope, send: Send) -> None:
        answer = await self._ask(scope, self.routes.alive, self.settings.health_seconds)
        if answer is not None and answer[0] == 200:
            return await _answer_json(send, 200, {"engine": "alive", "state": self.record.state.value})
        said = "says nothing" if answer is None else f"answers {answer[0]}"
        await _answer_json(send, 503, {"engine": said, "state": self.record.state.value})

    async def _engine_sleeps(self, scope: Scope, seconds: float) -> bool | None:
        """The engine's own word on whether it sleeps; None if it has none or does not say in time."""
        if self.routes.asleep is None:
            return None
        answer = await self._ask(scope, self.routes.asleep, seconds)
        if answer is None or answer[0] != 200:
            return None
        try:
            word = json.loads(answer[1])["is_sleeping"]
        except (ValueError, KeyError, TypeError):
            return None
        return word if isinstance(word, bool) else None

    async def _ask(self, scope: Scope, path: str, seconds: float) -> tuple[int, bytes] | None:
        """GET `path` of the engine from inside; None if it fails or takes longer than `seconds`.

        The scope is that of the request that made us ask: the engine's framework keeps its own things in there.
        """
        status = 0
        parts: list[bytes] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.get_running_loop().create_future()  # nobody hangs up on an inner question
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        async def call() -> None:
            inner = {
                **scope,
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
            }
            await self.app(inner, receive, send)

        task = asyncio.create_task(call())
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._forget)
        try:
            # Not wait_for: an application that swallows its cancellation must not hold the answer back.
            await asyncio.wait({task}, timeout=seconds)
        finally:
            task.cancel()
        if not task.done() or task.cancelled() or task.exception() is not None or not status:
            return None
        return status, b"".join(parts)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: a failed question is an answer, not a log line about a lost exception

    def _stamped(self, send: Send) -> Send:
        stamp = self._stamp

        def stamped(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *stamp]}
            return send(message)

        return stamped


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _without_token(scope: Scope) -> Scope:
    """The scope as the engine may see it: the operator's token ends at the door."""
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"authorization"]}


def _call(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{scope['method']} {scope['path']}{'?' if query else ''}{query}"[:MAX_CALL_CHARACTERS]


def _wanted(body: bytes) -> State:
    """The state that a PUT asks for.

    Raises:
        ValueError: the body is something else; the text says what to write.
    """
    try:
        document: Any = json.loads(body) if len(body) <= MAX_PUT_BYTES else None
        return State(document["state"])
    except (ValueError, KeyError, TypeError, RecursionError):
        words = ", ".join(f'"{s.value}"' for s in State)
        raise ValueError(f'write {{"state": X}} with X one of {words}') from None


async def _read(receive: Receive) -> bytes | None:
    """A request body, read on only while it is small; None if the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk
        if not message.get("more_body") or len(body) > MAX_PUT_BYTES:
            return body


async def _answer_json(send: Send, status: int, document: Mapping[str, Any], *headers: tuple[bytes, bytes]) -> None:
    await _answer(send, status, json.dumps(document, separators=(",", ":")).encode(), *headers)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
