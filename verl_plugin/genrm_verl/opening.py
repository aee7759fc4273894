"""From a run's section to what scores its samples: the same in the driver's check, in workers and coordinators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import EngineName, Scoring
from genrm_api.terms import NormaliseScope
from genrm_scoring.cluster import Cluster
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.judges import judge_of
from genrm_scoring.scorer import Scorer, Told
from genrm_scoring.sources import Source
from genrm_scoring.speech import Chat
from genrm_scoring.targets import Means, key_in, opened_fleet, reached, scorer_of, source_of, source_with
from genrm_scoring.transport import AiohttpTransport

from genrm_verl.target import Target
from genrm_verl.translate import RunSection


@asynccontextmanager
async def opened_scorer(section: RunSection) -> AsyncIterator[Scorer]:
    """What judges each sample by itself.

    Raises:
        ConfigurationError, ClusterError
    """
    async with _means(section, None) as means:
        if section.target is None:
            async with _static(section, None) as scorer:
                yield scorer
        else:
            resource = Target.read(section.target).resource
            if isinstance(resource, RewardFleet):
                raise TypeError("a fleet's scores are made among siblings")
            async with reached(resource, means) as way:
                yield scorer_of(resource, way)


@asynccontextmanager
async def opened_source(section: RunSection, told: Told | None) -> AsyncIterator[Source]:
    """What scores the responses to one prompt together. `told` hears of every question to a model.

    Raises:
        ConfigurationError, ClusterError
    """
    async with _means(section, told) as means:
        if section.target is None:
            async with _static(section, told) as scorer:
                yield source_with(Scoring.model_validate(section.scoring), scorer, section.patience_s)
        else:
            async with opened_target(Target.read(section.target), means) as source:
                yield source


@asynccontextmanager
async def opened_target(target: Target, means: Means) -> AsyncIterator[Source]:
    """
    Raises:
        ConfigurationError: it cannot be carried out as it says.
        ClusterError
    """
    if isinstance(resource := target.resource, RewardFleet):
        _refuse_state(resource)
        async with opened_fleet(resource, means) as source:
            yield source
    else:
        async with reached(resource, means) as way:
            yield source_of(resource, way, means.patience)


def means_of(
    target: Target,
    cluster: Cluster | None,
    *,
    rules: str | None,
    secrets: str | None,
    patience: float,
    told: Told | None = None,
) -> Means:
    """
    Raises:
        ConfigurationError: the file of rules cannot be read.
    """
    means = Means(cluster=cluster, model=target.model, module=_module(rules), patience=patience, told=told)
    return means if secrets is None else replace(means, key=key_in(Path(secrets)))


@asynccontextmanager
async def _means(section: RunSection, told: Told | None) -> AsyncIterator[Means]:
    async with AsyncExitStack() as opened:
        if section.target is None:
            yield Means(patience=section.patience_s, told=told)
            return
        target, cluster = Target.read(section.target), None
        if target.has_pods:
            from genrm_scoring.kubernetes import connect

            cluster = await opened.enter_async_context(connect())
        yield means_of(
            target,
            cluster,
            rules=section.rules,
            secrets=section.secrets,
            patience=section.patience_s,
            told=told,
        )


@asynccontextmanager
async def _static(section: RunSection, told: Told | None) -> AsyncIterator[Scorer]:
    assert section.served_name is not None and section.engine is not None
    scoring = Scoring.model_validate(section.scoring)
    speech = Chat(judge_of(scoring), section.served_name, scoring.sampling, EngineName(section.engine))
    transport = AiohttpTransport()
    try:
        endpoints = StaticEndpoints(section.endpoints)
        yield Scorer(scoring, section.served_name, endpoints, transport, speech=speech, told=told)
    finally:
        await transport.close()


def _module(path: str | None) -> tuple[str, str] | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(), path
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError("reward_model.rules", f"{path} cannot be read: {e}") from e


def _refuse_state(fleet: RewardFleet) -> None:
    for term in fleet.spec.terms:
        if term.normalise is not None and term.normalise.scope is NormaliseScope.RUNNING:
            raise ConfigurationError(
                f"RewardFleet {fleet.name} spec.terms {term.name} normalise.scope",
                "running needs one state of the whole run, which this version does not keep; write group",
            )
