"""The gateway as a server in the test's own event loop, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from genrm_gateway import spec_file
from genrm_gateway.app import Open, application
from genrm_gateway.catalog import FileCatalog
from genrm_gateway.limits import Limits
from genrm_scoring.targets import Means


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    open_catalog: Open, limits: Limits | None = None, patience: float = 30.0
) -> AsyncIterator[httpx.AsyncClient]:
    sock = socket.create_server(("127.0.0.1", 0))
    app: Any = application(open_catalog, limits, patience)
    server = _Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        try:
            yield client
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def of_file(*documents: dict[str, Any], **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    spec = spec_file.checked(documents, "test.yaml")

    async def open_catalog() -> FileCatalog:
        return await FileCatalog.open(spec, Means(patience=30.0), more.pop("default", None))

    async with serving(open_catalog, **more) as client:
        yield client


def fleet(name: str, *terms: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"kind": "RewardFleet", "metadata": {"name": name}, "spec": {"terms": list(terms), **spec}}


def external(name: str, url: str, **scoring: Any) -> dict[str, Any]:
    spec = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s", **scoring}}
    return {"kind": "RewardModel", "metadata": {"name": name}, "spec": spec}


EXACT = {"name": "right", "rule": {"kind": "exact"}}
"""A term that is 1 where the response is the ground truth, else 0."""
