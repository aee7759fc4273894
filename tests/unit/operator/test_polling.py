"""Children of a kind that may be absent are listed, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from genrm_operator.cache import Cache, Key
from genrm_operator.errors import Forbidden, KindAbsent, NotFound
from genrm_operator.kube import Kube
from genrm_operator.polling import Polling
from genrm_operator.workqueue import WorkQueue

from tests.unit.operator.conftest import Answer, Server, absent

PATH = "/apis/leaderworkerset.x-k8s.io/v1/leaderworkersets"


def refused(_: web.Request) -> web.StreamResponse:
    return web.json_response({"kind": "Status", "message": "cannot list"}, status=403)


def sets(*models: str) -> Answer:
    def answer(request: web.Request) -> web.StreamResponse:
        assert request.query["labelSelector"] == "genrm.dev/reward-model"
        items = [
            {
                "metadata": {
                    "namespace": "rl", "name": f"{model}-nodes", "uid": model, "resourceVersion": "1", "generation": 1,
                    "labels": {"genrm.dev/reward-model": model},
                }
            }
            for model in models
        ]  # fmt: skip
        return web.json_response({"items": items})

    return answer


@contextlib.asynccontextmanager
async def polling(kube: Kube, cache: Cache, queue: WorkQueue[Key], *namespaces: str) -> AsyncIterator[Polling]:
    made = Polling(kube, cache, queue, namespaces, 0.01)
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(10):
            await made.listed.wait()
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def next_key(queue: WorkQueue[Key]) -> Key:
    async with asyncio.timeout(10):
        key = await queue.get()
    queue.done(key)
    return key


async def test_a_set_that_comes_and_goes_asks_for_a_look(server: tuple[Server, Kube]) -> None:
    made, kube = server
    cache, queue = Cache(), WorkQueue[Key]()
    async with polling(kube, cache, queue):
        assert not cache.children and len(queue) == 0, "the resource is absent"
        made.answer = sets("judge")
        assert await next_key(queue) == ("rl", "judge")
        assert ("LeaderWorkerSet", "judge-nodes") in cache.children["rl", "judge"]
        made.answer = absent
        assert await next_key(queue) == ("rl", "judge")
        assert not cache.children["rl", "judge"]
    labels = {"verb": "list", "kind": "LeaderWorkerSet", "code": "404"}
    assert (made.metrics.registry.get_sample_value("genrm_api_request_seconds_count", labels) or 0) > 0


async def test_no_items_are_null_in_a_list_of_metadata(server: tuple[Server, Kube]) -> None:
    made, kube = server
    made.answer = lambda _: web.json_response({"items": None})
    assert await kube.list("LeaderWorkerSet", "", "x") == []


async def test_what_is_there_is_known_before_anything_else_begins(server: tuple[Server, Kube]) -> None:
    made, kube = server
    made.answer = sets("judge")
    cache = Cache()
    async with polling(kube, cache, WorkQueue[Key](), "rl", "team"):
        assert cache.children["rl", "judge"]
    assert {path.split("/")[-2] for path in made.asked} == {"rl", "team"}


async def test_an_account_that_may_not_list_holds_nothing_up(server: tuple[Server, Kube]) -> None:
    made, kube = server
    made.answer = refused
    async with polling(kube, Cache(), WorkQueue[Key]()):
        assert PATH in made.asked


async def test_a_missing_object_and_a_missing_resource_are_two_things(server: tuple[Server, Kube]) -> None:
    made, kube = server
    with pytest.raises(KindAbsent):
        await kube.get("LeaderWorkerSet", "rl", "judge-nodes")
    made.answer = lambda _: web.json_response({"kind": "Status", "message": "not found"}, status=404)
    with pytest.raises(NotFound):
        await kube.get("LeaderWorkerSet", "rl", "judge-nodes")
    made.answer = refused
    with pytest.raises(Forbidden):
        await kube.list("LeaderWorkerSet", "", "x")
