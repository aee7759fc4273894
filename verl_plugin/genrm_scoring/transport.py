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

from genrm_scoring.errors import AttemptTimeout, ConnectFailed, Disconnected

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
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
                headers=self._headers,
            )
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(self._connect_seconds, timeout))
        try:
            async with self._session.post(url, data=body, timeout=limits, allow_redirects=False) as response:
                content = await response.read()
                return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, content)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as e:
            raise ConnectFailed(_words(e)) from e
        except TimeoutError as e:
            raise AttemptTimeout(f"no answer within {timeout:.1f} s") from e
        except (aiohttp.ClientError, ConnectionError) as e:
            raise Disconnected(_words(e)) from e
        except OSError as e:
            if e.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
                raise ConnectFailed(_words(e)) from e
            raise Disconnected(_words(e)) from e

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)  # aiohttp closes its sockets on the next turn of the loop


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
