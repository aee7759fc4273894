"""The names that requests ask for, and what scores them: out of a file at the start, or of the cluster when asked.

What the cluster says of a name is asked again every `REFRESH_SECONDS`. A resource that was changed is opened anew;
requests that are under way end on what they began with. While the API server is away what was known stays in use:
engines do not stop because the control plane does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from genrm_api.answer_rules import RuleKind
from genrm_api.external import WireFormat
from genrm_api.lifecycle import LifecycleState
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_api.terms import Term
from genrm_scoring.arrivals import Arrivals, arrivals_of
from genrm_scoring.cluster import REWARD_MODELS, Cluster
from genrm_scoring.cluster_code import approved_code
from genrm_scoring.errors import ClusterUnreachable, ConfigurationError, LabelsSplit, NoSuchRewardModel
from genrm_scoring.judges import writes
from genrm_scoring.resolve import resolve_target
from genrm_scoring.sources import Source
from genrm_scoring.spec_file import SpecFile
from genrm_scoring.speech import REWARD_SERVERS
from genrm_scoring.targets import (
    Means,
    Reached,
    opened_fleet,
    reached,
    refuse_state,
    say_that_nothing_breaks,
    source_of,
)
from genrm_scoring.types import Sample, Score
from pydantic import ValidationError

from genrm_gateway.demand import LINGER_SECONDS, Demand
from genrm_gateway.relay import Relay

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 30.0
_ARE_TOLD: Final = (WireFormat.GET_REWARD, WireFormat.GET_REWARD2)
"""Reward servers that are sent all of a sample's `extra`, as functions of users are."""


@dataclass(slots=True)
class Target:
    """A RewardModel or RewardFleet that is ready to score. `models` are the RewardModels behind it."""

    name: str
    resource: RewardModel | RewardFleet
    source: Source
    arrivals: Arrivals
    """The same for responses that come one by one."""
    models: Sequence[RewardModel]
    demands: Sequence[Demand] = ()
    relay: Relay | None = None
    """Of a RewardModel."""
    principled: bool = False
    """Whether somebody behind it is told a sample's `extra.principle`."""
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)
    _users: int = 0
    _replaced: bool = False

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """It stays open, and its models awake, while somebody is inside."""
        self._users += 1
        try:
            async with AsyncExitStack() as needed:
                for demand in self.demands:
                    needed.enter_context(demand.needed())
                yield
        finally:
            self._users -= 1
            if self._replaced and not self._users:
                await self._opened.aclose()

    async def retire(self) -> None:
        self._replaced = True
        if not self._users:
            await self._opened.aclose()


class UnknownTarget(ConfigurationError):
    """Nothing of this name can be asked."""


class Catalog(Protocol):
    @property
    def default(self) -> str | None:
        """The name that is meant where a request names none."""
        ...

    async def find(self, name: str) -> Target:
        """
        Raises:
            UnknownTarget, ConfigurationError, ClusterError
        """
        ...

    async def models(self) -> Sequence[str]:
        """The RewardModels to which requests can be passed on as they are, by name.

        Raises:
            ClusterError
        """
        ...

    async def close(self) -> None: ...


class FileCatalog:
    """Everything in a file; use `open`."""

    def __init__(self, targets: dict[str, Target], default: str | None) -> None:
        self._targets = targets
        self.default = default

    @classmethod
    async def open(cls, spec: SpecFile, means: Means, default: str | None = None) -> FileCatalog:
        """
        Raises:
            ConfigurationError: something in it cannot be carried out as it says.
        """
        means = replace(means, model=spec.model)
        catalog = cls({}, default or spec.only)
        try:
            resources: list[RewardModel | RewardFleet] = [*spec.fleets.values(), *spec.models.values()]
            for resource in resources:
                catalog._targets[resource.name] = await _opened(resource, means, ())
            if default is not None and default not in catalog._targets:
                raise ConfigurationError("--default", f"{default} is not there; there are {', '.join(spec.names)}")
        except BaseException:
            await catalog.close()
            raise
        return catalog

    async def find(self, name: str) -> Target:
        try:
            return self._targets[name]
        except KeyError:
            raise UnknownTarget("target", f"{name} is not there; there are {', '.join(self._targets)}") from None

    async def models(self) -> Sequence[str]:
        resources = (target.resource for target in self._targets.values())
        return sorted(r.name for r in resources if isinstance(r, RewardModel) and _is_asked_as_it_is(r))

    async def close(self) -> None:
        for target in self._targets.values():
            await target.retire()


class ClusterCatalog:
    """RewardFleets and RewardModels of one namespace; of one name the model is meant."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        means: Means,
        run: str,
        default: str | None = None,
        opened: AsyncExitStack | None = None,
        refresh: float = REFRESH_SECONDS,
        linger: float = LINGER_SECONDS,
        allow_cluster_code: Collection[str] = (),
    ) -> None:
        """`run` names this process among those that need models; `opened` is closed with the catalog.

        `allow_cluster_code`: SHA-256 of code in ConfigMaps that may run here.
        """
        self._refresh, self._linger = refresh, linger
        self._cluster, self._namespace, self._means, self._run = cluster, namespace, means, run
        self._allowed = allow_cluster_code
        self.default = default
        self._opened = opened or AsyncExitStack()
        self._known: dict[str, tuple[Target, float]] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._demands: dict[str, Demand] = {}

    async def find(self, name: str) -> Target:
        now = asyncio.get_running_loop().time()
        if (known := self._known.get(name)) is not None and now < known[1]:
            return known[0]
        async with self._asking.setdefault(name, asyncio.Lock()):
            known = self._known.get(name)
            if known is None or now >= known[1]:
                target = await self._there_or_as_known(name, None if known is None else known[0])
                known = self._known[name] = (target, asyncio.get_running_loop().time() + self._refresh)
            return known[0]

    async def _there_or_as_known(self, name: str, before: Target | None) -> Target:
        try:
            return await self._asked(name, before)
        except BaseException as e:
            if name not in self._known:
                self._asking.pop(name, None)  # clients may think of any number of names
            if before is None or not isinstance(e, ClusterUnreachable):
                raise
            log.warning("%s is asked as it was known: %s", name, e)
            return before

    async def models(self) -> Sequence[str]:
        listing = await self._cluster.list(REWARD_MODELS, self._namespace)
        found = []
        for item in listing.items:
            with suppress(ValidationError):  # who asks for it by name is told what is wrong with it
                found.append(RewardModel.model_validate(dict(item)))
        return sorted(model.name for model in found if _is_asked_as_it_is(model))

    async def close(self) -> None:
        for target, _ in self._known.values():
            await target.retire()
        await asyncio.gather(*(demand.close() for demand in self._demands.values()))
        await self._opened.aclose()

    async def _asked(self, name: str, before: Target | None) -> Target:
        try:
            resource, models = await resolve_target(self._cluster, name, self._namespace)
        except NoSuchRewardModel as e:
            if before is not None:
                del self._known[name]
                await before.retire()
            raise UnknownTarget("target", str(e)) from None
        if before is not None and _same(before, resource, models):
            return before
        by_name = {model.name: model for model in models}
        code = await approved_code(self._cluster, resource, self._allowed, "--allow-cluster-code", models)
        means = replace(self._means, cluster=self._cluster, model=by_name.__getitem__, code=code)
        target = await _opened(resource, means, models, [self._demand(m) for m in models if m.spec.external is None])
        if before is not None:
            await before.retire()
        return target

    def _demand(self, model: RewardModel) -> Demand:
        """One for each model, whatever names lead to it."""
        uid = str(model.metadata.get("uid"))
        if uid not in self._demands:
            self._demands[uid] = Demand(self._cluster, model, self._run, self._linger)
        return self._demands[uid]


async def _opened(
    resource: RewardModel | RewardFleet, means: Means, models: Sequence[RewardModel], demands: Sequence[Demand] = ()
) -> Target:
    opened = AsyncExitStack()
    relay = None
    try:
        if isinstance(resource, RewardFleet):
            refuse_state(resource)
            say_that_nothing_breaks(resource)
            source: Source = await opened.enter_async_context(opened_fleet(resource, means))
            principled = any(_term_is_told(term, means) for term in resource.spec.terms)
        else:
            models, way = (resource,), await opened.enter_async_context(reached(resource, means))
            source, relay = _source_of(resource, way, means.patience), Relay(resource, way)
            principled = _model_is_told(resource)
    except BaseException:
        await opened.aclose()
        raise
    arrivals = arrivals_of(source, means.patience)
    opened.push_async_callback(arrivals.close)
    return Target(resource.name, resource, source, arrivals, models, demands, relay, principled, opened)


class _Unread:
    """The scores of a model whose labels nobody can read: whoever passes its judge by is answered all the same."""

    def __init__(self, why: LabelsSplit) -> None:
        self._why = why

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        """
        Raises:
            LabelsSplit: always.
        """
        raise LabelsSplit(self._why.field, self._why.sentence)

    async def close(self) -> None:
        pass


def _source_of(rm: RewardModel, way: Reached, patience: float) -> Source:
    try:
        return source_of(rm, way, patience)
    except LabelsSplit as e:
        return _Unread(e)


def _is_asked_as_it_is(model: RewardModel) -> bool:
    """Whether it is an engine, or answers like one, and may be awake."""
    if model.spec.lifecycle.state in (LifecycleState.ASLEEP, LifecycleState.OFF):
        return False
    return model.spec.external is None or model.spec.external.format not in REWARD_SERVERS


def _model_is_told(model: RewardModel) -> bool:
    if model.spec.external is not None and model.spec.external.format in _ARE_TOLD:
        return True
    if model.spec.type is RewardModelType.CLASSIFIER and model.spec.scoring.preprocess is None:
        return False
    return writes(model.spec.scoring, "principle")


def _term_is_told(term: Term, means: Means) -> bool:
    if term.reward_model is not None:
        return term.has_functions or _model_is_told(means.model(term.reward_model.name))
    if term.api is not None:
        return term.api.format.value in _ARE_TOLD
    return term.rule is not None and term.rule.kind is RuleKind.PYTHON


def _same(before: Target, resource: RewardModel | RewardFleet, models: Sequence[RewardModel]) -> bool:
    was = (before.resource, *before.models)
    return [_version(r) for r in was] == [_version(r) for r in (resource, *models)]


def _version(resource: RewardModel | RewardFleet) -> tuple[object, object]:
    return resource.metadata.get("uid"), resource.metadata.get("generation")
