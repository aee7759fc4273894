"""What a listing does not name any more is forgotten, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from genrm_operator.cache import Cache, Key
from genrm_operator.kube import Kube
from genrm_operator.relisting import Relisting
from genrm_operator.watches import Watches
from genrm_operator.workqueue import WorkQueue
from kubernetes.aio import client

JUDGE = ("rl", "judge")
PLURALS = {"Pod": "pods", "RewardModel": "rewardmodels", "Lease": "leases", "Deployment": "deployments"}


def an_object(kind: str, name: str, uid: str, namespace: str = "rl") -> dict[str, Any]:
    """One that is `judge`'s."""
    labels = {"genrm.dev/reward-model": "judge"}
    meta = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "1", "generation": 1, "labels": labels}
    slots = [{"name": "a"}] if kind == "RewardModel" else []
    claims = [{"name": "genrm-slot", "resourceClaimName": "a"}]
    return {"metadata": meta, "spec": {"gpu": {"slots": slots}, "resourceClaims": claims, "template": {"metadata": {}}}}


class World:
    """An API server that only lists, and an operator's memory."""

    def __init__(self) -> None:
        self.there: dict[str, list[dict[str, Any]]] = {plural: [] for plural in PLURALS.values()}
        self.status = 200
        self.asked: list[str] = []
        self.changed = asyncio.Condition()
        self.cache, self.queue, self.watches = Cache(), WorkQueue[Key](), Watches(lambda: 0.0)

    async def list(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        async with self.changed:
            self.asked.append(plural)
            self.changed.notify_all()
        if self.status != 200:
            return web.json_response({"kind": "Status", "message": "no"}, status=self.status)
        found = self.there.get(plural, [])
        parts = request.path.split("/")
        here = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
        return web.json_response({"items": [o for o in found if here in (None, o["metadata"]["namespace"])] or None})

    def put(self, kind: str, obj: dict[str, Any]) -> None:
        puts = {"Pod": self.cache.put_pod, "RewardModel": self.cache.put_reward_model, "Lease": self.cache.put_lease}
        put = puts.get(kind) or self.cache.child_putter(kind)
        put(obj, deleted=False)

    async def listed(self, kind: str, namespace: str = "") -> set[Key]:
        """For whom a look is asked after Kopf has listed once more."""
        self.watches.listed_again.put_nowait((PLURALS[kind], namespace))
        self.watches.listed_again.put_nowait(
            ("services", "")
        )  # one after another: when it is asked, all before is done
        await self.saw("services", self.asked.count("services") + 1)
        found = set()
        while len(self.queue):
            found.add(key := await self.queue.get())
            self.queue.done(key)
        return found

    async def saw(self, plural: str, times: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.asked.count(plural) >= times)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made, app = World(), web.Application()
    app.router.add_get("/{path:.*}", made.list)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")))
    task = asyncio.create_task(Relisting(kube, made.cache, made.queue, made.watches).run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await kube.close()
    await runner.cleanup()


@pytest.mark.parametrize("kind", PLURALS)
async def test_what_is_gone_is_forgotten_and_its_model_is_looked_at(world: World, kind: str) -> None:
    name = "judge" if kind == "RewardModel" else "x"
    world.put(kind, gone := an_object(kind, name, "u1"))
    world.there[PLURALS[kind]] = [gone]
    assert await world.listed(kind) == set() and world.cache.known(kind, ""), "it is there"
    world.there[PLURALS[kind]] = []
    assert await world.listed(kind) == {JUDGE}
    assert not world.cache.known(kind, "")


async def test_who_waits_for_its_gpus_hears_of_a_pod_that_is_gone(world: World) -> None:
    world.put("RewardModel", an_object("RewardModel", "waits", "u0"))
    world.put("Pod", an_object("Pod", "p", "u1"))
    assert world.cache.placed
    assert await world.listed("Pod") == {JUDGE, ("rl", "waits")}
    assert not world.cache.placed


@pytest.mark.parametrize("kind", ["Pod", "RewardModel"])
async def test_another_one_of_the_same_name_is_another_one(world: World, kind: str) -> None:
    world.put(kind, an_object(kind, "judge", "u1"))
    world.there[PLURALS[kind]] = [an_object(kind, "judge", "u2")]
    assert await world.listed(kind) == {JUDGE} and not world.cache.known(kind, "")


async def test_a_listing_of_one_namespace_says_nothing_of_another(world: World) -> None:
    for namespace in ("rl", "team"):
        world.put("Lease", an_object("Lease", "x", namespace, namespace))
    assert await world.listed("Lease", "rl") == {JUDGE}
    assert [name for name, _ in world.cache.known("Lease", "")] == ["team"]


async def test_while_it_cannot_be_seen_nothing_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrm_operator.relisting.RETRY_SECONDS", 0.01)
    world.put("Pod", an_object("Pod", "p", "u1"))
    world.status = 503
    world.watches.listed_again.put_nowait(("pods", ""))
    await world.saw("pods", 3)
    assert world.cache.known("Pod", "")
    world.status = 200
    async with asyncio.timeout(10):
        assert await world.queue.get() == JUDGE
    assert not world.cache.known("Pod", "")
