"""Who may ask, how many at once, and how large: decided before a request's body is read.

Too much is answered with 429 and `Retry-After`, never with a score. Health and metrics are for everybody.
"""

from __future__ import annotations

import hmac
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from genrm_scoring.errors import ConfigurationError
from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS: Final = ("/healthz", "/metrics")
RETRY_AFTER_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """`keys` are bearer tokens → names of clients; empty: everybody may ask."""

    most_at_once: int = 4096
    most_of_a_client: int = 4096
    most_bytes: int = 32 * 1024**2
    keys: Mapping[str, str] = field(default_factory=dict)


def read_keys(path: Path) -> dict[str, str]:
    """A file of `client: key` lines.

    Raises:
        ConfigurationError: it is none; no key is shown.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigurationError("--keys", f"{path} cannot be read as YAML ({type(e).__name__})") from None
    if not isinstance(found, dict) or not found or not all(isinstance(k, str) and k for k in found.values()):
        raise ConfigurationError("--keys", f"{path} must hold lines `client: key`")
    if len(set(found.values())) < len(found):
        raise ConfigurationError("--keys", f"{path}: two clients have one key; give each its own")
    return {key: str(client) for client, key in found.items()}


class Admission:
    """ASGI middleware. `refused` hears the status of every request that is not let in."""

    def __init__(self, app: App, limits: Limits, refused: Callable[[int], None]) -> None:
        self._app, self._limits, self._refused = app, limits, refused
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        client = self._client(headers.get(b"authorization", b""))
        if client is None:
            await self._refuse(send, 401, "a key is needed: Authorization: Bearer ...")
        elif _length(headers) > self._limits.most_bytes:
            await self._refuse(send, 413, _too_large(self._limits.most_bytes))
        elif self._inside.total() >= self._limits.most_at_once or self._inside[client] >= self._limits.most_of_a_client:
            inside = self._inside.total()
            await self._refuse(send, 429, f"{inside} requests are being answered, {self._inside[client]} yours")
        else:
            await self._admit(client, scope, receive, send)

    async def _admit(self, client: str, scope: Message, receive: Receive, send: Send) -> None:
        read, most = 0, self._limits.most_bytes

        async def receive_some() -> Message:
            """
            Raises:
                HTTPException: it is too much; whoever reads it lets that be answered.
            """
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise HTTPException(413, _too_large(most))
            return message

        self._inside[client] += 1
        try:
            await self._app(scope, receive_some, send)
        finally:
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]

    async def _refuse(self, send: Send, status: int, why: str) -> None:
        self._refused(status)
        headers = [(b"content-type", b"application/json")]
        if status == 429:
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": {"message": why}}).encode()})

    def _client(self, authorization: bytes) -> str | None:
        if not self._limits.keys:
            return ""
        given = authorization.removeprefix(b"Bearer ")
        found = None
        for key, client in self._limits.keys.items():  # all of them, in equal time
            if hmac.compare_digest(key.encode(), given):
                found = client
        return found


def _length(headers: Mapping[bytes, bytes]) -> int:
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return 0


def _too_large(most: int) -> str:
    return f"the body has more than {most} bytes"
