"""Before anything expensive starts: does what the run asks for exist, and may the run use it?

Runs in the driver, before Ray. Whatever is wrong is one error with one sentence, within seconds: every call of a
Cluster has its deadline, and there are only a few of them.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Final

from genrm_api.names import headless_service_name
from genrm_api.rewardmodel import LifecycleState, RewardModel, Scoring
from genrm_scoring.cluster import ENDPOINT_SLICES, Cluster
from genrm_scoring.discovery import serving_endpoints
from genrm_scoring.errors import ClusterUnreachable, ConfigurationError
from genrm_scoring.lease_thread import Connect
from genrm_scoring.resolve import resolve
from genrm_scoring.support import unsupported, unsupported_scoring
from pydantic import ValidationError

from genrm_verl.translate import RewardRequest, RunSection

SECONDS: Final = 5.0
"""With the Lease's own, less than the ten seconds within which a run that cannot work has ended."""


def run_id(experiment: str) -> str:
    """A name for this run that nobody else has."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)[:80].strip("-") or "run"
    return f"{readable}-{secrets.token_hex(4)}"


def announce(request: RewardRequest) -> str:
    """What the plugin is about to do."""
    if request.discovery == "k8s":
        return f"looking for RewardModel {request.name} in {request.namespace or 'the default namespace'}"
    return f"rewards come from {', '.join(request.endpoints)}"


def static_section(request: RewardRequest, run: str) -> RunSection:
    """
    Raises:
        ConfigurationError: `reward_model.scoring` is not what `spec.scoring` may be, or is not carried out yet.
    """
    try:
        scoring = Scoring.model_validate(request.scoring)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(["reward_model.scoring", *map(str, first["loc"])])
        raise ConfigurationError(field, first["msg"]) from None
    if (refused := unsupported_scoring(scoring)) is not None:
        raise ConfigurationError(f"reward_model.{refused[0]}", refused[1])
    assert request.served_name is not None
    return RunSection(
        run=run,
        discovery="static",
        served_name=request.served_name,
        engine=request.engine,
        scoring=scoring.model_dump(mode="json", by_alias=True, exclude_none=True),
        endpoints=request.endpoints,
        judgement_log=request.judgement_log,
    )


def cluster_section(connect: Connect, request: RewardRequest, run: str) -> tuple[RunSection, str]:
    """Ask the cluster; also return the sentence that says what was found.

    Raises:
        GenrmError
    """
    return asyncio.run(_ask(connect, request, run))


async def _ask(connect: Connect, request: RewardRequest, run: str) -> tuple[RunSection, str]:
    where = "KUBECONFIG"
    try:
        async with asyncio.timeout(SECONDS), connect() as cluster:
            where = cluster.where
            assert request.name is not None
            model = await resolve(cluster, request.name, request.namespace)
            serving = await _serving(cluster, model)
    except TimeoutError:
        raise ClusterUnreachable(where, f"no answer within {SECONDS:.0f} s") from None
    if model.spec.lifecycle.state in (LifecycleState.ASLEEP, LifecycleState.OFF):
        raise ConfigurationError(
            f"RewardModel {model.namespace}/{model.name} spec.lifecycle.state",
            f"is {model.spec.lifecycle.state}, so no judgement would ever be answered; set it to Auto",
        )
    if (refused := unsupported(model)) is not None:
        raise ConfigurationError(f"RewardModel {model.namespace}/{model.name} spec.{refused[0]}", refused[1])
    section = RunSection(
        run=run,
        discovery="k8s",
        served_name=model.served_name,
        engine=model.spec.engine.name.value,
        scoring=model.spec.scoring.model_dump(mode="json", by_alias=True, exclude_none=True),
        name=model.name,
        namespace=model.namespace,
        uid=model.metadata.get("uid"),
        judgement_log=request.judgement_log,
        lease_ttl_s=request.lease_ttl_s,
        prewake=request.prewake,
    )
    return section, describe(model, serving)


async def _serving(cluster: Cluster, model: RewardModel) -> int:
    """How many pods serve now; also proves that this user may read the endpoints."""
    selector = f"kubernetes.io/service-name={headless_service_name(model.name)}"
    return len(serving_endpoints((await cluster.list(ENDPOINT_SLICES, model.namespace, selector)).items))


def describe(model: RewardModel, serving: int) -> str:
    engine = (model.status and model.status.engine) or model.spec.engine.name.value
    phase = (model.status and model.status.phase) or "not seen by the operator yet"
    return (
        f"rewards come from RewardModel {model.namespace}/{model.name}: model {model.served_name} "
        f"({model.spec.model.uri}), engine {engine}, {model.spec.replicas} replicas, {serving} serving now, {phase}"
    )
