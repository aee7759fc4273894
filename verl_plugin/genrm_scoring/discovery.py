"""Endpoints of a RewardModel, as the cluster says.

The headless Service's EndpointSlices name exactly the pods whose engine is verified awake. They are listed, then
watched, and listed again at least every `relist_seconds`: a lost event or a watch that silently died costs at most that
long. While the API server is away the last list stays in use (engines do not stop because the control plane does), but
only for `stale_seconds`; then the snapshot is empty and its `problem` says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

from genrm_api.names import ENGINE_PORT_NAME, headless_service_name

from genrm_scoring.cluster import ENDPOINT_SLICES, Cluster, Object
from genrm_scoring.endpoints import Endpoint, Snapshot
from genrm_scoring.errors import WatchExpired

log = logging.getLogger(__name__)

SHORTEST_ROUND: Final = 0.2
"""Seconds between two lists at least, whatever the API server does; doubles while it fails."""


def serving_endpoints(slices: Iterable[Object]) -> tuple[Endpoint, ...]:
    """The endpoints that take new requests, in a stable order, each address once."""
    found = {e.url: e for s in slices for e in _of_slice(s)}
    return tuple(found[url] for url in sorted(found))


def _of_slice(endpoint_slice: Object) -> Iterable[Endpoint]:
    ports = endpoint_slice.get("ports") or []
    port = next((p["port"] for p in ports if p.get("name") == ENGINE_PORT_NAME), ports[0]["port"] if ports else None)
    if port is None:
        return
    for entry in endpoint_slice.get("endpoints") or []:
        if (entry.get("conditions") or {}).get("ready") is False:
            continue
        target = entry.get("targetRef") or {}
        for address in entry["addresses"]:
            host = f"[{address}]" if endpoint_slice["addressType"] == "IPv6" else address
            yield Endpoint(f"http://{host}:{port}", target.get("name", ""), target.get("uid", ""))


class KubernetesEndpoints:
    """`Endpoints` of one RewardModel; an async context manager that keeps them up to date while it is open."""

    def __init__(
        self,
        cluster: Cluster,
        reward_model: str,
        namespace: str,
        relist_seconds: int = 30,
        stale_seconds: float = 300.0,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._selector = f"kubernetes.io/service-name={headless_service_name(reward_model)}"
        self._relist_seconds = relist_seconds
        self._stale_seconds = stale_seconds
        self._slices: dict[str, Object] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._version = 0
        self._changed = asyncio.Event()
        self._fresh_at: float | None = None
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_up(), name="endpoint-discovery")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def snapshot(self) -> Snapshot:
        if (problem := self._problem()) is not None:
            return Snapshot(self._version, (), problem)
        return Snapshot(self._version, self._endpoints)

    async def wait_for_change(self, version: int, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self._version == version:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _problem(self) -> str | None:
        if self._fresh_at is None:
            return f"endpoints were never listed: {self._error}" if self._error else None
        age = asyncio.get_running_loop().time() - self._fresh_at
        if age <= self._stale_seconds:
            return None
        return f"endpoints are unknown, the last list is {age:.0f} s old: {self._error}"

    async def _keep_up(self) -> None:
        pause = SHORTEST_ROUND
        while True:
            began = asyncio.get_running_loop().time()
            try:
                version = await self._list()
                pause = SHORTEST_ROUND
                await self._watch(version)
            except WatchExpired:
                pass
            except Exception as e:
                # Unforeseen ones too: a discovery that ended unseen would serve an old list until it is stale.
                if self._error is None:
                    kept = len(self._endpoints)
                    log.warning("discovery of %s: %s; %d endpoints stay in use", self._selector, e, kept)
                self._error = e
                pause = min(5.0, pause * 2)
            await asyncio.sleep(began + pause - asyncio.get_running_loop().time())

    async def _list(self) -> str:
        listing = await self._cluster.list(ENDPOINT_SLICES, self._namespace, self._selector)
        if self._error is not None:
            log.info("discovery of %s works again", self._selector)
        self._error = None
        self._slices = {str(item["metadata"]["name"]): item for item in listing.items}
        self._seen()
        return listing.resource_version

    async def _watch(self, version: str) -> None:
        events: Any = self._cluster.watch(
            ENDPOINT_SLICES, self._namespace, self._selector, version, self._relist_seconds
        )
        async with aclosing(events):
            async for event in events:
                if event.type == "DELETED":
                    self._slices.pop(event.object["metadata"]["name"], None)
                elif event.type in ("ADDED", "MODIFIED"):
                    self._slices[event.object["metadata"]["name"]] = event.object
                self._seen()

    def _seen(self) -> None:
        known = self._fresh_at is not None and self._problem() is None
        self._fresh_at = asyncio.get_running_loop().time()
        endpoints = serving_endpoints(self._slices.values())
        if endpoints != self._endpoints or not known:
            self._endpoints = endpoints
            self._version += 1
            self._changed.set()
            self._changed = asyncio.Event()
