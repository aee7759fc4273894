"""When a model's Services are touched, so that their EndpointSlices are written again. Over real HTTP."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from unittest.mock import ANY

import pytest
from aiohttp import web
from genrm_api.names import ANNOTATION_LABELLED, LABEL_SERVING
from genrm_operator import apply, endpoints
from genrm_operator.cache import Cache, Key
from genrm_operator.kube import Kube
from genrm_operator.memory import Made, Memory
from kubernetes.aio import client

KEY: Final[Key] = ("rl", "judge")
AT: Final = 100.0
DUE: Final = AT + endpoints.AFTER_SECONDS


class Server:
    """Answers each apply as an API server would, and remembers it."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.applied: list[dict[str, Any]] = []
        self._versions = itertools.count(1)

    async def answer(self, request: web.Request) -> web.Response:
        manifest = json.loads(await request.read())
        if self.status != 200:
            return web.json_response({"message": "no"}, status=self.status)
        self.applied.append(manifest)
        meta = {"uid": f"uid of {manifest['metadata']['name']}"} | manifest["metadata"]
        return web.json_response(manifest | {"metadata": meta | {"resourceVersion": str(next(self._versions))}})

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Kube]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        kube = Kube(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")))
        try:
            yield kube
        finally:
            await kube.close()
            await runner.cleanup()


def service(name: str, selector: dict[str, str]) -> dict[str, Any]:
    meta = {"namespace": "rl", "name": name, "labels": {"genrm.dev/reward-model": "judge"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": selector}}


MADE: Final = Made(
    (),
    [service("judge", {LABEL_SERVING: "true"}), service("judge-router", {"app": "router"})],
    ["digest 1", "digest 2"],
    waits=False,
)


def a_cache(pods: int) -> Cache:
    cache = Cache()
    for i in range(pods):
        meta = {
            "namespace": "rl",
            "name": f"judge-{i}",
            "uid": str(i),
            "resourceVersion": "1",
            "labels": {"genrm.dev/reward-model": "judge"},
        }
        cache.put_pod({"metadata": meta}, deleted=False)
    return cache


@pytest.mark.parametrize(
    ("pods", "relabelled", "now", "due", "touched"),
    [
        (2, AT, DUE, None, True),
        (2, AT, DUE - 0.01, DUE, False),
        (2, None, DUE, None, False),
        (1, AT, DUE, None, False),
    ],
    ids=["in time", "too early", "nothing was labelled", "one pod"],
)
async def test_who_serves_is_touched_once_after_the_last_label(
    pods: int, relabelled: float | None, now: float, due: float | None, touched: bool
) -> None:
    server, cache, memory = Server(), a_cache(pods), Memory(made=MADE)
    async with server.client() as kube:
        await apply.settle(kube, cache, KEY, "rm", memory, MADE)
        made, memory.relabelled = list(server.applied), relabelled
        assert len(made) == 2
        assert await endpoints.settle(kube, cache, KEY, memory, now) == due
        assert (memory.relabelled is None) is (due is None)
        again = [m for m in server.applied if m not in made]
        before = made[0]["metadata"]
        meta = before | {"uid": "uid of judge", "annotations": {ANNOTATION_LABELLED: ANY}}
        assert again == ([made[0] | {"metadata": meta}] if touched else [])
        await apply.settle(kube, cache, KEY, "rm", memory, MADE)
        assert await endpoints.settle(kube, cache, KEY, memory, now) == due, "nor is it done twice"
        assert server.applied == [*made, *again], "what we did ourselves is no drift"


async def test_what_others_changed_is_left_to_who_mends_it() -> None:
    server, cache, memory = Server(), a_cache(2), Memory(made=MADE)
    async with server.client() as kube:
        await apply.settle(kube, cache, KEY, "rm", memory, MADE)
        changed = service("judge", {})
        changed["metadata"] |= {"uid": "uid of judge", "resourceVersion": "99"}
        cache.child_putter("Service")(changed, deleted=False)
        memory.relabelled = AT
        assert await endpoints.settle(kube, cache, KEY, memory, DUE) is None
        assert len(server.applied) == 2
        await apply.settle(kube, cache, KEY, "rm", memory, MADE)
        assert len(server.applied) == 3


@pytest.mark.parametrize("status", [404, 409], ids=["gone", "another of its name"])
async def test_a_service_that_was_deleted_is_not_made_by_this(status: int) -> None:
    server, cache, memory = Server(), a_cache(2), Memory(made=MADE)
    async with server.client() as kube:
        await apply.settle(kube, cache, KEY, "rm", memory, MADE)
        server.status, memory.relabelled = status, AT
        assert await endpoints.settle(kube, cache, KEY, memory, DUE) is None
