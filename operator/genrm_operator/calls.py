"""HTTP calls to our own servers in pods: a deadline over the whole of each, connections kept for the next.

aiohttp, because a wake of 64 pods is hundreds of calls at once, and their share of it has to stay below 0.3 s: with
httpx they were most of what the operator computed for a pod.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

KEEPALIVE_SECONDS: Final = 3.0
"""uvicorn closes a connection after 5 s of silence; one that we drop earlier never dies under a call."""


MOST_BYTES: Final = 16 << 20
"""Of an answer. What answers may be anybody's image, and one process looks after all of them."""


class Unreachable(Exception):
    """No answer in time, or none with an end; the message says how that showed."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """Raises ValueError for what is no JSON, or none that anybody means."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("JSON in JSON, too deep to be read") from error

    @property
    def text(self) -> str:
        """Its beginning, for people."""
        return self.body[:300].decode(errors="replace")


class Calls:
    """A connection pool."""

    def __init__(self, most_connections: int) -> None:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=most_connections, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None),  # each call brings its own
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.close()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request, its path as it is written here; a redirect is an answer like any other.

        Raises:
            Unreachable: no whole answer within `timeout` seconds, or more than `MOST_BYTES`.
        """
        target = URL(url, encoded=True)
        try:
            async with (
                asyncio.timeout(timeout),
                self._http.request(method, target, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                said = bytearray()
                async for piece in answer.content.iter_any():
                    said += piece
                    if len(said) > MOST_BYTES:
                        raise Unreachable(f"an answer of more than {MOST_BYTES} bytes")
                return Answer(answer.status, bytes(said))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{type(error).__name__} within {timeout:g} s ({error})") from error
