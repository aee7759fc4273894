"""Kubernetes Events: the story of a RewardModel as `kubectl describe rm` tells it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from genrm_api.names import API_VERSION
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason

from genrm_operator.demand import Demand, Desired
from genrm_operator.errors import ApiError, Deposed, DrainTimeout, EngineError, Terminating
from genrm_operator.kube import Kube
from genrm_operator.lifecycle import PodState, count, pod_state
from genrm_operator.memory import Memory
from genrm_operator.observed import Pod, Transition
from genrm_operator.one_revision import expected
from genrm_operator.surging import Surge
from genrm_operator.transitions import rests_at_gate
from genrm_operator.trouble import Trouble

log = logging.getLogger(__name__)


class Announcer:
    """Says what changed since the last look. An Event that cannot be written is logged and lost, never retried."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def progress(
        self,
        rm: RewardModel,
        memory: Memory,
        pods: Sequence[Pod],
        wants: Demand,
        problem: tuple[str, str] | None,
        now: float,
        *,
        has_door: bool,
        waits: bool = False,
    ) -> None:
        """Compare with `memory`, announce, and remember (wake and sleep seconds are measured here)."""
        await self._problem(rm, memory, problem)
        await self._expired_leases(rm, memory, wants)
        await self._restarts(rm, memory, pods)
        await self._troubles(rm, memory, pods)
        if problem is not None:
            return
        there = self._are_there(rm, memory.surge, wants.desired, pods, has_door=has_door)
        if wants.desired is not memory.desired:
            new = rm.status is None or rm.status.phase is None
            # A new operator process finds the model as its predecessor left it: that was announced.
            memory.settled = memory.desired is None and not new and there
            announced = memory.desired is None and not new
            memory.from_nothing = memory.desired is Desired.OFF
            memory.desired, memory.desired_since = wants.desired, now
            if new and wants.desired is not Desired.OFF:
                if rm.spec.replicas:
                    await self._say(
                        rm, "Starting", f"{rm.spec.replicas} pods of engine {rm.spec.engine.name} are starting"
                    )
            elif not announced:
                word = {Desired.AWAKE: "Waking", Desired.ASLEEP: "Sleeping", Desired.OFF: "TurningOff"}[wants.desired]
                await self._say(rm, word, wants.because)
        engines_end = rests_at_gate(rm)  # and start: that is what their wakes take
        if waits or not (memory.from_nothing or engines_end or all(pod.ready for pod in pods if not pod.held)):
            memory.desired_since = now  # an engine still starts; the seconds of a wake or sleep are counted from then
        if there and not memory.settled:
            await self._arrived(rm, memory, expected(rm, memory.surge, pods), round(now - memory.desired_since, 3))
        if not there and memory.settled:
            memory.desired_since = now  # a pod was lost or added: the way back is measured from here
        memory.settled = there
        memory.from_nothing &= not there

    @staticmethod
    def _are_there(rm: RewardModel, surge: Surge, desired: Desired, pods: Sequence[Pod], *, has_door: bool) -> bool:
        """Whether every pod is where `desired` wants it."""
        states = [pod_state(pod, has_door=has_door) for pod in pods if not pod.deleting and not pod.held]
        if desired is Desired.OFF:
            return not pods
        goal = (PodState.SERVING,) if desired is Desired.AWAKE else (PodState.ASLEEP, PodState.GATED)
        return count(states, *goal) == len(states) == expected(rm, surge, pods)

    async def _arrived(self, rm: RewardModel, memory: Memory, number: int, seconds: float) -> None:
        if not number and memory.desired is not Desired.OFF:
            return  # there is nobody who could wake or sleep
        if memory.desired is Desired.AWAKE:
            memory.last_wake_seconds = seconds
            if (usual := memory.usual_wake_seconds(rm)) is not None and not memory.wakes:
                memory.wakes.append(usual)  # what the process before has learned
            memory.wakes.append(seconds)
            await self._say(rm, "Serving", f"{number} of {number} pods serve after {seconds} s")
        elif memory.desired is Desired.ASLEEP:
            memory.last_sleep_seconds = seconds
            await self._say(rm, "Asleep", f"{number} of {number} pods sleep after {seconds} s")
        else:
            await self._say(rm, "Off", "no pods are left")

    async def slot(self, rm: RewardModel, memory: Memory, reason: Reason, sentence: str) -> None:
        """What became of the slots that it asks for, where that is not what it was."""
        if reason is not memory.announced_slot and reason in (
            Reason.SLOT_AWAITED,
            Reason.SLOT_UNSEEN,
            Reason.SLOT_DEADLOCK,
        ):
            await self._say(rm, reason, sentence, warning=reason is not Reason.SLOT_AWAITED)
        memory.announced_slot = reason

    async def surge(self, rm: RewardModel, surge: Surge) -> None:
        """That a rollout takes old pods away first, when that begins."""
        if surge.begins and surge.says is not None:
            await self._say(rm, Reason.RECREATING, surge.says)

    async def transition_failed(
        self, rm: RewardModel, transition: Transition, error: EngineError, *, unreachable: bool
    ) -> None:
        reason = "DrainTimedOut" if isinstance(error, DrainTimeout) else f"{transition.capitalize()}Failed"
        advice = "; it is tried again when the pod answers" if unreachable else "; it is tried again"
        await self._say(rm, reason, f"{error}{advice}", warning=True)

    async def aborted(self, rm: RewardModel, pod: Pod, requests: int) -> None:
        after = rm.spec.lifecycle.sleep.drain_timeout
        note = (
            f"{requests} requests were still inside pod {pod.name} after {after}: they were answered 503, and it sleeps"
        )
        await self._say(rm, "DrainAborted", note, warning=True)

    async def strays(self, rm: RewardModel, pod: Pod, requests: int) -> None:
        note = (
            f"nobody was inside pod {pod.name} by its door's count when it was put to sleep, and its engine's metrics "
            f"said that it computed {requests} requests: whose clients gave them up, or who came past the door"
        )
        await self._say(rm, "StrayRequests", note, warning=True)

    async def replaced(self, rm: RewardModel, pod: Pod, why: str) -> None:
        await self._say(rm, "PodReplaced", f"pod {pod.name} was deleted, and a new one comes: {why}", warning=True)

    async def _problem(self, rm: RewardModel, memory: Memory, problem: tuple[str, str] | None) -> None:
        sentence = problem[1] if problem else None
        if problem and sentence != memory.announced_problem:
            await self._say(rm, problem[0], problem[1], warning=True)
        memory.announced_problem = sentence

    async def warning(self, rm: RewardModel, memory: Memory, found: Trouble | None) -> None:
        sentence = found.message if found else None
        if found and sentence != memory.announced_warning:
            await self._say(rm, found.reason, found.message, warning=True)
        memory.announced_warning = sentence

    async def _expired_leases(self, rm: RewardModel, memory: Memory, wants: Demand) -> None:
        now = {(lease.name, lease.renewal): lease for lease in wants.expired}
        if memory.announced_expired is None:  # an operator of before has said it of whose end it has seen
            memory.announced_expired = {key for key, lease in now.items() if lease.has_expired}
        for key in now.keys() - memory.announced_expired:
            lease = now[key]
            note = f"run {lease.run} has not renewed its Lease for {lease.ttl_seconds} s: it counts as gone"
            await self._say(rm, "LeaseExpired", note, warning=True)
        memory.announced_expired = set(now)

    async def _restarts(self, rm: RewardModel, memory: Memory, pods: Sequence[Pod]) -> None:
        for pod in pods:
            if pod.restarts > memory.restarts.get(pod.uid, pod.restarts):
                note = f"the engine of pod {pod.name} restarted; it serves again once it is verified"
                await self._say(rm, "EngineRestarted", note, warning=True)
            memory.restarts[pod.uid] = pod.restarts

    async def _troubles(self, rm: RewardModel, memory: Memory, pods: Sequence[Pod]) -> None:
        """One Event for what ails several pods in the same way, until it is over."""
        now = {pod.trouble: pod.name for pod in pods if pod.trouble is not None and not pod.deleting}
        for trouble, name in now.items():
            if trouble not in memory.announced_troubles:
                await self._say(rm, trouble.reason, f"pod {name}: {trouble.message}", warning=True)
        memory.announced_troubles = set(now)

    async def _say(self, rm: RewardModel, reason: str, note: str, *, warning: bool = False) -> None:
        regarding = {
            "apiVersion": API_VERSION,
            "kind": "RewardModel",
            "name": rm.name,
            "namespace": rm.namespace,
            "uid": rm.metadata["uid"],
        }
        log.info("%s reward_model=%s/%s %s", reason, rm.namespace, rm.name, note)
        try:
            await self._kube.create_event(regarding, reason, note, warning=warning)
        except Terminating:
            return
        except (ApiError, Deposed) as error:
            log.warning("event lost: %s", error)
