"""What a RewardModel's Leases ask for now, and whether those that seem to have expired have.

That nobody renewed a Lease for its TTL may only mean that nobody told us: a watch whose connection has died says
nothing for up to a minute, while runs renew through another API server. So before engines are taken from a run its
Lease is written to: the answer shows whether it was renewed after all. What is written tells the operators that come
after that it has expired: else each of them would give the Leases of runs that died long ago another TTL.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from genrm_api.effective import effective_spec
from genrm_api.leases import DemandLease, Sighting
from genrm_api.names import ANNOTATION_EXPIRED
from genrm_api.rewardmodel import RewardModel

from genrm_operator.cache import Cache, Key
from genrm_operator.demand import Demand, demand
from genrm_operator.errors import ApiError, NotFound
from genrm_operator.kube import Kube
from genrm_operator.memory import Memory

log = logging.getLogger(__name__)


async def demanded(kube: Kube, cache: Cache, key: Key, rm: RewardModel, memory: Memory, now: float) -> Demand:
    """What is asked for, which is remembered."""
    wants = _demand(cache, key, rm, memory, now)
    if asked := [lease for lease in wants.expired if not lease.has_expired]:
        await asyncio.gather(*(_confirm(kube, cache, lease) for lease in asked))
        wants = _demand(cache, key, rm, memory, now)
    memory.wants = (wants, rm.metadata.get("generation"))
    memory.wait(wants.held, now)
    return wants


def _demand(cache: Cache, key: Key, rm: RewardModel, memory: Memory, now: float) -> Demand:
    leases = cache.leases[key]
    memory.sightings = {
        name: memory.sightings[name].update(lease, now) if name in memory.sightings else Sighting.first(lease, now)
        for name, lease in leases.items()
    }
    lives = effective_spec(rm).lifecycle
    return demand(lives, leases.values(), memory.sightings, now, memory.past(rm))


async def _confirm(kube: Kube, cache: Cache, lease: DemandLease) -> None:
    """Have the API server say whether it was renewed.

    Raises:
        ApiError: it does not answer. As long as that is so its runs cannot renew either, and nobody has expired.
    """
    patch = {"metadata": {"annotations": {ANNOTATION_EXPIRED: lease.renewal}}}
    try:
        answer = await kube.merge_patch("Lease", lease.namespace, lease.name, patch)
    except NotFound:
        return
    except ApiError as error:
        if not 400 <= error.status < 500 or error.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise
        log.warning("nobody can ask whether a Lease was renewed lease=%s/%s %s", lease.namespace, lease.name, error)
        return
    cache.put_answered_lease(answer)
