"""From a run's section to what scores its samples: the same in the driver's check, in workers and coordinators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import EngineName, Scoring
from genrm_scoring.cluster import Cluster
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.groups import Reported
from genrm_scoring.judges import judge_of
from genrm_scoring.modules import Modules, modules_in
from genrm_scoring.scorer import Scorer
from genrm_scoring.sources import Source
from genrm_scoring.speech import Chat
from genrm_scoring.targets import (
    Heard,
    Means,
    key_in,
    opened_functions,
    opened_target,
    reached,
    scorer_of,
    source_with,
)
from genrm_scoring.transport import AiohttpTransport

from genrm_verl.target import Target
from genrm_verl.translate import RunSection

STATIC_SCORING: Final = "reward_model.scoring"


@asynccontextmanager
async def opened_scorer(section: RunSection) -> AsyncIterator[Scorer]:
    """What judges each sample by itself.

    Raises:
        ConfigurationError, ClusterError
    """
    async with _means(section) as means:
        if section.target is None:
            async with _static(section, means) as scorer:
                yield scorer
        else:
            resource = Target.read(section.target).scored_by
            if isinstance(resource, RewardFleet):
                raise TypeError("a fleet's scores are made among siblings")
            async with reached(resource, means) as way:
                yield scorer_of(resource, way)


@asynccontextmanager
async def opened_source(
    section: RunSection, heard: Heard | None = None, reported: Reported | None = None
) -> AsyncIterator[Source]:
    """What scores the responses to one prompt together.

    Args:
        heard: hears of every question to a model; `reported`: of every group that was compared.

    Raises:
        ConfigurationError, ClusterError
    """
    async with _means(section) as opened:
        means = replace(opened, heard=heard, reported=reported)
        if section.target is None:
            async with _static(section, means) as scorer:
                scoring = Scoring.model_validate(section.scoring)
                yield source_with(scoring, scorer, section.patience_s, reported=reported)
        else:
            resource = Target.read(section.target).scored_by
            async with opened_target(resource, means, keeps_state=True) as source:
                yield source


def means_of(
    target: Target,
    cluster: Cluster | None,
    *,
    rules: Sequence[str],
    secrets: str | None,
    patience: float,
) -> Means:
    """
    Raises:
        ConfigurationError: a file of rules cannot be read.
    """
    modules = run_modules(rules)
    means = Means(cluster=cluster, model=target.model, modules=modules, code=target.code, patience=patience)
    return means if secrets is None else replace(means, key=key_in(Path(secrets)))


def run_modules(rules: Sequence[str]) -> Modules:
    """
    Raises:
        ConfigurationError: a file of rules cannot be read.
    """
    return modules_in(map(Path, rules), "reward_model.rules")


@asynccontextmanager
async def _means(section: RunSection) -> AsyncIterator[Means]:
    async with AsyncExitStack() as opened:
        if section.target is None:
            yield Means(modules=run_modules(section.rules), patience=section.patience_s)
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
        )


@asynccontextmanager
async def _static(section: RunSection, means: Means) -> AsyncIterator[Scorer]:
    assert section.served_name is not None and section.engine is not None
    scoring = Scoring.model_validate(section.scoring)
    speech = Chat(judge_of(scoring), section.served_name, scoring.sampling, EngineName(section.engine))
    transport = AiohttpTransport()
    try:
        endpoints, told = StaticEndpoints(section.endpoints), means.told(section.judge)
        async with opened_functions(scoring, means, f"{STATIC_SCORING}.") as around:
            yield Scorer(scoring, section.served_name, endpoints, transport, speech=speech, told=told, around=around)
    finally:
        await transport.close()
