"""From the name a run was given to the RewardModel it means, or to the sentence that helps.

A wrong name, a cluster without our CRD, an API server that is away and a user without rights look alike in a raw 404 or
stack trace; here each becomes its own error, within the seconds a Cluster allows per call.
"""

from __future__ import annotations

from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from genrm_scoring.cluster import REWARD_FLEETS, REWARD_MODELS, Cluster
from genrm_scoring.errors import AccessDenied, NoRewardModelApi, NoSuchRewardModel, NotFound, RewardModelUnreadable


async def resolve(cluster: Cluster, name: str, namespace: str | None = None) -> RewardModel:
    """Find a RewardModel; without a namespace in the one that the credentials point to.

    Raises:
        RewardModelError, ClusterError
    """
    namespace = namespace or cluster.namespace
    if (found := await _model(cluster, name, namespace)) is not None:
        return found
    raise NoSuchRewardModel(name, namespace, await _models(cluster, namespace))


async def uid_of(cluster: Cluster, name: str, namespace: str) -> str | None:
    """Of the RewardModel that has this name now; `None`: none has.

    Whoever makes a Lease for it again needs that of now: one that names a RewardModel which is gone as its owner is
    garbage as soon as it is there.

    Raises:
        ClusterError
    """
    try:
        found = await cluster.get(REWARD_MODELS, namespace, name)
    except NotFound:
        return None
    return str(found["metadata"]["uid"])


async def _model(cluster: Cluster, name: str, namespace: str) -> RewardModel | None:
    try:
        found = await cluster.get(REWARD_MODELS, namespace, name)
    except NotFound:
        return None
    try:
        return RewardModel.model_validate(dict(found))
    except ValidationError as e:
        raise RewardModelUnreadable("RewardModel", name, namespace, _wrong(e)) from e


async def _models(cluster: Cluster, namespace: str) -> list[str]:
    """The names of all there are."""
    try:
        listing = await cluster.list(REWARD_MODELS, namespace)
    except NotFound:
        raise NoRewardModelApi(cluster.where) from None
    return [str(item["metadata"]["name"]) for item in listing.items]


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


async def resolve_target(
    cluster: Cluster, name: str, namespace: str | None = None
) -> tuple[RewardModel | RewardFleet, tuple[RewardModel, ...]]:
    """What a name means where both are possible, the model first; and the RewardModels behind it.

    Raises:
        RewardModelError, ClusterError
    """
    namespace = namespace or cluster.namespace
    if (model := await _model(cluster, name, namespace)) is not None:
        return model, (model,)
    if (fleet := await resolve_fleet(cluster, name, namespace)) is not None:
        return fleet, await models_of(cluster, fleet)
    existing = [*await _models(cluster, namespace), *await _fleets(cluster, namespace)]
    raise NoSuchRewardModel(name, namespace, existing, kind="RewardModel or RewardFleet")


async def models_of(cluster: Cluster, fleet: RewardFleet) -> tuple[RewardModel, ...]:
    """The RewardModels that a fleet's terms name, each once.

    Raises:
        RewardModelError, ClusterError
    """
    return tuple([await resolve(cluster, name, fleet.namespace) for name in fleet.models])


async def _fleets(cluster: Cluster, namespace: str) -> list[str]:
    """Their names, for a message: who may not list them is told of none."""
    try:
        return [str(item["metadata"]["name"]) for item in (await cluster.list(REWARD_FLEETS, namespace)).items]
    except (NotFound, AccessDenied):
        return []


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
