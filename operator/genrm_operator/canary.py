"""Whether an engine computes what engines like it computed before: asked before it serves, through its closed door.

The first of a kind records (`golden`), and is believed: there is nobody to ask. Who comes later is compared, after a
start with every row, after a wake of a generative model with one at random. Who differs does not serve.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.effective import effective_spec
from genrm_api.names import golden_configmap_name
from genrm_api.rewardmodel import RewardModel, RewardModelType

from genrm_operator import golden
from genrm_operator.calls import Answer
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import EngineError, NotFound, ScoresDiffer
from genrm_operator.golden import Golden, Row, Values
from genrm_operator.kube import Kube
from genrm_operator.observed import Check, Pod
from genrm_operator.pinning import Pin

log = logging.getLogger(__name__)

ROW_SECONDS: Final = 30.0
"""For one answer: a text of 150 tokens takes milliseconds on a GPU."""

Ask = Callable[[Call], Awaitable[Answer]]


@dataclass(slots=True)
class Recordings:
    """What the operator knows of one RewardModel's golden rows. Losing it costs a call to the API server."""

    by_key: dict[str, Golden] | None = None
    """None: not read yet."""
    digest: str | None = None
    checks: dict[str, Check] = field(default_factory=dict)
    """By uid of the pod."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Two pods of a new kind start together: one records, the other compares."""


@dataclass(frozen=True, slots=True)
class Canary:
    """For one RewardModel, as it is now."""

    kube: Kube
    rm: RewardModel
    adapter: Adapter
    known: Recordings
    revision: str | None
    """Of the weights, where that is known."""

    def is_due(self, pod: Pod) -> bool:
        """Whether this engine has to answer before it serves: it has slept, or nobody has asked it in this boot."""
        check = self.known.checks.get(pod.uid)
        return check is None or not check.fine or not check.fresh or check.boot_id != _boot(pod)

    def sleeps(self, pod: Pod) -> None:
        """What was found before says nothing of what comes after."""
        if (check := self.known.checks.get(pod.uid)) is not None:
            self.known.checks[pod.uid] = dataclasses.replace(check, fresh=False)

    async def ask(self, pod: Pod, ask: Ask, longest: int | None, *, woken: bool) -> None:
        """Compare with the recording, or make it.

        Args:
            ask: carries out a call to the engine.
            longest: tokens that the model takes, if it says so.
            woken: it answered all rows when it started.

        Raises:
            ScoresDiffer: it computes something else.
            EngineError: it did not answer.
            ApiError: the recordings cannot be read.
        """
        found = golden.facts(self.rm, pod, self.revision)
        key = golden.key(found)
        async with self.known.lock:
            by_key = await self._load()
            recorded = by_key.get(key)
            if recorded is None:
                await self._record(by_key, key, found, pod, ask, longest)
                return
        every = range(len(recorded.rows))
        one = woken and self.rm.spec.type is RewardModelType.GENERATIVE
        for index in [random.choice(every)] if one else every:
            await self._compare(recorded, index, pod, ask, longest)
        self._found(pod, fine=True, message=f"answers as pod {recorded.pod} did at {recorded.recorded_at}")
        if not recorded.agreed and recorded.boot_id != _boot(pod):
            async with self.known.lock:
                by_key[key] = dataclasses.replace(by_key.get(key, recorded), agreed=True)
                await self._save(by_key)

    async def _compare(self, recorded: Golden, index: int, pod: Pod, ask: Ask, longest: int | None) -> None:
        row, kind = recorded.rows[index], self.rm.spec.type
        values = await self._values(index, ask, longest)
        apart, limit = golden.distance(row.values, values), golden.allowed(row, kind)
        if apart <= limit:
            return
        who = "" if recorded.agreed else ", which no other engine has confirmed"
        message = (
            f"computes other scores than pod {recorded.pod} did at {recorded.recorded_at}{who}: text {index} gives "
            f"{golden.shown(values)}, and gave {golden.shown(row.values)}; {apart:.3g} apart on average, {limit:.3g} "
            f"are allowed. It does not serve. If the new ones are right, delete ConfigMap {self.name}"
        )
        self._found(pod, fine=False, message=message)
        raise ScoresDiffer(pod.name, message)

    async def _record(
        self,
        by_key: dict[str, Golden],
        key: str,
        found: Mapping[str, str | None],
        pod: Pod,
        ask: Ask,
        longest: int | None,
    ) -> None:
        texts = range(len(golden.TEXTS))
        try:
            repeats = [[await self._values(i, ask, longest) for i in texts] for _ in range(golden.REPEATS)]
        except EngineError as error:
            if error.status is None or not 400 <= error.status < 500:
                raise
            # Not a sick engine, but one that has no such answers: some are built without log-probabilities.
            self._found(pod, fine=True, message=f"cannot be compared, and serves: {error}", compared=False)
            return
        rows = tuple(Row.of([once[i] for once in repeats]) for i in texts)
        if not all(map(golden.usable, rows)):
            message = f"computes no numbers: {', '.join(golden.shown(row.values) for row in rows)}"
            self._found(pod, fine=False, message=message)
            raise ScoresDiffer(pod.name, message)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        by_key[key] = Golden(found, pod.name, _boot(pod), at, rows)
        await self._save(by_key)
        self._found(pod, fine=True, message=f"recorded ConfigMap {self.name} at {at}; nobody was there to compare with")

    async def _values(self, index: int, ask: Ask, longest: int | None) -> Values:
        call = self.adapter.golden_row(self.rm, golden.text(index, longest), secrets.token_hex(8))
        assert call is not None, "who has no rows has no canary"
        answer = await ask(call)
        try:
            return golden.rounded(self.adapter.golden_values(answer.json()))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
            return ()  # an answer without numbers in it is no row, and no engine computes the same

    def _found(self, pod: Pod, *, fine: bool, message: str, compared: bool = True) -> None:
        self.known.checks[pod.uid] = Check(_boot(pod), fine, message, compared=compared)
        level = logging.INFO if fine else logging.WARNING
        log.log(level, "canary namespace=%s pod=%s %s", pod.namespace, pod.name, message)

    # -- the ConfigMap

    @property
    def name(self) -> str:
        return golden_configmap_name(self.rm.name)

    async def _load(self) -> dict[str, Golden]:
        if self.known.by_key is None:
            try:
                obj: Mapping[str, Any] = await self.kube.get("ConfigMap", self.rm.namespace, self.name)
            except NotFound:
                self.known.by_key = {}
                return self.known.by_key
            read = golden.read(obj)
            if read is None:
                log.warning("somebody changed ConfigMap %s/%s: recorded anew", self.rm.namespace, self.name)
            self.known.by_key, self.known.digest = read or {}, golden.digest(obj.get("data") or {})
        return self.known.by_key

    async def _save(self, by_key: dict[str, Golden]) -> None:
        manifest = golden.config_map(self.rm, by_key)
        await self.kube.apply(manifest)
        self.known.digest = golden.digest(manifest["data"])


def canary_of(
    kube: Kube,
    rm: RewardModel,
    adapter: Adapter,
    known: Recordings,
    pin: Pin | None,
    children: Container[tuple[str, str]],
) -> Canary | None:
    """The canary of a model whose engines can be compared, and are to be.

    Args:
        children: (kind, name) of what exists for it.
    """
    if not effective_spec(rm).lifecycle.verify_wake or adapter.golden_row(rm, "", "") is None:
        return None
    canary = Canary(kube, rm, adapter, known, pin.revision if pin else None)
    if ("ConfigMap", canary.name) not in children:
        known.by_key = None  # somebody deleted it, so that it is recorded anew; or the watch is behind
    return canary


def _boot(pod: Pod) -> str:
    return "" if pod.door is None else pod.door.boot_id
