"""The Leases of a run on all the models of a fleet, as if they were one.

Each model has its own, as the operator knows Leases on models alone: two fleets that share a model, or a fleet and a
run that names the model itself, then meet at that model and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from genrm_api.leases import DEFAULT_TTL_SECONDS, Phase
from genrm_api.rewardmodel import RewardModel

from genrm_scoring.cluster import Cluster
from genrm_scoring.errors import GenrmError, NoSuchRewardModel
from genrm_scoring.leases import model_lease, run_phase
from genrm_scoring.resolve import models_of, resolve_fleet, resolve_target
from genrm_scoring.run_lease import RunLease


class FleetLease:
    """As `RunLease`, of several models. A fleet of rules and endpoints alone has none, and nobody to wake."""

    def __init__(self, leases: Sequence[RunLease]) -> None:
        self.leases = tuple(leases)

    @property
    def name(self) -> str:
        return ", ".join(f"{lease.namespace}/{lease.name}" for lease in self.leases)

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None:
        for lease in self.leases:
            lease.set_phase(phase, needed_in)

    @asynccontextmanager
    async def scoring(self) -> AsyncIterator[None]:
        self.begin_scoring()
        try:
            yield
        finally:
            self.end_scoring()

    def begin_scoring(self) -> None:
        for lease in self.leases:
            lease.begin_scoring()

    def end_scoring(self) -> None:
        for lease in self.leases:
            lease.end_scoring()

    async def settled(self) -> None:
        await asyncio.gather(*(lease.settled() for lease in self.leases))

    async def awake(self, timeout: float) -> float:
        """Wait until every replica of every model serves; return the seconds of the slowest.

        Raises:
            NotAwake, WakeRefused
        """
        try:
            async with asyncio.TaskGroup() as group:  # one that never will be awake ends the wait for the others
                waiting = [group.create_task(lease.awake(timeout)) for lease in self.leases]
        except* GenrmError as failed:
            raise failed.exceptions[0] from None
        return max((each.result() for each in waiting), default=0.0)


@asynccontextmanager
async def target_lease(
    cluster: Cluster,
    name: str,
    namespace: str | None = None,
    run: str | None = None,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    prewake: bool = False,
) -> AsyncIterator[FleetLease]:
    """Hold the Leases of `run` on the RewardModel or RewardFleet `name`, while the block is open; see `model_lease`.

    Args:
        namespace: default: that of the credentials.
        run: default: `own_name`.

    Raises:
        RewardModelError, ClusterError, LeaseTaken
    """
    _, models = await resolve_target(cluster, name, namespace)
    async with run_leases(cluster, run or own_name(), models, ttl_seconds, priority, prewake) as lease:
        yield lease


@asynccontextmanager
async def fleet_lease(
    cluster: Cluster,
    run: str,
    fleet: str,
    namespace: str,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    prewake: bool = False,
) -> AsyncIterator[FleetLease]:
    """Hold the Leases of `run` on every model that a RewardFleet names, while the block is open; see `model_lease`.

    Raises:
        NoSuchRewardModel: there is no such fleet, or it names a model that does not exist.
        ClusterError, LeaseTaken
    """
    found = await resolve_fleet(cluster, fleet, namespace)
    if found is None:
        raise NoSuchRewardModel(fleet, namespace, [], kind="RewardFleet")
    models = await models_of(cluster, found)
    async with run_leases(cluster, run, models, ttl_seconds, priority, prewake) as lease:
        yield lease


@asynccontextmanager
async def run_leases(
    cluster: Cluster,
    run: str,
    models: Sequence[RewardModel],
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    prewake: bool = False,
) -> AsyncIterator[FleetLease]:
    """Hold the Leases of `run` on some models; those without pods (External) need none."""
    async with AsyncExitStack() as held:
        leases = [
            await held.enter_async_context(
                model_lease(cluster, run, rm.name, rm.namespace, ttl_seconds, rm.metadata.get("uid"), priority, prewake)
            )
            for rm in models
            if not rm.spec.is_external
        ]
        yield FleetLease(leases)


@asynccontextmanager
async def run_phases(
    cluster: Cluster, run: str, models: Sequence[RewardModel], ttl_seconds: int = DEFAULT_TTL_SECONDS
) -> AsyncIterator[FleetLease]:
    """Write the phase of Leases that another process of `run` holds with `run_leases`."""
    async with AsyncExitStack() as held:
        leases = [
            await held.enter_async_context(run_phase(cluster, run, rm.name, rm.namespace, ttl_seconds))
            for rm in models
            if not rm.spec.is_external
        ]
        yield FleetLease(leases)


def own_name() -> str:
    """A name for a run that nobody named: no two processes share it, so that neither takes the other's Lease."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
