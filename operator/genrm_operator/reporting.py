"""What a look tells the world: the status, Events, metrics, and the Leases of runs that were granted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from genrm_api.names import ANNOTATION_GRANTED, ANNOTATION_REFUSED, API_VERSION
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from genrm_operator import labels, pinning, status
from genrm_operator.announcements import Announcer
from genrm_operator.cache import Cache, Key
from genrm_operator.demand import Demand
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import answers
from genrm_operator.errors import ApiError, NotFound
from genrm_operator.kube import Kube
from genrm_operator.memory import Memory
from genrm_operator.metrics import Metrics, ModelView
from genrm_operator.observed import Pod
from genrm_operator.slots import Turn, refusals
from genrm_operator.workqueue import WorkQueue


class Reporter:
    """Writes what differs from what is there, and believes the answers at once."""

    def __init__(self, kube: Kube, cache: Cache, queue: WorkQueue[Key], metrics: Metrics) -> None:
        self._kube, self._cache, self._queue, self._metrics = kube, cache, queue, metrics
        self.announce = Announcer(kube)
        self._now = asyncio.get_running_loop().time

    async def look(
        self,
        rm: RewardModel,
        adapter: Adapter,
        memory: Memory,
        pods: Sequence[Pod],
        wants: Demand,
        problem: tuple[str, str] | None,
        turns: Mapping[str, Turn],
        *,
        shrinks_to: int | None = None,
    ) -> None:
        """`turns`: what the slots that it asks for got. `shrinks_to`: the replicas that the spec says, where fewer of
        them count from the next wake."""
        has_door, waits = answers(adapter, rm), any(not turn.given for turn in turns.values())
        await self.announce.progress(rm, memory, pods, wants, problem, self._now(), has_door=has_door, waits=waits)
        before = rm.status
        waits_for_runs = (memory.made is not None and memory.made.waits) or (
            any(pod.held for pod in pods) and not memory.choice.goes_on
        )
        failure = next(iter(memory.failures.values()), None)
        seen = status.Seen(
            pods=pods,
            demand=wants,
            has_door=has_door,
            turns=turns,
            problem=problem,
            last_error=failure.message if failure else None,
            last_wake_seconds=_either(memory.last_wake_seconds, before.last_wake_seconds if before else None),
            usual_wake_seconds=memory.usual_wake_seconds(rm),
            last_sleep_seconds=_either(memory.last_sleep_seconds, before.last_sleep_seconds if before else None),
            engine=memory.engine or (before.engine if before else None),
            pin=memory.pin,
            image=memory.image,
            warning=pinning.host_memory(rm, memory.pin),
            labels=memory.labels,
            shrinks_to=shrinks_to,
            golden_rows=memory.golden.digest or (before.golden_rows if before else None),
            checks=memory.golden.checks,
            nights=memory.nights,
            surge=memory.surge,
            waits_for=tuple(lease.run for lease in wants.held) if waits_for_runs else (),
        )
        await self.announce.warning(rm, memory, labels.trouble_of(rm, memory.labels) or seen.warning)
        await self.announce.surge(rm, memory.surge)
        reason, sentence = status.slot_word(seen)
        await self.announce.slot(rm, memory, reason, sentence)
        new = status.compute(rm, seen, datetime.now(UTC))
        key = (rm.namespace, rm.name)
        written = self._cache.reward_models.get(key)
        if written is None:
            return  # deleted while we looked
        self._metrics.saw(key, ModelView.of(rm, str(new["phase"]), seen, len(memory.failures)))
        await self._write_status(rm, new, written)
        if memory.pin != pinning.written(rm):
            self._queue.add(key)  # the pods' ConfigMap follows from the status that has just been written
        refused = refusals(turns.values())
        await self._grant(wants, memory, granted=new["phase"] == "Serving", refused=refused)

    async def external(self, rm: RewardModel, problem: tuple[str, str] | None) -> None:
        new = status.external(rm, problem, datetime.now(UTC))
        key = (rm.namespace, rm.name)
        self._metrics.saw(key, ModelView(str(new["phase"])))
        if (written := self._cache.reward_models.get(key)) is not None:
            await self._write_status(rm, new, written)

    async def _write_status(self, rm: RewardModel, new: Mapping[str, Any], written: Mapping[str, Any]) -> None:
        if status.differs(new, written.get("status")):
            metadata = {"name": rm.name, "namespace": rm.namespace}
            answer = await self._kube.apply_status(
                {"apiVersion": API_VERSION, "kind": "RewardModel", "metadata": metadata, "status": new}
            )
            key = self._cache.put_reward_model(answer, deleted=False).key
            if answer["metadata"].get("generation") != rm.metadata.get("generation"):
                self._queue.add(key)

    async def _grant(self, wants: Demand, memory: Memory, *, granted: bool, refused: Mapping[str, str]) -> None:
        """Tell each run, in its own Lease, since when every replica serves for it, and how long it waited for that; or
        why none ever will.

        `refused`: why, by run.

        Raises:
            ApiError: one could not be told; all others were.
        """
        failed: ApiError | None = None
        for lease in (*wants.held, *wants.expired):
            # With the Lease its answer ends: a run that comes back after that is told anew.
            awaited = lease.phase.wants_awake and not lease.has_expired
            should, no = granted and awaited, refused.get(lease.run) if awaited else None
            if should == (lease.granted is not None) and no == lease.refused:
                continue
            word = None
            if should:
                word = lease.granted or str(memory.grant(lease, self._now(), datetime.now(UTC)))
            patch = {"metadata": {"annotations": {ANNOTATION_GRANTED: word, ANNOTATION_REFUSED: no}}}
            try:
                answer = await self._kube.merge_patch("Lease", lease.namespace, lease.name, patch)
            except NotFound:
                continue
            except ApiError as error:  # the others hear of it first
                failed = error
                continue
            self._queue.add(self._cache.put_answered_lease(answer))  # it may tell more than what was written
        if failed is not None:
            raise failed

    async def unreadable(self, obj: Mapping[str, Any], error: ValidationError) -> None:
        meta = obj["metadata"]
        self._metrics.saw((meta["namespace"], meta["name"]), ModelView("Degraded"))
        new = status.unreadable(meta.get("generation"), error, datetime.now(UTC))
        (condition,) = new["conditions"]
        old = (obj.get("status") or {}).get("conditions") or []
        if any(c.get("message") == condition["message"] for c in old):
            return
        metadata = {"name": meta["name"], "namespace": meta["namespace"]}
        await self._kube.apply_status(
            {"apiVersion": API_VERSION, "kind": "RewardModel", "metadata": metadata, "status": new}
        )


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first
