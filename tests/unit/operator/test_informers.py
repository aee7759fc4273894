"""What the cluster says reaches the cache, over real HTTP: lists in pages, watches that end, break off and expire."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from genrm_operator.cache import Cache, Key
from genrm_operator.informers import INFORMED, Informer
from genrm_operator.kube import PAGE, Kube
from genrm_operator.watches import Watches
from genrm_operator.workqueue import WorkQueue
from kubernetes.aio import client

JUDGE = ("rl", "judge")
OF_KIND = {what.kind: what for what in INFORMED}


def pod(name: str, version: int, **spec: Any) -> dict[str, Any]:
    labels = {"genrm.dev/reward-model": "judge", "genrm.dev/component": "engine"}
    meta = {"namespace": "rl", "name": name, "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta, "spec": spec}


@dataclass
class StubApi:
    """One kind of object; watches say what the test puts in, and end where it says None."""

    there: list[dict[str, Any]] = field(default_factory=list)
    version: int = 10
    forgets: int = 0
    """How often the rest of a list is gone."""
    gone: int = 0
    """How often the version is, from which a watch should begin."""
    refuses: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    says: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.accepted.append(request.headers["Accept"])
        if self.refuses:
            self.refuses -= 1
            return web.json_response({"kind": "Status", "message": "pods is forbidden"}, status=403)
        if "watch" in request.query:
            return await self._watch(request)
        begin, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", len(self.there) or 1))
        if begin and self.forgets:
            self.forgets -= 1
            return web.json_response({"kind": "Status", "message": "too old"}, status=410)
        page, more = self.there[begin : begin + limit], begin + limit < len(self.there)
        meta = {"resourceVersion": str(self.version), **({"continue": str(begin + limit)} if more else {})}
        return web.json_response({"metadata": meta, "items": page or None})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.gone:
            self.gone -= 1
            return web.json_response({"kind": "Status", "message": "too old resource version"}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        while (said := await self.says.get()) is not None:
            await response.write(said)
        return response

    def say(self, kind: str, obj: dict[str, Any]) -> None:
        self.says.put_nowait(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    @property
    def lists(self) -> int:
        return sum("watch" not in query for query in self.asked)

    @property
    def watched_from(self) -> list[str]:
        return [query["resourceVersion"] for query in self.asked if "watch" in query]


@dataclass
class World:
    api: StubApi
    kube: Kube
    cache: Cache = field(default_factory=Cache)
    queue: WorkQueue[Key] = field(default_factory=WorkQueue)
    watches: Watches = field(default_factory=lambda: Watches(asyncio.get_running_loop().time))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def follow(self, kind: str = "Pod", namespace: str = "") -> Informer:
        informer = Informer(self.kube, self.cache, self.queue, self.watches, OF_KIND[kind], namespace)
        self.tasks.append(asyncio.create_task(informer.run()))
        return informer

    @property
    def known(self) -> set[str]:
        return set(self.cache.pods[JUDGE])

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110  (what is waited for happens behind a socket)
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("genrm_operator.informers.RECONNECT_SECONDS", 0.01)
    api, app = StubApi(), web.Application()
    app.router.add_get("/{path:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    made = World(api, Kube(client.ApiClient(configuration)))
    yield made
    for task in made.tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await made.kube.close()
    await runner.cleanup()


async def test_what_is_listed_and_what_changes_is_known_and_looked_at(world: World) -> None:
    world.api.there = [pod("a", 3)]
    informer = world.follow()
    async with asyncio.timeout(10):
        await informer.listed.wait()
        assert world.known == {"a"} and await world.queue.get() == JUDGE
    world.queue.done(JUDGE)
    world.api.say("ADDED", pod("b", 11))
    await world.until(lambda: world.known == {"a", "b"} and len(world.queue) == 1)
    world.api.say("DELETED", pod("a", 12))
    await world.until(lambda: world.known == {"b"})
    assert world.api.asked[0] == {"labelSelector": "genrm.dev/reward-model", "limit": str(PAGE)}


async def test_nothing_there_is_known_too(world: World) -> None:
    async with asyncio.timeout(10):
        await world.follow().listed.wait()
    assert not world.known and not len(world.queue)


@pytest.mark.parametrize("forgets", [0, 1])
async def test_a_long_list_comes_in_pages_or_where_its_rest_is_forgotten_in_one_piece(
    world: World, forgets: int
) -> None:
    world.api.there = [pod(f"p{n}", 3) for n in range(2 * PAGE + 1)]
    world.api.forgets = forgets
    async with asyncio.timeout(10):
        await world.follow().listed.wait()
    assert len(world.known) == 2 * PAGE + 1
    last = world.api.asked[2]
    assert ("limit" in last, "continue" in last) == ((False, False) if forgets else (True, True))


async def test_a_watch_that_ends_goes_on_where_it_was(world: World) -> None:
    world.follow()
    world.api.say("ADDED", pod("a", 11))
    world.api.say("BOOKMARK", {"metadata": {"resourceVersion": "17"}})
    world.api.says.put_nowait(None)
    await world.until(lambda: len(world.api.watched_from) == 2)
    assert world.api.watched_from == ["10", "17"] and world.api.lists == 1


@pytest.mark.parametrize("how", ["as an event", "as an answer"])
async def test_a_watch_that_expired_begins_with_a_list_and_forgets_what_is_gone(world: World, how: str) -> None:
    world.api.there = [pod("a", 3), pod("b", 4)]
    world.follow()
    await world.until(lambda: world.known == {"a", "b"} and len(world.api.watched_from) == 1)
    world.api.there, world.api.version = [pod("b", 4), pod("c", 20)], 21
    if how == "as an event":
        world.api.say("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
    else:
        world.api.gone = 1
        world.api.says.put_nowait(None)
    await world.until(lambda: world.known == {"b", "c"} and world.api.watched_from[-1] == "21")
    assert world.api.lists == 2 and len(world.queue) == 1


async def test_who_is_refused_asks_again_and_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.watches.expect(["pods"], [])
    world.api.refuses, world.api.there = 1, [pod("a", 3)]
    informer = world.follow()
    async with asyncio.timeout(10):
        await informer.listed.wait()
    assert world.known == {"a"} and "pods is forbidden" in caplog.text


async def test_one_that_cannot_be_read_keeps_nothing_from_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    odd = pod("odd", 3)
    odd["metadata"]["resourceVersion"] = "no number"
    world.api.there = [odd, pod("a", 3)]
    informer = world.follow()
    async with asyncio.timeout(10):
        await informer.listed.wait()
    world.api.say("MODIFIED", odd)
    world.api.say("ADDED", pod("b", 11))
    await world.until(lambda: world.known == {"a", "b"})
    assert world.api.lists == 1 and "Pod=rl/odd" in caplog.text


async def test_lines_may_come_in_pieces_and_be_long(world: World) -> None:
    world.follow()
    long = json.dumps({"type": "ADDED", "object": pod("a", 11, note="x" * 3_000_000)}).encode() + b"\n"
    short = json.dumps({"type": "ADDED", "object": pod("b", 12)}).encode() + b"\n"
    for piece in (long[:1000], long[1000:2_000_000], long[2_000_000:] + short[:20], short[20:]):
        world.api.says.put_nowait(piece)
    await world.until(lambda: world.known == {"a", "b"})


async def test_what_is_older_than_an_answer_of_ours_changes_nothing(world: World) -> None:
    informer = world.follow()
    async with asyncio.timeout(10):
        await informer.listed.wait()
    world.cache.put_pod(pod("a", 15, nodeName="new"), deleted=False)
    world.api.say("ADDED", pod("a", 11, nodeName="old"))
    world.api.say("ADDED", pod("b", 16))
    await world.until(lambda: "b" in world.known)
    assert world.cache._versions["a"] == 15


@pytest.mark.parametrize("kind", OF_KIND)
async def test_the_metadata_alone_is_asked_for_where_nobody_reads_more(world: World, kind: str) -> None:
    world.follow(kind, "rl")
    await world.until(lambda: len(world.api.accepted) == 2)
    partial = ["PartialObjectMetadata" in accepted for accepted in world.api.accepted]
    assert partial == [not OF_KIND[kind].whole] * 2
