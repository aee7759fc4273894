"""The few words of ASGI and HTTP that the door speaks itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from genrm_door.record import Refused, State

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NOT_FOUND = b'{"error":"not found"}'
MAX_SWALLOWED_BYTES = 1 << 20
SWALLOW_SECONDS = 1.0
"""For each piece of a body that is thrown away."""
MAX_BODY_BYTES = 4096
"""Of what the door reads itself: a state, the tags of an admin call."""


def values(scope: Scope, name: bytes) -> list[bytes]:
    """What a request's headers of this name say."""
    return [value for header, value in scope["headers"] if header == name]


def digest_of(tokens: Sequence[bytes]) -> str:
    """The SHA-256 of the one bearer token in the `Authorization` headers; empty if they are anything else."""
    if len(tokens) != 1 or not tokens[0].startswith(b"Bearer "):
        return ""
    return hashlib.sha256(tokens[0][len(b"Bearer ") :]).hexdigest()


def is_one_of(digest: str, known: Iterable[str]) -> bool:
    """Whether it is one of those that we were told. We may have been told none, which is written as an empty one."""
    return bool(digest) and any(hmac.compare_digest(digest, one) for one in known)


def without_token(scope: Scope) -> Scope:
    """The scope as the engine may see it: tokens that are meant for the door end at the door."""
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"authorization"]}


def leadership(words: Sequence[bytes]) -> int | None:
    """The leadership under which an order is given: the `genrm-epoch` headers of a request, read.

    Raises:
        Refused: a header is there and says no number.
    """
    if not words:
        return None
    if len(words) > 1 or not words[0].isdigit() or len(words[0]) > 18:
        raise Refused(f"genrm-epoch is {b', '.join(words)[:60]!r}: write the leadership's number, once")
    return int(words[0])


def wanted_state(body: bytes) -> State:
    """The state that a PUT of the door's document asks for.

    Raises:
        ValueError: the body is something else; the text says what to write.
    """
    try:
        document: Any = json.loads(body) if len(body) <= MAX_BODY_BYTES else None
        return next(state for state in State if state.value == document["state"])
    except (ValueError, KeyError, TypeError, RecursionError, StopIteration):
        words = ", ".join(f'"{state.value}"' for state in State)
        raise ValueError(f'write {{"state": X}} with X one of {words}') from None


async def read(receive: Receive) -> bytes | None:
    """A request body, read on only while it is small; None if the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk
        if not message.get("more_body") or len(body) > MAX_BODY_BYTES:
            return body


async def swallow(receive: Receive) -> None:
    """Take in a body that nobody wants, as far as it comes soon.

    A server that closes a connection while a part of the request is unread resets it, and a client that is still
    sending may lose the answer that was there for it (RFC 9112, section 9.6).
    """
    taken, more = 0, True
    with contextlib.suppress(asyncio.TimeoutError):
        while more and taken <= MAX_SWALLOWED_BYTES:
            message = await asyncio.wait_for(receive(), SWALLOW_SECONDS)
            taken += len(message.get("body", b""))
            more = bool(message.get("more_body"))


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, and then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def answer_json(send: Send, status: int, document: Mapping[str, Any], *headers: tuple[bytes, bytes]) -> None:
    await answer(send, status, json.dumps(document, separators=(",", ":")).encode(), *headers)


async def answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
