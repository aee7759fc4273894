"""The gateway as a server in the test's own event loop, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from genrm_gateway.app import Open, application
from genrm_gateway.catalog import FileCatalog
from genrm_gateway.limits import Limits
from genrm_gateway.peers import Peers
from genrm_scoring import spec_file
from genrm_scoring.modules import Modules
from genrm_scoring.targets import Means


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """One that serves, until `end`."""

    def __init__(self, open_catalog: Open, limits: Limits | None = None, patience: float = 30.0) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self._open, self._limits, self._patience = open_catalog, limits, patience
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, others: Sequence[str] = ()) -> None:
        app: Any = application(self._open, self._limits, self._patience, Peers(self.url, others))
        config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))

    async def end(self, *, killed: bool = False) -> None:
        """`killed`: at once, and who has asked it gets no answer."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            for connection in list(self._server.server_state.connections) if killed else ():
                connection.transport.abort()  # type: ignore[union-attr]
            await self._task
            self._server = None


@asynccontextmanager
async def serving(
    open_catalog: Open, limits: Limits | None = None, patience: float = 30.0
) -> AsyncIterator[httpx.AsyncClient]:
    gateway = Gateway(open_catalog, limits, patience)
    gateway.begin()
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        try:
            yield client
        finally:
            await gateway.end()


@asynccontextmanager
async def of_file(
    *documents: dict[str, Any], default: str | None = None, modules: Modules | None = None, **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    spec = spec_file.checked(documents, "test.yaml")

    async def open_catalog() -> FileCatalog:
        return await FileCatalog.open(spec, Means(patience=30.0, modules=modules or {}), default)

    async with serving(open_catalog, **more) as client:
        yield client


def fleet(name: str, *terms: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"kind": "RewardFleet", "metadata": {"name": name}, "spec": {"terms": list(terms), **spec}}


def external(name: str, url: str, **scoring: Any) -> dict[str, Any]:
    spec = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s", **scoring}}
    return {"kind": "RewardModel", "metadata": {"name": name}, "spec": spec}


EXACT = {"name": "right", "rule": {"kind": "exact"}}
"""A term that is 1 where the response is the ground truth, else 0."""
