"""A door in front of an application that a test plays itself, and a client that speaks ASGI without a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from genrm_door import Settings
from genrm_door.asgi import Message, Receive, Scope, Send

TOKEN = "the operator's token"
SETTINGS = Settings(
    token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(),
    revision="abc123",
    health_seconds=0.05,
    word_seconds=0.05,
    opening_seconds=0.05,
)


@dataclass
class Engine:
    """An application that says 200 to everything and notes it; `paths` holds behaviour that a test wants instead."""

    asleep: bool = False
    calls: list[str] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    paths: dict[str, Callable[[Scope, Receive, Send], Any]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(f"{scope['method']} {scope['path']}" if scope["type"] == "http" else scope["type"])
        self.scopes.append(scope)
        special = self.paths.get(scope.get("path", ""))
        if special is not None:
            await special(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        body: dict[str, Any] = {"path": scope["path"]}
        if scope["path"] == "/is_sleeping":
            body = {"is_sleeping": self.asleep}
        elif scope["path"] == "/sleep":
            self.asleep = True
        elif scope["path"] == "/wake_up":
            self.asleep = False
        await answer(send, 200, json.dumps(body).encode())


async def answer(send: Send, status: int, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-engine", b"yes")]})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    chunks: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((v.decode() for n, v in self.headers if n == name.encode()), None)


class Client:
    def __init__(self, app: Callable[[Scope, Receive, Send], Any]) -> None:
        self.app = app

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        raw_path: bytes | None = None,
        query: bytes = b"",
    ) -> Answer:
        got = Answer(0, [], [])

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                got.status, got.headers = message["status"], list(message["headers"])
            else:
                got.chunks.append(message["body"])

        await self.app(scope_of(method, path, token, headers, raw_path, query), receiver(body), send)
        return got

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self("GET", path, **kwargs)

    async def post(self, path: str, **kwargs: Any) -> Answer:
        return await self("POST", path, **kwargs)

    async def put_state(self, state: str) -> Answer:
        return await self("PUT", "/genrm/door", token=TOKEN, body=json.dumps({"state": state}).encode())

    async def document(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.get("/genrm/door", token=TOKEN)).json()
        return document


def scope_of(
    method: str,
    path: str,
    token: str | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    raw_path: bytes | None = None,
    query: bytes = b"",
) -> Scope:
    bearer = () if token is None else ((b"authorization", f"Bearer {token}".encode()),)
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": query,
        "headers": [(b"host", b"pod"), *bearer, *headers],
    }


def receiver(body: bytes = b"") -> Receive:
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
    return messages.get


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)
