"""From the name a run was given to the RewardModel it means, or to the sentence that helps.

A wrong name, a cluster without our CRD, an API server that is away and a user without rights look alike in a raw 404 or
stack trace; here each becomes its own error, within the seconds a Cluster allows per call.
"""

from __future__ import annotations

from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from genrm_scoring.cluster import REWARD_FLEETS, REWARD_MODELS, Cluster
from genrm_scoring.errors import NoRewardModelApi, NoSuchRewardModel, NotFound, RewardModelUnreadable


async def resolve(cluster: Cluster, name: str, namespace: str | None = None) -> RewardModel:
    """Find a RewardModel; without a namespace in the one that the credentials point to.

    Raises:
        RewardModelError, ClusterError
    """
    namespace = namespace or cluster.namespace
    try:
        found = await cluster.get(REWARD_MODELS, namespace, name)
    except NotFound:
        try:
            listing = await cluster.list(REWARD_MODELS, namespace)
        except NotFound:
            raise NoRewardModelApi(cluster.where) from None
        existing = [str(item["metadata"]["name"]) for item in listing.items]
        raise NoSuchRewardModel(name, namespace, existing) from None
    try:
        return RewardModel.model_validate(dict(found))
    except ValidationError as e:
        raise RewardModelUnreadable("RewardModel", name, namespace, _wrong(e)) from e


async def resolve_fleet(cluster: Cluster, name: str, namespace: str) -> RewardFleet | None:
    """Find a RewardFleet; `None` if there is none, or the cluster does not know such.

    Raises:
        RewardModelUnreadable, ClusterError
    """
    try:
        found = await cluster.get(REWARD_FLEETS, namespace, name)
    except NotFound:
        return None
    try:
        return RewardFleet.model_validate(dict(found))
    except ValidationError as e:
        raise RewardModelUnreadable("RewardFleet", name, namespace, _wrong(e)) from e


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
