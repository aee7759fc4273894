"""Whether an engine computes what it should: asked before it serves, through its closed door.

*Golden rows* (`golden`), with `lifecycle.wake.verify`: what engines like it computed before. The first of a kind
records, and is believed, because there is nobody to ask. Who comes later is compared, after a start with every row,
after a wake of a generative model with one at random. While no two pods agree, each start has a vote. *Pairs*
(`pairs`), where `scoring.canary` has some: what its user knows, all of them each time. Who differs does not serve.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from genrm_api.effective import effective_spec
from genrm_api.judging import CanaryPair
from genrm_api.names import golden_configmap_name
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_api.status import Reason

from genrm_operator import golden, pairs
from genrm_operator.calls import Answer
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import EngineError, NotFound, ScoresDiffer, WorsePreferred
from genrm_operator.golden import Golden, Row, Suspects, Values
from genrm_operator.kube import Kube
from genrm_operator.observed import WORST_FIRST, Check, Pod
from genrm_operator.pairs import Tokens
from genrm_operator.pinning import Pin

log = logging.getLogger(__name__)

ROW_SECONDS: Final = 30.0
"""For one answer: a text of 150 tokens takes milliseconds on a GPU."""

Ask = Callable[[Call], Awaitable[Answer]]
Finding = tuple[Reason, str]


@dataclass(slots=True)
class Recordings:
    """What the operator knows of one RewardModel's golden rows. Losing it costs a call to the API server."""

    by_key: dict[str, Suspects] | None = None
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
    rows: bool = True
    """Whether golden rows are asked for."""
    pairs: Sequence[CanaryPair] = ()

    def is_due(self, pod: Pod) -> bool:
        """Whether this engine has to answer before it serves: it has slept, others contradict it, or nobody has asked
        it in this boot."""
        check = self.known.checks.get(pod.uid)
        asked = check is not None and check.fine and check.fresh and check.boot_id == _boot(pod)
        return pod.outvoted or not asked

    def sleeps(self, pod: Pod) -> None:
        """What was found before says nothing of what comes after."""
        if (check := self.known.checks.get(pod.uid)) is not None:
            self.known.checks[pod.uid] = dataclasses.replace(check, fresh=False)

    async def ask(self, pod: Pod, ask: Ask, longest: int | None, *, woken: bool) -> None:
        """Have it answer all that it is asked for.

        Args:
            ask: carries out a call to the engine.
            longest: tokens that the model takes, if it says so.
            woken: it has slept since its start, or may have.

        Raises:
            ScoresDiffer: it computes something else than others like it.
            WorsePreferred: a pair comes out the wrong way.
            EngineError: it did not answer.
            ApiError: the recordings cannot be read.
        """
        found = [await self._ask_rows(pod, ask, longest, woken=woken)] if self.rows else []
        found += [await self._ask_pairs(pod, ask)] if self.pairs else []
        reason = min((reason for reason, _ in found), key=WORST_FIRST.index)
        self._found(pod, reason, "; ".join(said for _, said in found))

    # -- golden rows

    async def _ask_rows(self, pod: Pod, ask: Ask, longest: int | None, *, woken: bool) -> Finding:
        """Compare with the recording, or make it."""
        facts, kind = golden.facts(self.rm, pod, self.revision), self.rm.spec.type
        key = golden.key(facts)
        async with self.known.lock:
            by_key = await self._load()
            if (recordings := by_key.get(key)) is None:
                return await self._record(by_key, key, facts, pod, ask, longest)
        held_to = golden.believed(recordings)
        every = range(len(held_to.rows))
        check = self.known.checks.get(pod.uid)
        was_fine = check is not None and check.fine and check.boot_id == _boot(pod) and not pod.outvoted
        if woken and was_fine and kind is RewardModelType.GENERATIVE:
            one = random.choice(every)
            values = {one: await self._values(one, ask, longest)}
        else:
            values = {index: await self._values(index, ask, longest) for index in every}
            rows = tuple(Row(found, 0.0) for found in values.values())
            alike = any(golden.differs(recorded, values, kind) is None for recorded in recordings)
            if not (woken or held_to.agreed or alike):
                rows = await self._measure(ask, longest)  # others may be held to it some day
            recordings = await self._hear(key, self._recording(facts, pod, rows), woken=woken)
            held_to = golden.believed(recordings)
        if (index := golden.differs(held_to, values, kind)) is not None:
            self._refuse(pod, recordings, index, values[index])
        return self._standing(recordings)

    async def _hear(self, key: str, heard: Golden, *, woken: bool) -> Suspects:
        """Count its vote."""
        async with self.known.lock:
            by_key = await self._load()
            before = by_key.get(key, ())
            after = golden.vote(before, heard, self.rm.spec.type, woken=woken) if _usable(heard.rows) else before
            if after != before:
                await self._save(by_key, key, after)
                self._tell_the_others(after)
        return after or (heard,)

    def _tell_the_others(self, recordings: Suspects) -> None:
        """What a vote says of those that were asked before it."""
        held_to = golden.believed(recordings)
        for recorded in recordings:
            check = self.known.checks.get(recorded.uid)
            if check is None or not check.fine:
                continue
            # Of a container that has started anew since, and said the same: it is still the voice that was alone.
            alone = recorded is held_to and check.reason is Reason.NOT_CONFIRMED
            if check.boot_id != recorded.boot_id and not alone:
                continue
            if recorded is held_to and held_to.agreed:
                reason, message = Reason.AS_RECORDED, "computes what another pod has computed since"
            elif recorded is held_to:
                reason, message = self._standing(recordings)
            elif not held_to.agreed:
                continue
            else:
                reason = Reason.SCORES_DIFFER
                message = (
                    f"computed other scores when it started than pod {held_to.pod} did at {held_to.recorded_at}, and "
                    "another pod after that one. It leaves service, and is asked again"
                )
                log.warning("canary namespace=%s pod=%s %s", self.rm.namespace, recorded.pod, message)
            self.known.checks[recorded.uid] = dataclasses.replace(check, reason=reason, message=message)

    def _standing(self, recordings: Suspects) -> Finding:
        """What is said of an engine that computes what is believed."""
        held_to = golden.believed(recordings)
        said = f"answers as pod {held_to.pod} did at {held_to.recorded_at}"
        if held_to.agreed:
            return Reason.AS_RECORDED, said
        if not golden.is_disputed(recordings):
            return Reason.NOT_CONFIRMED, f"{said}, which no other pod has confirmed yet"
        other = recordings[-1]
        return Reason.SCORES_DISPUTED, (
            f"{said}, and pod {other.pod} computed something else at {other.recorded_at}: the next pod that starts "
            "decides, and this one serves until then"
        )

    def _refuse(self, pod: Pod, recordings: Suspects, index: int, values: Values) -> NoReturn:
        """
        Raises:
            ScoresDiffer: always.
        """
        held_to = golden.believed(recordings)
        row = held_to.rows[index]
        apart, limit = golden.distance(row.values, values), golden.allowed(row, self.rm.spec.type)
        if held_to.agreed:
            who = ", and another pod since"
        elif golden.is_disputed(recordings):
            who = ". No third pod has decided which of the two is right: the next one that starts does"
        else:
            who = ", which no other pod has confirmed"
        message = (
            f"computes other scores than pod {held_to.pod} did at {held_to.recorded_at}{who}: text {index} gives "
            f"{golden.shown(values)}, and gave {golden.shown(row.values)}; {apart:.3g} apart on average, {limit:.3g} "
            f"are allowed. It does not serve. If the new ones are right, delete ConfigMap {self.name}"
        )
        self._found(pod, Reason.SCORES_DIFFER, message)
        raise ScoresDiffer(pod.name, message)

    async def _record(
        self,
        by_key: dict[str, Suspects],
        key: str,
        facts: Mapping[str, str | None],
        pod: Pod,
        ask: Ask,
        longest: int | None,
    ) -> Finding:
        try:
            rows = await self._measure(ask, longest)
        except EngineError as error:
            if not _cannot(error):
                raise
            # Not a sick engine, but one that has no such answers: some are built without log-probabilities.
            return Reason.NOT_COMPARED, f"cannot be compared, and serves: {error}"
        if not _usable(rows):
            message = f"computes no numbers: {', '.join(golden.shown(row.values) for row in rows)}"
            self._found(pod, Reason.SCORES_DIFFER, message)
            raise ScoresDiffer(pod.name, message)
        recorded = self._recording(facts, pod, rows)
        await self._save(by_key, key, (recorded,))
        said = f"recorded ConfigMap {self.name} at {recorded.recorded_at}; no other pod was there to confirm it"
        return Reason.NOT_CONFIRMED, said

    def _recording(self, facts: Mapping[str, str | None], pod: Pod, rows: tuple[Row, ...]) -> Golden:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Golden(facts, pod.name, pod.uid, _boot(pod), at, rows)

    async def _measure(self, ask: Ask, longest: int | None) -> tuple[Row, ...]:
        texts = range(len(golden.TEXTS))
        repeats = [[await self._values(i, ask, longest) for i in texts] for _ in range(golden.REPEATS)]
        return tuple(Row.of([once[i] for once in repeats]) for i in texts)

    async def _values(self, index: int, ask: Ask, longest: int | None) -> Values:
        return golden.rounded(await self._computed(golden.text(index, longest), ask))

    async def _computed(self, asked: str | Tokens, ask: Ask) -> Values:
        call = self.adapter.golden_row(self.rm, asked, secrets.token_hex(8))
        assert call is not None, "who has no rows has no canary"
        answer = await ask(call)
        try:
            return self.adapter.golden_values(answer.json())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
            return ()  # an answer without numbers in it is no row, and no engine computes the same

    # -- pairs

    async def _ask_pairs(self, pod: Pod, ask: Ask) -> Finding:
        unasked: str | None = None
        for index, pair in enumerate(self.pairs):
            where = f"spec.scoring.canary.pairs[{index}]"
            try:
                better, worse = await self._worth(pod, pair, ask)
            except EngineError as error:
                if not _cannot(error):
                    raise
                unasked = unasked or f"cannot be asked {where}, and serves: {error}"
                continue
            if better is None or worse is None:
                several, hidden = "it says several numbers, and a score is one", "its chat template shows no response"
                unasked = unasked or f"cannot be asked {where}, and serves: {several if self._classifies else hidden}"
            elif not better > worse:
                message = (
                    f"does not prefer the better response of {where}: {pairs.told(self.rm.spec.type, better, worse)}. "
                    "It does not serve. If the pair is what is wrong, correct it"
                )
                self._found(pod, Reason.WORSE_PREFERRED, message)
                raise WorsePreferred(pod.name, message)
        if unasked is not None:
            return Reason.NOT_COMPARED, unasked
        return Reason.BETTER_PREFERRED, f"prefers the better response of each of {len(self.pairs)} pairs"

    @property
    def _classifies(self) -> bool:
        return self.rm.spec.type is RewardModelType.CLASSIFIER

    async def _worth(self, pod: Pod, pair: CanaryPair, ask: Ask) -> list[float | None]:
        """What the better and the worse response are to this engine."""
        prompt = () if self._classifies else await self._tokens(pod, pairs.asks(pair.prompt), ask, opens=True)
        found = []
        for response in (pair.better, pair.worse):
            whole = await self._tokens(pod, pairs.answered(pair.prompt, response), ask, opens=False)
            values = await self._computed(whole, ask)
            found.append(pairs.score(values) if self._classifies else pairs.likelihood(prompt, whole, values))
        return found

    async def _tokens(self, pod: Pod, messages: Sequence[Mapping[str, str]], ask: Ask, *, opens: bool) -> Tokens:
        call = self.adapter.rendering(self.rm, messages, opens=opens)
        assert call is not None, "who has rows has a chat template"
        answer = await ask(call)
        try:
            return self.adapter.tokens(answer.json())
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(pod.name, f"{call.path} answered in a form that cannot be read: {error!r}") from error

    def _found(self, pod: Pod, reason: Reason, message: str) -> None:
        check = self.known.checks[pod.uid] = Check(_boot(pod), reason, message)
        level = logging.INFO if check.fine else logging.WARNING
        log.log(level, "canary namespace=%s pod=%s %s", pod.namespace, pod.name, message)

    # -- the ConfigMap

    @property
    def name(self) -> str:
        return golden_configmap_name(self.rm.name)

    async def _load(self) -> dict[str, Suspects]:
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

    async def _save(self, by_key: dict[str, Suspects], key: str, recordings: Suspects) -> None:
        """Write it down, and only then know it: what the API server did not take is found out anew."""
        manifest = golden.config_map(self.rm, {**by_key, key: recordings})
        await self.kube.apply(manifest)
        by_key[key] = recordings
        self.known.digest = golden.digest(manifest["data"])


def canary_of(
    kube: Kube,
    rm: RewardModel,
    adapter: Adapter,
    known: Recordings,
    pin: Pin | None,
    children: Container[tuple[str, str]],
) -> Canary | None:
    """The canary of a model whose engines can be asked, and are to be.

    Args:
        children: (kind, name) of what exists for it.
    """
    rows, own = effective_spec(rm).lifecycle.verify_wake, rm.spec.scoring.canary
    if (not rows and own is None) or adapter.golden_row(rm, "", "") is None:
        return None
    canary = Canary(kube, rm, adapter, known, pin.revision if pin else None, rows, own.pairs if own else ())
    if ("ConfigMap", canary.name) not in children:
        known.by_key = None  # somebody deleted it, so that it is recorded anew; or the watch is behind
    return canary


def judge_scores(rm: RewardModel, pods: Sequence[Pod], known: Recordings) -> list[Pod]:
    """The pods, with a word on those that two others have contradicted since they were let in."""
    if not effective_spec(rm).lifecycle.verify_wake or not known.by_key:
        return list(pods)
    wrong = frozenset[str]().union(*map(golden.outvoted, known.by_key.values()))
    return [dataclasses.replace(pod, outvoted=True) if _boot(pod) in wrong else pod for pod in pods]


def _cannot(error: EngineError) -> bool:
    """Whether the engine refuses the question itself."""
    return error.status is not None and 400 <= error.status < 500


def _usable(rows: Sequence[Row]) -> bool:
    return all(map(golden.usable, rows))


def _boot(pod: Pod) -> str:
    return "" if pod.door is None else pod.door.boot_id
