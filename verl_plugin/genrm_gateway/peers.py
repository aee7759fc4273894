"""Which of several gateways gathers a group: each finds the same one, and sends the group's members there.

By rendezvous hashing (Thaler and Ravishankar, 1998): the gateways are ranked for each group by a hash of both, and the
first that answers gathers it. One that dies loses its groups to the next in their rank, and no others move. Requests it
had not answered are sent to the next again, so no member is lost.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from genrm_scoring.transport import CONNECT_SECONDS, KEEP_ALIVE_SECONDS, Reply

log = logging.getLogger(__name__)

FORWARDED: Final = "genrm-forwarded"
"""A header on what another gateway sent on: whoever gets it gathers it, whatever the rank says."""
_GATEWAY_ERRORS: Final = (502, 504)


def ranked(gateways: Sequence[str], group: str) -> list[str]:
    """All gateways, who gathers this group first."""

    def weight(gateway: str) -> bytes:
        return hashlib.sha256(f"{gateway}\0{group}".encode(errors="replace")).digest()

    return sorted(set(gateways), key=weight, reverse=True)


class Peers:
    """`own` is this gateway's URL as the others know it, `others` are theirs. Belongs to one event loop."""

    def __init__(self, own: str = "", others: Sequence[str] = ()) -> None:
        self._own = own.rstrip("/")
        self._all = [self._own, *(url.rstrip("/") for url in others)]
        self._session: aiohttp.ClientSession | None = None

    async def elsewhere(
        self, group: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> Reply | None:
        """What the gateway that gathers a group answers; `None` if that is this one.

        Args:
            path: with the query, as it was asked here.
            headers: of the request; only who asks (authorization) goes on.
            timeout: seconds for one gateway.
        """
        if FORWARDED in headers or len(self._all) == 1:
            return None
        for gateway in ranked(self._all, group):
            if gateway == self._own:
                return None
            if (reply := await self._sent(gateway + path, headers, body, timeout)) is not None:
                return reply
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _sent(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Reply | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
            )
        sent = {"content-type": "application/json", FORWARDED: "1"}
        if "authorization" in headers:
            sent["authorization"] = headers["authorization"]
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.post(url, data=body, headers=sent, timeout=limits, allow_redirects=False) as reply:
                if reply.status in _GATEWAY_ERRORS:
                    return None
                content = await reply.read()
                return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, content)
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            log.warning("%s does not gather its group (%s: %s); the next one does", url, type(e).__name__, e)
            return None
