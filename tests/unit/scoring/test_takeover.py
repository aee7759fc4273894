"""A Lease of the run's own name that is there already: of a process that lives, or of one that is dead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from genrm_api.leases import Phase
from genrm_api.names import ANNOTATION_EXPIRED, ANNOTATION_GRANTED, ANNOTATION_PHASE, ANNOTATION_REFUSED
from genrm_scoring.cluster import Object, Resource
from genrm_scoring.errors import LeaseTaken
from genrm_scoring.leases import model_lease
from genrm_scoring.run_lease import RunLease

from tests.unit.scoring.fake_cluster import FakeCluster
from tests.unit.scoring.test_leases import stored


async def test_two_processes_never_hold_the_lease_of_one_run() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1):
        with pytest.raises(LeaseTaken, match=r"run run-1 \(it is renewed\): end that, give this run another name"):
            async with model_lease(cluster, "run-1", "judge", "rl"):
                pass
        assert stored(cluster).run == "run-1"


@pytest.mark.parametrize("seen", [False, True], ids=["expires now", "an operator saw it expire"])
async def test_what_a_run_left_behind_is_taken_over_by_its_next_process(seen: bool) -> None:
    cluster = FakeCluster()
    left = await left_behind(cluster, ttl_seconds=30 if seen else 1)
    left["metadata"]["annotations"] |= {ANNOTATION_GRANTED: "then", ANNOTATION_REFUSED: "no"}
    if seen:
        left["metadata"]["annotations"][ANNOTATION_EXPIRED] = left["spec"]["renewTime"]
    before = stored(cluster)
    async with asyncio.timeout(10), model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=7, priority=2):
        lease = stored(cluster)
        assert (lease.phase, lease.ttl_seconds, lease.priority) == (Phase.IDLE, 7, 2)
        assert (lease.granted, lease.refused, lease.expired) == (None, None, None)
        assert lease.renewal != before.renewal
    assert not cluster.objects


@pytest.mark.parametrize("event", ["deleted", "taken by another"])
async def test_what_happens_to_it_meanwhile(event: str) -> None:
    class Eventful(FakeCluster):
        async def patch(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
            if "acquireTime" in patch.get("spec", {}):
                if event == "deleted":
                    self.objects.clear()
                else:
                    (found,) = self.objects.values()
                    self._written(found)
            return await super().patch(resource, namespace, name, patch)

    cluster = Eventful()
    await left_behind(cluster, ttl_seconds=1)
    held = model_lease(cluster, "run-1", "judge", "rl")
    if event == "deleted":
        async with asyncio.timeout(10), held:
            assert stored(cluster).phase is Phase.IDLE
    else:
        with pytest.raises(LeaseTaken, match="another process was faster"):
            async with asyncio.timeout(10), held:
                pass


async def left_behind(cluster: FakeCluster, ttl_seconds: int) -> dict[str, Any]:
    """The Lease of a process that was killed while it scored."""
    lease = RunLease(cluster, "run-1", "judge", "rl", ttl_seconds, holds=True)
    await lease.acquire()
    (left,) = cluster.objects.values()
    left["metadata"]["annotations"][ANNOTATION_PHASE] = "scoring"
    return left
