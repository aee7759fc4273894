"""From a resource to what scores: its endpoints, keys, workers and terms, opened together and closed together.

    async with opened_fleet(fleet, Means(cluster=cluster)) as source:
        scores = await source.scores(samples)

Where a resource cannot be carried out as it says, opening it fails, and names the field.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from genrm_api.answer_rules import AnswerRule, RuleKind
from genrm_api.comparing import Normalise, ScoringMode
from genrm_api.external import ROUTES, EndpointKeyRef, WireFormat
from genrm_api.judging import FailurePolicy, OnFailure
from genrm_api.lifecycle import LifecycleState
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring
from genrm_api.terms import NormaliseScope, RewardApi, Term

from genrm_scoring.alone import own_of
from genrm_scoring.around import Around
from genrm_scoring.cluster import Cluster
from genrm_scoring.cluster_code import Code, as_term_says
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.endpoints import Endpoints, StaticEndpoints
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.gathering import PATIENCE
from genrm_scoring.groups import Reported
from genrm_scoring.judges import CritiqueThenScore
from genrm_scoring.labels import refuse_split_labels
from genrm_scoring.mixing import Mixture
from genrm_scoring.modules import Modules, found_function
from genrm_scoring.rankings import Listwise
from genrm_scoring.scorer import Scorer, Told
from genrm_scoring.similarity import Similarity
from genrm_scoring.sources import IN_A_WORKER, BuiltInRule, Critiqued, Pairwise, Pointwise, Source, WorkerRule
from genrm_scoring.speech import RewardServer, Speech, chat_with, speaks, speech_of
from genrm_scoring.transport import AiohttpTransport
from genrm_scoring.types import Judgement, Question

log = logging.getLogger(__name__)

Heard = Callable[[str, Question, Judgement], None]
"""Who was asked comes first: the term of a fleet, by its name, or else the RewardModel, by its own."""

_NO_KEYS: Final = "no keys are read here; start with --secrets, a folder with a folder for each Secret"


def _no_key(ref: EndpointKeyRef) -> str:
    raise ConfigurationError("credentialsSecretRef", f"{ref.name} is wanted, and {_NO_KEYS}")


def _no_model(name: str) -> RewardModel:
    raise ConfigurationError("spec.terms.rewardModel", f"{name} is not known here")


def key_in(folder: Path) -> Callable[[EndpointKeyRef], str]:
    """Reads keys as Secrets are mounted: `folder`/SECRET/KEY."""

    def read(ref: EndpointKeyRef) -> str:
        path = folder / ref.name / ref.key
        try:
            return path.read_text().strip()
        except OSError as e:
            raise ConfigurationError("credentialsSecretRef", f"{path} cannot be read: {e.strerror or e}") from e

    return read


@dataclass(frozen=True, slots=True)
class Means:
    """What resources are opened with.

    `key` reads an endpoint's key, and `model` finds the RewardModel that a term names; both raise ConfigurationError.
    `modules` are the run's own Python files; `code` is what was approved of ConfigMaps. `heard` hears of every question
    to a model or a reward API, and `reported` of every group that was compared.
    """

    cluster: Cluster | None = None
    key: Callable[[EndpointKeyRef], str] = _no_key
    model: Callable[[str], RewardModel] = _no_model
    modules: Modules = field(default_factory=dict)
    code: Code = field(default_factory=dict)
    patience: float = PATIENCE
    rule_processes: int = 1
    heard: Heard | None = None
    reported: Reported | None = None

    def told(self, who: str) -> Told | None:
        """What hears of the questions to one of them."""
        return None if self.heard is None else partial(self.heard, who)


@dataclass(frozen=True, slots=True)
class Reached:
    """The way to a RewardModel."""

    endpoints: Endpoints
    transport: AiohttpTransport
    told: Told | None = None
    reported: Reported | None = None
    around: Around | None = None


@asynccontextmanager
async def reached(
    rm: RewardModel, means: Means, term: str | None = None, functions: str | None = None
) -> AsyncIterator[Reached]:
    """
    Args:
        term: of a fleet, that the model is asked for.
        functions: what stands before those around the model in messages; default: its own spec.

    Raises:
        ConfigurationError: it sleeps by its owner's word, its key or a function is not there, or it is in no cluster
            that is asked.
        ClusterError
    """
    where = f"RewardModel {rm.name} spec"
    if (state := rm.spec.lifecycle.state) in (LifecycleState.ASLEEP, LifecycleState.OFF):
        sentence = f"is {state}, so no judgement would ever be answered; set it to Auto"
        raise ConfigurationError(f"{where}.lifecycle.state", sentence)
    key = None
    async with AsyncExitStack() as opened:
        if (external := rm.spec.external) is not None:
            endpoints: Endpoints = StaticEndpoints([external.url.removesuffix(ROUTES.get(external.format, ""))])
            key = None if external.credentials_secret_ref is None else means.key(external.credentials_secret_ref)
        elif means.cluster is not None:
            found = KubernetesEndpoints(means.cluster, rm.name, rm.namespace)
            endpoints = await opened.enter_async_context(found)
        else:
            sentence = f"{rm.spec.type} runs in a cluster, and none is asked; write External"
            raise ConfigurationError(f"{where}.type", sentence)
        transport = AiohttpTransport(key=key)
        opened.push_async_callback(transport.close)
        around = await opened.enter_async_context(
            opened_functions(rm.spec.scoring, means, functions or f"{where}.scoring.")
        )
        yield Reached(endpoints, transport, means.told(term or rm.name), means.reported, around)


@asynccontextmanager
async def opened_functions(scoring: Scoring, means: Means, where: str) -> AsyncIterator[Around | None]:
    """The functions that a `scoring` block names; None if it names none.

    Args:
        where: as for `Around`.

    Raises:
        ConfigurationError: one is not there.
    """
    if scoring.preprocess is None and scoring.postprocess is None:
        yield None
        return
    around = Around(scoring, means.modules, means.code, where, processes=means.rule_processes)
    try:
        yield around
    finally:
        await around.close()


def scorer_of(rm: RewardModel, way: Reached) -> Scorer:
    """What asks it single questions: about one response, in mode pairwise about two, in mode listwise about all.

    Raises:
        ConfigurationError: it cannot be asked as it says; LabelsSplit: by what is known of its tokenizer.
    """
    where = f"RewardModel {rm.name} spec"
    refuse_split_labels(rm)
    try:
        speech = speech_of(rm)
    except ConfigurationError as e:
        raise ConfigurationError(
            f"{where}.{e.field}" if e.field.startswith("scoring") else e.field, e.sentence
        ) from None
    return Scorer(
        rm.spec.scoring, rm.served_name, way.endpoints, way.transport, speech=speech, told=way.told, around=way.around
    )


def source_of(rm: RewardModel, way: Reached, patience: float = PATIENCE, *, in_fleet: bool = False) -> Source:
    """A RewardModel's scores; in a fleet without its own normalisation and failure policy, as the API says.

    Raises:
        ConfigurationError: it cannot be scored with as it says.
    """
    scoring = rm.spec.scoring
    if in_fleet:
        scoring = scoring.model_copy(update={"normalise": None, "on_failure": OnFailure()})
    return source_with(scoring, scorer_of(rm, way), patience, settles=not in_fleet, reported=way.reported)


def source_with(
    scoring: Scoring,
    scorer: Scorer,
    patience: float = PATIENCE,
    *,
    settles: bool = True,
    reported: Reported | None = None,
) -> Source:
    """What `scoring` makes of a scorer's answers.

    Args:
        settles: whether the scores of a group are normalised and their failures dealt with here.
        reported: hears of every group that was compared.
    """
    if scoring.mode is ScoringMode.PAIRWISE:
        return Pairwise(scoring, scorer.ask, patience, reported, own_of(scoring, scorer))
    if scoring.mode is ScoringMode.LISTWISE:
        return Listwise(scoring, scorer.ask_once, reported, own_of(scoring, scorer))
    return Pointwise(scorer, scoring if settles else None)


def needs_siblings(resource: RewardModel | RewardFleet) -> bool:
    """Whether a response's score depends on the other responses to its prompt."""
    return isinstance(resource, RewardFleet) or scoring_needs_siblings(resource.spec.scoring)


def scoring_needs_siblings(scoring: Scoring) -> bool:
    return (
        scoring.mode in (ScoringMode.PAIRWISE, ScoringMode.LISTWISE)
        or scoring.normalise not in (None, Normalise.NONE)
        or scoring.on_failure.policy
        in (FailurePolicy.GROUP_DROP, FailurePolicy.GROUP_MEAN, FailurePolicy.RAISE)  # the last stops the run
    )


def drops_samples(resource: RewardModel | RewardFleet) -> bool:
    """Whether a response may lose its score by itself, and so many may that their group has to be dropped."""
    return isinstance(resource, RewardModel) and scoring_drops_samples(resource.spec.scoring)


def scoring_drops_samples(scoring: Scoring) -> bool:
    return scoring.on_failure.policy is FailurePolicy.DROP and not scoring_needs_siblings(scoring)


@asynccontextmanager
async def opened_fleet(fleet: RewardFleet, means: Means) -> AsyncIterator[FleetScorer]:
    """
    Raises:
        ConfigurationError: a term cannot be carried out as it says.
        ClusterError
    """
    mixture = Mixture.of(fleet.spec)
    async with AsyncExitStack() as opened:
        sources: dict[str, Source] = {}
        for term in mixture.terms:
            source = await opened.enter_async_context(_opened_term(term, means))
            opened.push_async_callback(source.close)
            sources[term.name] = source
        yield FleetScorer(mixture, sources)


@asynccontextmanager
async def opened_target(
    resource: RewardModel | RewardFleet, means: Means, *, keeps_state: bool = False
) -> AsyncIterator[Source]:
    """What scores the responses to one prompt.

    Args:
        keeps_state: whether who opens it keeps what normalisation by all scores of a run has learned.

    Raises:
        ConfigurationError: it cannot be carried out as it says.
        ClusterError
    """
    if isinstance(resource, RewardFleet):
        if not keeps_state:
            refuse_state(resource)
            say_that_nothing_breaks(resource)
        async with opened_fleet(resource, means) as source:
            yield source
    else:
        async with reached(resource, means) as way:
            yield source_of(resource, way, means.patience)


def say_that_nothing_breaks(fleet: RewardFleet) -> None:
    """A breaker counts by step of training. Where samples come without one it would be left out in silence."""
    if "breaker" in fleet.spec.model_fields_set:
        log.warning(
            "RewardFleet %s spec.breaker: stops verl runs only; nobody tells here which step a sample is of, so look "
            "at the outcomes of the scores, or write onFailure.policy raise",
            fleet.name,
        )


def remembers(fleet: RewardFleet) -> bool:
    """Whether a term is normalised by all scores of a run so far."""
    scopes = (term.normalise.scope for term in fleet.spec.terms if term.normalise is not None)
    return NormaliseScope.RUNNING in scopes


def refuse_state(fleet: RewardFleet, why: str = "which is not kept here") -> None:
    """
    Raises:
        ConfigurationError: a term is normalised by all scores of a run so far.
    """
    for term in fleet.spec.terms:
        if term.normalise is not None and term.normalise.scope is NormaliseScope.RUNNING:
            raise ConfigurationError(
                f"RewardFleet {fleet.name} spec.terms {term.name} normalise.scope",
                f"running needs one state of the whole run, {why}; write group",
            )


@asynccontextmanager
async def _opened_term(term: Term, means: Means) -> AsyncIterator[Source]:
    if term.reward_model is not None:
        rm = as_term_says(term, means.model(term.reward_model.name))
        where = f"spec.terms {term.name} " if term.has_functions else None
        async with reached(rm, means, term.name, where) as way:
            if term.critic is None:
                yield source_of(rm, way, means.patience, in_fleet=True)
                return
            critic = _without_functions(means.model(term.critic.name))
            _can_be_together(term, critic, rm)
            async with reached(critic, means, f"{term.name} critic") as its_way:
                yield Critiqued(_critic_of(critic, its_way), scorer_of(rm, way))
    elif term.api is not None:
        transport = AiohttpTransport(key=_key_of(term.api, means))
        try:
            scoring = Scoring(timeout=term.api.timeout)
            speech, told = _api_speech(term.api), means.told(term.name)
            yield Pointwise(Scorer(scoring, "", StaticEndpoints([term.api.url]), transport, speech=speech, told=told))
        finally:
            await transport.close()
    else:
        assert term.rule is not None
        if term.rule.kind in IN_A_WORKER:
            source, filename = _module(term.rule, means, f"spec.terms {term.name} rule")
            yield WorkerRule(term.rule, processes=means.rule_processes, source=source, filename=filename)
        else:
            yield BuiltInRule(term.rule)


def _api_speech(api: RewardApi) -> Speech:
    if api.format.is_a_similarity:
        return Similarity(api.format, api.model or "")
    return RewardServer(WireFormat(api.format))


def _can_be_together(term: Term, critic: RewardModel, rm: RewardModel) -> None:
    """
    Raises:
        ConfigurationError: one of them is of the wrong kind.
    """
    if not speaks(critic):
        sentence = f"{critic.name} does not answer in words; name a Generative RewardModel"
        raise ConfigurationError(f"spec.terms {term.name} critic", sentence)
    if speaks(rm):
        sentence = f"{rm.name} is asked in words, and needs no critic; name a Classifier, or remove critic"
        raise ConfigurationError(f"spec.terms {term.name} rewardModel", sentence)


def _without_functions(rm: RewardModel) -> RewardModel:
    """A critic is asked by the critics' own prompt, and nobody reads a number out of what it says."""
    scoring = rm.spec.scoring.model_copy(update={"preprocess": None, "postprocess": None})
    return rm.model_copy(update={"spec": rm.spec.model_copy(update={"scoring": scoring})})


def _critic_of(rm: RewardModel, way: Reached) -> Scorer:
    """Its own judge and votes do not count: it is asked for a critique, once."""
    speech = chat_with(rm, CritiqueThenScore())
    return Scorer(rm.spec.scoring, rm.served_name, way.endpoints, way.transport, speech=speech, told=way.told)


def _key_of(api: RewardApi, means: Means) -> str | None:
    return None if api.credentials_secret_ref is None else means.key(api.credentials_secret_ref)


def _module(rule: AnswerRule, means: Means, where: str) -> tuple[str, str]:
    """The text of a rule's function, and where it is from.

    Raises:
        ConfigurationError
    """
    if rule.kind is not RuleKind.PYTHON or rule.function is None:
        return "", ""
    module = found_function(rule.function, rule.config_map, means.modules, means.code, where).module
    return module.source, module.filename
