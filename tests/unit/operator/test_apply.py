"""Which children are no longer wanted, and for whom they are made again."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
from aiohttp import web
from genrm_operator.apply import settle, unwanted
from genrm_operator.cache import Cache, Existing
from genrm_operator.errors import NotFound
from genrm_operator.kube import Kube
from genrm_operator.memory import Made, Memory
from kubernetes.aio import client

OURS, DEPLOYMENT = Existing("1", "1/1", "rm"), ("Deployment", "judge")
DOOR, ROUTER = ("ConfigMap", "judge-door-old"), ("Service", "judge-router")


@pytest.mark.parametrize(
    ("there", "wanted", "in_use", "gone"),
    [
        ({DEPLOYMENT: OURS}, [DEPLOYMENT], set(), []),
        ({DEPLOYMENT: OURS, ROUTER: OURS}, [DEPLOYMENT], set(), [ROUTER]),
        ({DEPLOYMENT: OURS, ROUTER: OURS}, [], set(), [DEPLOYMENT, ROUTER]),
        ({DOOR: OURS}, [], {"judge-door-old"}, []),
        ({DOOR: OURS}, [], {"judge-door-other"}, [DOOR]),
        ({ROUTER: Existing("1", "1/1", None)}, [], set(), []),
        ({ROUTER: Existing("1", "1/1", "another")}, [], set(), []),
    ],
    ids=["all wanted", "router gone", "everything gone", "door mounted", "door unused", "only labelled", "not ours"],
)
def test_only_what_is_ours_and_unused_is_removed(
    there: dict[tuple[str, str], Existing],
    wanted: list[tuple[str, str]],
    in_use: set[str],
    gone: list[tuple[str, str]],
) -> None:
    assert unwanted(there, wanted, "rm", in_use) == gone


@pytest.mark.parametrize(
    ("owner", "again"),
    [
        ([], False),
        ([{"uid": "another"}], False),
        ([{"uid": "rm", "deletionTimestamp": "2026-11-22T10:00:00Z"}], False),
        ([{"uid": "rm"}], True),
    ],
    ids=["gone", "another of its name", "on its way", "there"],
)
async def test_a_child_that_is_missed_is_made_again_only_for_who_is_there(
    owner: list[dict[str, Any]], again: bool
) -> None:
    """Over real HTTP. The watch of the children may tell of a deletion before that of their owner."""
    applied: list[str] = []
    versions = itertools.count(1)

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            assert request.query["fieldSelector"] == "metadata.name=judge"
            return web.json_response({"items": [{"metadata": meta} for meta in owner] or None})
        applied.append(request.path)
        name = {"namespace": "rl", "name": "judge", "labels": {"genrm.dev/reward-model": "judge"}}
        return web.json_response({"metadata": {**name, "uid": "u", "resourceVersion": str(next(versions))}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kube = Kube(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")))
    cache, memory, key = Cache(), Memory(), ("rl", "judge")
    service = {"kind": "Service", "metadata": {"namespace": "rl", "name": "judge"}}
    made = Made((), [service], ["digest"], waits=False)
    try:
        await settle(kube, cache, key, "rm", memory, made)
        assert len(applied) == 1, "what was never made is made"
        cache.forget("Service", key, "judge")
        if again:
            await settle(kube, cache, key, "rm", memory, made)
        else:
            with pytest.raises(NotFound):
                await settle(kube, cache, key, "rm", memory, made)
        assert len(applied) == 1 + again
    finally:
        await kube.close()
        await runner.cleanup()


def test_what_the_api_server_refuses_is_tried_again_ever_more_rarely() -> None:
    memory = Memory()
    assert [memory.apply_refused() for _ in range(4)] == [5.0, 10.0, 20.0, 20.0]


async def test_what_somebody_else_removes_first_fails_nobody() -> None:
    cache, key = Cache(), ("rl", "judge")
    cache.children[key] = {("Service", name): Existing(name, "1", "rm") for name in ("a", "b")}

    class OthersRemoveB:
        """As garbage collection does, and the watch tells of it while the first is on its way."""

        async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
            if name == "b":
                raise NotFound("DELETE b", 404, "gone")
            cache.forget("Service", key, "b")

    await settle(cast(Kube, OthersRemoveB()), cache, key, "rm", Memory(), Made((), [], [], waits=False))
    assert not cache.children[key]
