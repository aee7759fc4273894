"""The hot path: one HTTP request to one endpoint, its answer as bytes, its failure as one of our errors.

A step asks thousands of questions, so what a request costs is the client's whole cost; everything goes through the
small `Transport` interface, behind which a faster one can take the place of aiohttp. A transport knows no retries, no
endpoints and no wire format above HTTP.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from genrm_scoring.errors import AttemptFailed, AttemptTimeout, ConnectFailed, Disconnected

CONNECT_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 3.0
"""Less than the 5 s after which uvicorn closes an idle connection: a request sent at that moment would be lost."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Any complete HTTP answer, whatever its status. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        """Send JSON and wait at most `timeout` seconds for the whole answer.

        Raises:
            EndpointLost, AttemptTimeout
        """
        ...

    async def close(self) -> None: ...


class AiohttpTransport:
    """One keep-alive session; belongs to the event loop that uses it first. `key` is sent as a bearer token."""

    def __init__(self, connect_seconds: float = CONNECT_SECONDS, key: str | None = None) -> None:
        self._connect_seconds = connect_seconds
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(self._connect_seconds, timeout))
        try:
            async with self._opened().post(url, data=body, timeout=limits, allow_redirects=False) as response:
                content = await response.read()
                return Reply(response.status, _headers(response), content)
        except (aiohttp.ClientError, OSError) as e:
            raise _failure(e, f"no answer within {timeout:.1f} s") from e

    async def begin(self, url: str, body: bytes, timeout: float) -> Incoming:
        """Send JSON and wait at most `timeout` seconds for the head of the answer; the caller closes what it gets.

        Raises:
            EndpointLost, AttemptTimeout
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=min(self._connect_seconds, timeout))
        try:
            async with asyncio.timeout(timeout):
                response = await self._opened().post(url, data=body, timeout=limits, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as e:
            raise _failure(e, f"no answer within {timeout:.1f} s") from e
        return Incoming(response)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
                headers=self._headers,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)  # aiohttp closes its sockets on the next turn of the loop


class Incoming:
    """An HTTP answer whose body is still to come. Who does not read pauses who sends."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status, self.headers = response.status, _headers(response)

    async def some(self, until: float) -> bytes:
        """The next bytes, of any number; none at the end. `until` is a time of the event loop.

        Raises:
            EndpointLost, AttemptTimeout
        """
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until):
                return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as e:
            raise _failure(e, f"no more of the answer within {until - began:.1f} s") from e

    async def rest(self, until: float) -> Reply:
        """All of it.

        Raises:
            EndpointLost, AttemptTimeout
        """
        content = bytearray()
        while some := await self.some(until):
            content += some
        return Reply(self.status, self.headers, bytes(content))

    def close(self) -> None:
        """Unless it was read to its end, its sender finds the connection broken."""
        self._response.close()


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _failure(error: aiohttp.ClientError | OSError, too_late: str) -> AttemptFailed:
    """What an error of a request means; `too_late` is what to say if there was no time left."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return ConnectFailed(_words(error))
    if isinstance(error, TimeoutError):
        return AttemptTimeout(too_late)
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return ConnectFailed(_words(error))
    return Disconnected(_words(error))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
