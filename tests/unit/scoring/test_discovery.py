from __future__ import annotations

import asyncio
from typing import Any

import pytest
from genrm_scoring.cluster import ENDPOINT_SLICES
from genrm_scoring.discovery import KubernetesEndpoints, serving_endpoints
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.errors import AccessDenied, ClusterUnreachable, WatchExpired

from tests.unit.scoring.fake_cluster import FakeCluster
from tests.unit.scoring.stub_api import endpoint_slice

AWAY = ClusterUnreachable("https://fake:6443", "connection refused")


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "rl"}, **fields}


def pods(endpoints: KubernetesEndpoints) -> list[str]:
    return [e.pod for e in endpoints.snapshot().endpoints]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (Endpoint("http://10.0.0.1:8000", "judge-1", "uid-judge-1"),)),
        ({"addressType": "IPv6"}, (Endpoint("http://[10.0.0.1]:8000", "judge-1", "uid-judge-1"),)),
        ({"ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": 80}]},
         (Endpoint("http://10.0.0.1:80", "judge-1", "uid-judge-1"),)),
        ({"ports": [{"port": 81}]}, (Endpoint("http://10.0.0.1:81", "judge-1", "uid-judge-1"),)),
        ({"ports": None}, ()),
        ({"endpoints": None}, ()),
        ({"endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": False, "serving": True}}]}, ()),
        ({"endpoints": [{"addresses": ["10.0.0.9"]}]}, (Endpoint("http://10.0.0.9:8000"),)),
    ],
)  # fmt: skip
def test_a_slice_names_who_takes_requests(change: dict[str, Any], expected: tuple[Endpoint, ...]) -> None:
    assert serving_endpoints([{**endpoint_slice("judge-1"), **change}]) == expected


def test_an_address_in_two_slices_is_one_endpoint_and_order_is_stable() -> None:
    slices = [endpoint_slice("judge-2", "judge-1"), endpoint_slice("judge-1", "judge-3")]
    assert [e.pod for e in serving_endpoints(slices)] == ["judge-1", "judge-2", "judge-3"]
    assert serving_endpoints(slices) == serving_endpoints(reversed(slices))


async def test_pods_come_and_go() -> None:
    cluster = FakeCluster()
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints, asyncio.timeout(5):
        await endpoints.wait_for_change(0, 5)
        assert pods(endpoints) == []
        await cluster.until(lambda: ("watch", "0") in cluster.calls)
        await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1")))
        await endpoints.wait_for_change(1, 5)
        assert pods(endpoints) == ["judge-1"]
        await cluster.remove(ENDPOINT_SLICES, "rl", "a")
        await endpoints.wait_for_change(2, 5)
        assert pods(endpoints) == []


async def test_a_waiter_is_not_woken_by_what_changes_nothing() -> None:
    cluster = FakeCluster()
    await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1")))
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints, asyncio.timeout(5):
        await cluster.until(lambda: ("watch", "1") in cluster.calls)
        version = endpoints.snapshot().version
        await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1")))
        await endpoints.wait_for_change(version, 0.05)
        assert endpoints.snapshot().version == version


async def test_a_lost_event_is_made_up_for_by_the_next_list() -> None:
    cluster = FakeCluster()
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints, asyncio.timeout(5):
        await cluster.until(lambda: ("watch", "0") in cluster.calls)
        cluster.objects[str(ENDPOINT_SLICES), "rl", "a"] = named("a", **endpoint_slice("judge-1"))
        cluster.end_watches()
        await endpoints.wait_for_change(1, 5)
        assert pods(endpoints) == ["judge-1"]


@pytest.mark.parametrize(
    "trouble", [AWAY, AccessDenied(403, "list", "endpointslices", "rl", "no"), WatchExpired("old")]
)
async def test_endpoints_survive_an_api_server_that_is_away(trouble: Any) -> None:
    cluster = FakeCluster()
    await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1")))
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints, asyncio.timeout(5):
        await cluster.until(lambda: ("watch", "1") in cluster.calls)
        cluster.fail = trouble
        seen = len(cluster.calls)
        cluster.end_watches()
        await cluster.until(lambda: len(cluster.calls) >= seen + 2)
        assert pods(endpoints) == ["judge-1"]
        await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1", "judge-2")))
        version = endpoints.snapshot().version
        cluster.fail = None
        await endpoints.wait_for_change(version, 5)
        assert pods(endpoints) == ["judge-1", "judge-2"]


async def test_a_list_older_than_its_bound_is_not_used_and_says_so() -> None:
    cluster = FakeCluster()
    await cluster.put(ENDPOINT_SLICES, named("a", **endpoint_slice("judge-1")))
    async with KubernetesEndpoints(cluster, "judge", "rl", stale_seconds=0.0) as endpoints, asyncio.timeout(5):
        await cluster.until(lambda: ("watch", "1") in cluster.calls)
        cluster.fail = AWAY
        seen = len(cluster.calls)
        cluster.end_watches()
        await cluster.until(lambda: len(cluster.calls) > seen)
        snapshot = endpoints.snapshot()
        assert snapshot.endpoints == ()
        assert "connection refused" in (snapshot.problem or "")
        cluster.fail = None
        await endpoints.wait_for_change(snapshot.version, 5)
        assert endpoints.snapshot().version > snapshot.version


async def test_a_cluster_that_never_answered_is_a_problem_not_an_empty_fleet() -> None:
    cluster = FakeCluster()
    cluster.fail = AWAY
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints:
        await cluster.until(lambda: len(cluster.calls) > 1)
        assert "never listed" in (endpoints.snapshot().problem or "")
