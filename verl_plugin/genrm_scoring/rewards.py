"""A RewardModel or RewardFleet as a function, for programs that are no services and have no event loop of ours.

    rewards = rewards_of_cluster("team", "rl")
    scores = rewards.score([Sample("What is 6 x 7?", "42", reference="42")])

While a call is on its way the models behind it are held awake by a Lease; between calls they may sleep. `frameworks`
makes of it what training frameworks want to call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel

from genrm_scoring import spec_file
from genrm_scoring.cluster_code import approved_code
from genrm_scoring.errors import ConfigurationError, GenrmError
from genrm_scoring.fleet_leases import FleetLease, own_name, run_leases
from genrm_scoring.gathering import PATIENCE
from genrm_scoring.loop_thread import LoopThread
from genrm_scoring.modules import modules_in
from genrm_scoring.resolve import resolve_target
from genrm_scoring.run_policy import policy_of, under, written_out
from genrm_scoring.sources import Source
from genrm_scoring.targets import Means, key_in, opened_target
from genrm_scoring.types import Sample, Score

OPEN_SECONDS: Final = 60.0
"""For the target to be found and opened; a rule's process imports what it needs."""


@dataclass(frozen=True, slots=True)
class Opened:
    source: Source
    lease: FleetLease | None = None


Open = Callable[[], AbstractAsyncContextManager[Opened]]
Files = Path | str | Sequence[Path | str] | None


class Rewards:
    """Lives in a thread of its own, from its making to `close` or the end of the program.

    Raises:
        GenrmError: what it is made of cannot be opened.
    """

    def __init__(self, opening: Open) -> None:
        self._there = LoopThread("genrm-rewards", opening)
        self._opened = self._there.open(OPEN_SECONDS)

    def score(self, samples: Sequence[Sample], groups: Sequence[Hashable] | None = None) -> list[Score]:
        """The scores of some samples, in their order; waits for them.

        Args:
            groups: one key for each sample; those with the same key are judged among each other. Default: by prompt.

        Raises:
            RunStopped: a failure under policy raise.
            ConfigurationError: the samples lack what is asked about.
        """
        return self._ask(samples, groups).result()

    async def ascore(self, samples: Sequence[Sample], groups: Sequence[Hashable] | None = None) -> list[Score]:
        """The same in an event loop of any kind."""
        return await asyncio.wrap_future(self._ask(samples, groups))

    def close(self) -> None:
        self._there.close()

    def _ask(
        self, samples: Sequence[Sample], groups: Sequence[Hashable] | None
    ) -> concurrent.futures.Future[list[Score]]:
        keys = [sample.question for sample in samples] if groups is None else groups
        if len(keys) != len(samples):
            raise ValueError(f"{len(keys)} groups for {len(samples)} samples; give each sample one")
        return self._there.ask(self._score(samples, keys))

    async def _score(self, samples: Sequence[Sample], keys: Sequence[Hashable]) -> list[Score]:
        opened = self._opened
        members: dict[Hashable, list[int]] = {}
        for place, key in enumerate(keys):
            members.setdefault(key, []).append(place)
        async with AsyncExitStack() as awake:
            if opened.lease is not None:
                await awake.enter_async_context(opened.lease.scoring())
            try:
                async with asyncio.TaskGroup() as judged:  # who raises ends the questions about the others
                    found = [
                        judged.create_task(opened.source.scores([samples[place] for place in places]))
                        for places in members.values()
                    ]
            except* GenrmError as failed:
                raise failed.exceptions[0] from None
        scores: dict[int, Score] = {}
        for places, group in zip(members.values(), found, strict=True):
            scores.update(zip(places, group.result(), strict=True))
        return [scores[place] for place in range(len(samples))]


def rewards_of_file(
    path: Path | str,
    name: str | None = None,
    *,
    rules: Files = (),
    secrets: Path | str | None = None,
    patience: float = PATIENCE,
    on_failure: Mapping[str, Any] | None = None,
) -> Rewards:
    """Of a file of resources, as `genrm-gateway --spec` takes it: rules and endpoints, no cluster.

    Args:
        name: which of them; default: the only fleet, or the only thing there is.
        rules: Python file, or several, with the functions of rules of kind python and those around models.
        secrets: folder with the endpoints' keys, SECRET/KEY.
        on_failure: what a score that fails means here, in the words of a resource's onFailure and in its place; in a
            fleet, in place of every term's too (`run_policy`).

    Raises:
        ConfigurationError
    """
    found = spec_file.read(Path(path))
    if (chosen := name or found.only) is None or chosen not in found.names:
        raise ConfigurationError("name", f"found {name!r}; write one of {', '.join(found.names)}")
    policy = None if on_failure is None else policy_of(on_failure, "on_failure")
    resource: RewardModel | RewardFleet = found.fleets.get(chosen) or found.models[chosen]
    means = replace(means_of(rules, secrets, patience), model=found.model)

    @asynccontextmanager
    async def opening() -> AsyncIterator[Opened]:
        async with opened_target(under(resource, policy), means) as source:
            yield Opened(source)

    return Rewards(opening)


def rewards_of_cluster(
    name: str,
    namespace: str | None = None,
    *,
    run: str | None = None,
    rules: Files = (),
    secrets: Path | str | None = None,
    allow_cluster_code: Collection[str] = (),
    patience: float = PATIENCE,
    prewake: bool = False,
    on_failure: Mapping[str, Any] | None = None,
) -> Rewards:
    """Of the RewardModel or RewardFleet `name`; the rest as for `rewards_of_file`.

    Args:
        namespace: default: that of the credentials.
        run: names this process among those that need the models; default: by host and process.
        allow_cluster_code: SHA-256 of code in ConfigMaps that may run here.
        prewake: wake them ahead of each call, by how long the pauses before it took.

    Raises:
        RewardModelError, ClusterError, ConfigurationError
    """
    from genrm_scoring.kubernetes import connect

    means = means_of(rules, secrets, patience)
    policy = None if on_failure is None else policy_of(on_failure, "on_failure")

    @asynccontextmanager
    async def opening() -> AsyncIterator[Opened]:
        async with connect() as cluster:
            resource, models = await resolve_target(cluster, name, namespace)
            by_name = {model.name: model for model in models}
            code = await approved_code(cluster, resource, allow_cluster_code, "allow_cluster_code", models)
            found = replace(means, cluster=cluster, model=by_name.__getitem__, code=code)
            async with (
                run_leases(cluster, run or own_name(), models, prewake=prewake) as lease,
                opened_target(under(resource, policy), found) as source,
            ):
                yield Opened(source, lease)

    return Rewards(opening)


def rewards_from(environment: Mapping[str, str]) -> Rewards:
    """By GENRM_SPEC (a file) or GENRM_TARGET (of a cluster, NAME or NAMESPACE/NAME); GENRM_RULES (files, with `:`
    between them), GENRM_SECRETS and GENRM_ON_FAILURE (as in YAML, `{policy: value, value: -1}`) where they need them.
    For files that a framework loads by their path.

    Raises:
        GenrmError
    """
    rules, keys = environment.get("GENRM_RULES", "").split(os.pathsep), environment.get("GENRM_SECRETS")
    rules = [path for path in rules if path]
    policy = _policy_from(environment.get("GENRM_ON_FAILURE"))
    target = environment.get("GENRM_TARGET")
    if (path := environment.get("GENRM_SPEC")) is not None:
        return rewards_of_file(path, target, rules=rules, secrets=keys, on_failure=policy)
    if target is None:
        raise ConfigurationError(
            "GENRM_TARGET", "missing; write the name of a RewardModel or RewardFleet, or GENRM_SPEC"
        )
    namespace, _, name = target.rpartition("/")
    run = environment.get("GENRM_RUN")
    return rewards_of_cluster(name, namespace or None, run=run, rules=rules, secrets=keys, on_failure=policy)


def _policy_from(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError:
        written = text
    return written_out(policy_of(written, "GENRM_ON_FAILURE"))


def means_of(rules: Files, secrets: Path | str | None, patience: float) -> Means:
    """
    Raises:
        ConfigurationError: a file of rules cannot be read.
    """
    files = [rules] if isinstance(rules, Path | str) else rules or ()
    means = Means(modules=modules_in(map(Path, files), "rules"), patience=patience)
    return means if secrets is None else replace(means, key=key_in(Path(secrets)))
