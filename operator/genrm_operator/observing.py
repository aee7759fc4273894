"""What is there now: the pods as the watches have them, with what their doors say at this moment."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Iterable, Sequence

from genrm_api.rewardmodel import RewardModel

from genrm_operator import labels, status
from genrm_operator.cache import Cache, Key
from genrm_operator.doors import Doors
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import answers
from genrm_operator.errors import EngineError
from genrm_operator.hooked import Hooked
from genrm_operator.memory import Memory
from genrm_operator.night import Night
from genrm_operator.observed import Door, DoorState, Pod, Transition

log = logging.getLogger(__name__)


def nights_told(pods: Iterable[Pod], working: Collection[str]) -> dict[str, Night]:
    """What the doors know of the sleeps that are over, by uid: whoever measured it may have died since.

    `working`: those with whom something is being done, which knows better.
    """
    told = {pod.uid: pod.door.last_night for pod in pods if pod.door is not None and pod.uid not in working}
    return {uid: night for uid, night in told.items() if night is not None}


class Observer:
    def __init__(self, cache: Cache, doors: Doors) -> None:
        self._cache, self._doors = cache, doors

    async def observe(
        self, key: Key, rm: RewardModel, adapter: Adapter, memory: Memory, token: str, hooked: Hooked | None
    ) -> list[Pod]:
        pods = list(self._cache.pods[key].values())
        memory.forget_pods({pod.uid for pod in pods})
        if answers(adapter, rm):
            working = set(memory.running)
            doubted = status.doubts_sleep(rm)
            looks = (self._look(pod, token, memory, hooked, doubted=doubted) for pod in pods)
            pods = list(await asyncio.gather(*looks))
            memory.hear({p.uid: p.door for p in pods if p.door is not None}, asyncio.get_running_loop().time())
            memory.nights |= nights_told(pods, working)
            await self._learn_engine(rm, adapter, memory, pods)
            memory.labels = await labels.hear(rm, adapter, memory.labels, pods, memory.running, self._asking(token))
            # A transition that ended meanwhile has changed what its pod's door said; its end asks for another look.
            ended = working - set(memory.running)
            pods = [dataclasses.replace(pod, door=None) if pod.uid in ended else pod for pod in pods]
        else:
            memory.engine = str(rm.spec.engine.name)
        return memory.beside(pods)

    def trouble_of_workers(self, key: Key) -> tuple[str, str] | None:
        """An engine that spans nodes waits for all of its pods; the one that leads them does not know why."""
        workers = (pod for pod in self._cache.workers[key].values() if not pod.deleting)
        pod = next((pod for pod in workers if pod.trouble is not None), None)
        return (
            None
            if pod is None or pod.trouble is None
            else (pod.trouble.reason, f"pod {pod.name}: {pod.trouble.message}")
        )

    async def _look(self, pod: Pod, token: str, memory: Memory, hooked: Hooked | None, *, doubted: bool) -> Pod:
        if not pod.ready or pod.ip is None or pod.deleting:
            return pod
        running = memory.running.get(pod.uid)
        if running is not None and running.transition is Transition.WAKE and pod.uid in memory.doors:
            # Its wake asks it, and while 64 of them go on the end of each brings a look at all.
            return dataclasses.replace(pod, door=memory.doors[pod.uid])
        try:
            if hooked is None:
                door = await self._doors.take_charge(pod, token)
                door = await self._measured(pod, token, door, memory, doubted=doubted)
            else:
                door = await hooked.look(pod, token)
        except EngineError as error:
            if pod.uid not in memory.unreachable:
                log.warning("pod does not answer namespace=%s pod=%s %s", pod.namespace, pod.name, error)
            memory.unreachable.add(pod.uid)
            return pod if hooked is None else dataclasses.replace(pod, door=hooked.unknown(pod))
        memory.unreachable.discard(pod.uid)
        return dataclasses.replace(pod, door=door)

    def _asking(self, token: str) -> labels.Ask:
        return lambda pod, call: self._doors.call_engine(pod, token, call, labels.ASK_SECONDS)

    async def _measured(self, pod: Pod, token: str, door: Door, memory: Memory, *, doubted: bool) -> Door:
        """With what its sleep gave back, where that was not seen when it was over, or too little was: it counts as
        kept until then, and nobody gets the GPUs. It may have been somebody else's, who had them for that moment.

        `doubted`: an operator process of before judged so, of a pod whose door may know of no such sleep: one whose
        engine slept before it was told to. What is in use now is all that can be known of it."""
        if door.state is not DoorState.ASLEEP or pod.uid in memory.running:
            return door
        night = door.night or memory.nights.get(pod.uid)
        suspect = doubted and door.engine_asleep is True if night is None else night.over().effective is False
        if not suspect or (found := await self._doors.device_memory(pod, token)) is None:
            return door
        night = night or Night(found.used, None, slept=True)
        least = found.used if night.after is None else min(night.after, found.used)
        return dataclasses.replace(door, night=dataclasses.replace(night, after=least))

    async def _learn_engine(self, rm: RewardModel, adapter: Adapter, memory: Memory, pods: Sequence[Pod]) -> None:
        """Ask one engine for its version, once per boot of it."""
        started = (p for p in pods if p.door is not None and p.door.state is not DoorState.GATED)
        pod = next(started, None)
        if pod is not None and pod.door is not None and pod.door.boot_id != memory.engine_boot_id:
            try:
                about = await self._doors.about(pod, adapter.about)
                memory.engine = f"{rm.spec.engine.name} {about.get('version', '')}".rstrip()
                memory.engine_boot_id = pod.door.boot_id
            except EngineError as error:
                log.info("engine version unknown namespace=%s pod=%s %s", pod.namespace, pod.name, error)
