"""Before anything expensive starts: does what the run asks for exist, may the run use it, and can it be carried out?

Runs in the driver, before Ray. Whatever is wrong is one error with one sentence, within seconds: every call of a
Cluster has its deadline, and there are only a few of them. What the run is scored by is opened once, as each of its
processes will, and closed again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from genrm_api.labels import labels_in
from genrm_api.names import headless_service_name
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel, Scoring
from genrm_scoring.around import Around
from genrm_scoring.cluster import ENDPOINT_SLICES, Cluster
from genrm_scoring.cluster_code import approved_code
from genrm_scoring.discovery import serving_endpoints
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.errors import ClusterUnreachable, ConfigurationError
from genrm_scoring.judges import judge_of
from genrm_scoring.labels import refuse_labels_that_it_splits
from genrm_scoring.lease_thread import Connect
from genrm_scoring.resolve import resolve_target
from genrm_scoring.run_policy import in_words, policies_of, written_out
from genrm_scoring.targets import (
    opened_target,
    refuse_state,
    remembers,
    scoring_drops_samples,
    scoring_needs_siblings,
)
from genrm_scoring.template_files import with_template
from genrm_scoring.transport import AiohttpTransport
from pydantic import ValidationError

from genrm_verl.opening import STATIC_SCORING, means_of, run_modules
from genrm_verl.target import Target
from genrm_verl.translate import RewardRequest, RunSection

SECONDS: Final = 5.0
"""For what the cluster is asked: with the Lease's own, less than the ten seconds within which a run without a cluster
has ended."""
OPEN_SECONDS: Final = 60.0
"""For what the run brings itself: a rule's file may import half a framework."""


def run_id(experiment: str) -> str:
    """A name for this run that nobody else has."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)[:80].strip("-") or "run"
    return f"{readable}-{secrets.token_hex(4)}"


def announce(request: RewardRequest) -> str:
    """What the plugin is about to do."""
    if request.discovery == "k8s":
        return (
            f"looking for RewardModel or RewardFleet {request.name} in {request.namespace or 'the default namespace'}"
        )
    return f"rewards come from {', '.join(request.endpoints)}"


def static_section(request: RewardRequest, run: str, workers: int) -> RunSection:
    """
    Args:
        workers: reward workers of the run.

    Raises:
        ConfigurationError: `reward_model.scoring` is not what `spec.scoring` may be, or cannot work.
    """
    own = None if request.on_failure is None else written_out(request.on_failure)
    try:
        written = with_template(request.scoring, Path.cwd(), STATIC_SCORING)
        scoring = Scoring.model_validate({**written, **({} if own is None else {"onFailure": own})})
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(["reward_model.scoring", *map(str, first["loc"])])
        raise ConfigurationError(field, first["msg"]) from None
    try:
        judge_of(scoring)
    except ConfigurationError as e:
        raise ConfigurationError(f"reward_model.{e.field}", e.sentence) from None
    Around(scoring, run_modules(request.rules), {}, f"{STATIC_SCORING}.")  # says which of its functions is not there
    if labels_in(scoring):
        asyncio.run(_refuse_labels(request, scoring))
    return RunSection(
        run=run,
        discovery="static",
        rules=request.rules,
        served_name=request.served_name,
        engine=request.engine,
        scoring=scoring.model_dump(mode="json", by_alias=True, exclude_none=True),
        endpoints=request.endpoints,
        judgement_log=request.judgement_log,
        on_failure=own,
        breaker=dict(request.breaker),
        patience_s=request.patience_s,
        coordinators=workers if scoring_needs_siblings(scoring) or scoring_drops_samples(scoring) else 0,
        settles=scoring_drops_samples(scoring),
    )


async def _refuse_labels(request: RewardRequest, scoring: Scoring) -> None:
    """
    Raises:
        ConfigurationError: the model takes a label apart that it is to say in one token.
    """
    endpoints, transport = StaticEndpoints(request.endpoints), AiohttpTransport()
    field = "reward_model.scoring.parse.values"
    try:
        await refuse_labels_that_it_splits(scoring, request.served_name or "", endpoints, transport, field)
    finally:
        await transport.close()


def cluster_section(connect: Connect, request: RewardRequest, run: str, workers: int) -> tuple[RunSection, Target, str]:
    """Ask the cluster; also return what was found, and the sentence that says so.

    Raises:
        GenrmError
    """
    return asyncio.run(_ask(connect, request, run, workers))


async def _ask(connect: Connect, request: RewardRequest, run: str, workers: int) -> tuple[RunSection, Target, str]:
    async with AsyncExitStack() as stack:
        where = "KUBECONFIG"
        try:
            async with asyncio.timeout(SECONDS):
                cluster = await stack.enter_async_context(connect())
                where = cluster.where
                assert request.name is not None
                resource, models = await resolve_target(cluster, request.name, request.namespace)
                if isinstance(resource, RewardFleet) and request.state is None:
                    refuse_state(resource, "which needs trainer.use_v1=True")
                approved = request.allow_cluster_code
                code = await approved_code(cluster, resource, approved, "reward_model.allow_cluster_code", models)
                target = Target(resource, models, code, request.on_failure)
                serving = [await _serving(cluster, model) for model in target.models]
        except TimeoutError:
            raise ClusterUnreachable(where, f"no answer within {SECONDS:.0f} s") from None
        means = means_of(target, cluster, rules=request.rules, secrets=request.secrets, patience=request.patience_s)
        try:
            async with asyncio.timeout(OPEN_SECONDS), opened_target(target.scored_by, means, keeps_state=True):
                pass
        except TimeoutError:
            where = f"{target.resource.kind} {target.namespace}/{target.name}"
            sentence = f"not ready within {OPEN_SECONDS:.0f} s; see what the files of its rules do when imported"
            raise ConfigurationError(where, sentence) from None
    learns = isinstance(resource, RewardFleet) and remembers(resource)
    section = RunSection(
        run=run,
        discovery="k8s",
        name=target.name,
        namespace=target.namespace,
        target=target.text(),
        rules=request.rules,
        secrets=request.secrets,
        judgement_log=request.judgement_log,
        on_failure=None if request.on_failure is None else written_out(request.on_failure),
        breaker=_breaker(request, target),
        patience_s=request.patience_s,
        coordinators=_coordinators(target, workers),
        settles=target.drops_samples,
        state=request.state if learns else None,
        resumed_state=request.resumed_state if learns else None,
        lease_ttl_s=request.lease_ttl_s,
        prewake=request.prewake,
    )
    return section, target, describe(target, serving)


def _breaker(request: RewardRequest, target: Target) -> dict[str, Any]:
    """The fleet's, and over it what the run writes; a RewardModel has none of its own."""
    if not isinstance(target.resource, RewardFleet):
        return dict(request.breaker)
    fleets = target.resource.spec.breaker.model_dump(mode="json", by_alias=True)
    return {**fleets, **request.breaker}


def _coordinators(target: Target, workers: int) -> int:
    if isinstance(target.resource, RewardFleet) and remembers(target.resource):
        return 1  # one state of the run is in one place
    return workers if target.needs_siblings or target.drops_samples else 0


async def _serving(cluster: Cluster, model: RewardModel) -> int:
    """How many pods serve now; also proves that this user may read the endpoints."""
    if model.spec.is_external:
        return 0
    selector = f"kubernetes.io/service-name={headless_service_name(model.name)}"
    return len(serving_endpoints((await cluster.list(ENDPOINT_SLICES, model.namespace, selector)).items))


def describe(target: Target, serving: list[int]) -> str:
    models = "; ".join(_describe(model, count) for model, count in zip(target.models, serving, strict=True))
    otherwise = _described_policy(target)
    if not isinstance(target.resource, RewardFleet):
        return f"rewards come from {models}{otherwise}"
    terms = ", ".join(term.name for term in target.resource.spec.terms)
    behind = f"; behind it {models}" if models else ""
    return f"rewards come from RewardFleet {target.namespace}/{target.name}: terms {terms}{behind}{otherwise}"


def _described_policy(target: Target) -> str:
    if target.run_policy is None:
        return ""
    theirs = policies_of(target.resource)
    known = ", ".join(
        f"{in_words(policy)} of term {name}" if name else in_words(policy) for name, policy in theirs.items()
    )
    return f"; a score that fails: {in_words(target.run_policy)}, by reward_model.on_failure in place of {known}"


def _describe(model: RewardModel, serving: int) -> str:
    if (external := model.spec.external) is not None:
        return f"RewardModel {model.namespace}/{model.name}: {external.url}"
    phase = (model.status and model.status.phase) or "not seen by the operator yet"
    assert model.spec.model is not None
    engine = (model.status and model.status.engine) or model.spec.engine.name.value
    return (
        f"RewardModel {model.namespace}/{model.name}: model {model.served_name} ({model.spec.model.uri}), engine "
        f"{engine}, {model.spec.replicas} replicas, {serving} serving now, {phase}"
    )
