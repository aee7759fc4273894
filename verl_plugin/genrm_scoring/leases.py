"""Holding a Lease: how a run says, for as long as it lives, what it needs of a reward model, or of its GPUs.

Two parts can be played, by two processes of one run or by one: the *holder* creates the Lease, renews it and deletes it
in the end; whoever knows what the run is doing writes its *phase*. `RunLease` writes it. The phase is written again
with every third of the TTL, so that a Lease which somebody deleted comes back right. An API server that is away for
less than the TTL costs nothing.

All of it lives in the event loop that it is called in, and ends when somebody blocks that loop for a TTL. Programs use
`kubernetes.run_lease` and `slot_lease`, which give it a loop of its own; these are for who has one (`rewards`,
`LeaseThread`), or has a loop that nobody blocks (the gateway's).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from genrm_api.leases import DEFAULT_TTL_SECONDS, slots_named

from genrm_scoring.cluster import Cluster
from genrm_scoring.run_lease import RELEASE_SECONDS, RunLease

log = logging.getLogger(__name__)


@asynccontextmanager
async def model_lease(
    cluster: Cluster,
    run: str,
    reward_model: str,
    namespace: str,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    reward_model_uid: str | None = None,
    priority: int = 0,
    prewake: bool = False,
) -> AsyncIterator[RunLease]:
    """Hold the Lease of `run` on a model while the block is open; its phase starts as idle.

    With the uid the RewardModel owns the Lease: what a killed run leaves behind goes when the model goes. Of runs that
    wait for the same GPUs the one with the higher priority comes first. With `prewake` the engines are woken ahead of
    each block of `RunLease.scoring`, by what the pauses before it took.

    Raises:
        ClusterError, LeaseTaken: it could not be created.
    """
    lease = RunLease(
        cluster, run, reward_model, namespace, ttl_seconds,
        holds=True, owner_uid=reward_model_uid, priority=priority, prewakes=prewake,
    )  # fmt: skip
    async with _held(lease):
        yield lease


@asynccontextmanager
async def _held(lease: RunLease) -> AsyncIterator[None]:
    await lease.acquire()
    keeper = asyncio.create_task(lease.keep(), name=f"lease-{lease.name}")
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await lease.release()


@asynccontextmanager
async def gpu_lease(
    cluster: Cluster,
    run: str,
    reward_model: str,
    slots: str | Iterable[str],
    namespace: str,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    priority: int = 0,
    pods: Sequence[str] = (),
) -> AsyncIterator[RunLease]:
    """Queue for the GPUs that a RewardModel calls by the names of these slots, for memory of the run's own: see
    `RunLease.holding`.

    Several slots are given together or not at all. A run that needs more than one names all of them here: two runs that
    take one after the other, in different orders, would wait for each other, and one of them is refused.

    If this process dies while it has them nobody else gets them, because nobody knows whether its memory is free,
    until `pods` (names, in `namespace`: those whose processes have memory there) do not exist any more, or somebody
    deletes the Lease. So nobody owns it: it would go with its RewardModel, whose GPUs are not free for that.

    Raises:
        ClusterError, LeaseTaken: it could not be created.
        ValueError: `slots` names none.
    """
    named = slots_named(slots)
    if not named:
        raise ValueError(
            f"slots: names none of reward model {namespace}/{reward_model}; name those whose GPUs you want"
        )
    lease = RunLease(
        cluster, run, reward_model, namespace, ttl_seconds,
        holds=True, priority=priority, slots=named, pods=pods,
    )  # fmt: skip
    async with _held(lease):
        yield lease


@asynccontextmanager
async def run_phase(
    cluster: Cluster, run: str, reward_model: str, namespace: str, ttl_seconds: int = DEFAULT_TTL_SECONDS
) -> AsyncIterator[RunLease]:
    """Write the phase of a Lease that another process of `run` holds; on leaving, wait briefly for the last write."""
    lease = RunLease(cluster, run, reward_model, namespace, ttl_seconds, holds=False)
    keeper = asyncio.create_task(lease.keep(), name=f"phase-{lease.name}")
    try:
        yield lease
    finally:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await lease.settled()
        except TimeoutError:
            log.warning("lease %s/%s: the last phase was not written", namespace, lease.name)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
