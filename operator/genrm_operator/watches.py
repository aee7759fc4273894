"""Whether the operator still hears: when did each of its watches last tell anything?

A watch in which nothing happens is silent, and so is one whose connection died without a word. They differ in two ways:
the API server sends a bookmark about every minute, and a watch that was silent for 70 s is opened anew. So a watch in
order receives bytes, or is opened, every 70 s; what has done neither for much longer is deaf. Informers say so
themselves. Kopf, which watches the RewardModels, shows bookmarks and renewals to no handler, therefore it gets an HTTP
session of ours (`kopf.AiohttpSession`), which notes each watch that is opened and what it receives.

A restart cures a watch that nobody tends any more. It does not cure an API server that is away: while attempts to open
the watch go on and fail, the operator is deaf, the metric and its alert say so, and a restart would only add the
kubelet's back-off to the wait.

It also sees when Kopf has listed a resource once more (`listed_again`): what was deleted before that is told by nobody
(`relisting`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import kopf

SILENCE_SECONDS: Final = 70.0
"""After which a watch is opened anew: a little more than the minute between two bookmarks."""
STALE_SECONDS: Final = 150.0
"""Twice that and a little: a watch was not even opened anew in this time."""
ATTEMPT_SECONDS: Final = 90.0
"""An attempt that failed this recently shows that the watch is still tended: that happens at least every 70 s."""
SAMPLE_SECONDS: Final = 5.0

Watch = tuple[str, str]
"""(resource, namespace), the namespace empty when all are watched."""


@dataclass(frozen=True, kw_only=True)
class Session(kopf.AiohttpSession):
    """Kopf compares credentials to tell new ones from those that failed: two sessions of one login are the same."""

    aiohttp_session: aiohttp.ClientSession = field(compare=False)
    connection: kopf.ConnectionInfo


@dataclass(slots=True)
class _Heard:
    at: float
    stream: aiohttp.StreamReader | None = None
    received: int = 0
    failed_at: float | None = None
    failure: str = ""


class Watches:
    """Times are those of `now`, monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heard: dict[Watch, _Heard] = {}
        self.listed_again: asyncio.Queue[Watch] = asyncio.Queue()
        """Watches that did not go on where they broke off. A listing with which one begins is not among them."""

    def expect(self, resources: Iterable[str], namespaces: Iterable[str]) -> None:
        """These should be open soon: their silence counts from now on."""
        wanted = list(namespaces) or [""]
        for resource in resources:
            for namespace in wanted:
                self._heard.setdefault((resource, namespace), _Heard(self._now()))

    def session(self, connection: kopf.ConnectionInfo) -> Session:
        """An HTTP session for Kopf, made as Kopf makes its own, which tells us of every watch."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._answered)
        trace.on_request_exception.append(self._failed)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
            headers=connection.as_http_headers(),
            proxy=connection.proxy_url,
            trust_env=connection.trust_env,
            trace_configs=[trace],
        )
        return Session(
            server=connection.server,
            priority=connection.priority,
            default_namespace=connection.default_namespace,
            expiration=connection.expiration,
            aiohttp_session=session,
            connection=connection,
        )

    async def run(self) -> None:
        """Look regularly how much has come in, until cancelled."""
        while True:
            self._sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    def heard(self, watch: Watch) -> None:
        """It was opened, or has told something."""
        self._heard[watch] = _Heard(self._now())

    def failed(self, watch: Watch, failure: str) -> None:
        """It could not be opened, or broke off."""
        if (heard := self._heard.get(watch)) is not None:
            heard.failed_at, heard.failure = self._now(), failure

    def silences(self) -> Mapping[Watch, float]:
        """Seconds since each watch last told anything."""
        self._sample()
        now = self._now()
        return {watch: now - heard.at for watch, heard in self._heard.items()}

    def problems(self) -> list[str]:
        """A sentence for each watch that is deaf and that nobody tends: a restart is what helps."""
        now, found = self._now(), []
        for (resource, namespace), silence in self.silences().items():
            heard = self._heard[resource, namespace]
            tended = heard.failed_at is not None and now - heard.failed_at < ATTEMPT_SECONDS
            if silence > STALE_SECONDS and not tended:
                where = f"in {namespace}" if namespace else "in all namespaces"
                last = f"; the last attempt ended with {heard.failure}" if heard.failure else ""
                found.append(f"the watch of {resource} {where} has told nothing for {silence:.0f} s{last}")
        return found

    def _sample(self) -> None:
        for heard in self._heard.values():
            if heard.stream is not None and heard.stream.total_raw_bytes != heard.received:
                heard.received, heard.at = heard.stream.total_raw_bytes, self._now()

    async def _answered(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        if (watch := _watch(params.url.path)) is None:
            return
        if params.response.status != 200:
            self.failed(watch, f"HTTP {params.response.status}")
        elif params.url.query.get("watch") == "true":
            self._heard[watch] = _Heard(self._now(), params.response.content)
        elif "continue" not in params.url.query and (heard := self._heard.get(watch)) is not None and heard.stream:
            self.listed_again.put_nowait(watch)

    async def _failed(self, _session: Any, _context: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
        if (watch := _watch(params.url.path)) is not None:
            self.failed(watch, repr(params.exception))


def _watch(path: str) -> Watch | None:
    """Which watch a request is for; the listing that comes before a watch belongs to it."""
    found = re.fullmatch(r".*/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)", path)
    return (found[2], found[1] or "") if found else None
