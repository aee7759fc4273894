"""The gateway's Lease on a model: there while requests need it."""

from __future__ import annotations

import pytest
from genrm_api.leases import DemandLease, Phase
from genrm_api.rewardmodel import RewardModel
from genrm_gateway.demand import Demand
from genrm_scoring import run_lease
from genrm_scoring.cluster import LEASES, Resource
from genrm_scoring.errors import ClusterUnreachable

from tests.unit.scoring.fake_cluster import FakeCluster

JUDGE = RewardModel.model_validate(
    {
        "apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": "judge", "namespace": "rl"},
        "spec": {"model": {"uri": "hf://a/b"}},
    }
)  # fmt: skip


def leases(cluster: FakeCluster) -> list[DemandLease]:
    return [DemandLease.from_object(obj) for (kind, _, _), obj in cluster.objects.items() if kind == str(LEASES)]


def scoring(cluster: FakeCluster) -> list[str]:
    return [lease.run for lease in leases(cluster) if lease.phase is Phase.SCORING]


async def test_a_lease_is_there_while_somebody_is_inside_and_a_little_longer() -> None:
    cluster = FakeCluster()
    demand = Demand(cluster, JUDGE, "gateway-0", linger=0.05)
    with demand.needed(), demand.needed():
        await cluster.until(lambda: bool(scoring(cluster)))
        (lease,) = leases(cluster)
        assert lease.run.startswith("gateway-0")
    await cluster.until(lambda: not cluster.objects)
    with demand.needed():
        await cluster.until(lambda: bool(scoring(cluster)))
    await demand.close()
    assert not cluster.objects


async def test_a_lease_that_could_not_be_deleted_keeps_nobody_from_asking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_lease, "RELEASE_SECONDS", 0.1)

    class Away(FakeCluster):
        async def delete(self, resource: Resource, namespace: str, name: str) -> None:
            await self._called("delete", name)
            raise ClusterUnreachable("https://fake:6443", "connection refused")

    cluster = Away()
    demand = Demand(cluster, JUDGE, "gateway-0", linger=0.05)
    with demand.needed():
        await cluster.until(lambda: bool(scoring(cluster)))
    (left,) = leases(cluster)
    await cluster.until(lambda: ("delete", left.name) in cluster.calls)
    with demand.needed():
        await cluster.until(lambda: len(scoring(cluster)) == 2)
    await demand.close()
