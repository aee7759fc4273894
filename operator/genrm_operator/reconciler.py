"""`observe → decide → act` for one RewardModel at a time.

A look starts from what is there now: the watch caches, and the doors' own answers. What should be is decided by pure
functions; this module carries it out. It never waits for an engine: transitions run as tasks of their own, and their
end asks for the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from genrm_api.effective import effective_spec
from genrm_api.lifecycle import SleepMode
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason
from pydantic import ValidationError

from genrm_operator import (
    apply,
    endpoints,
    expiry,
    images,
    lifecycle,
    one_revision,
    pinning,
    replacing,
    room,
    scaling,
    slots,
    status,
    transitions,
)
from genrm_operator.cache import Cache, Key
from genrm_operator.canary import canary_of, judge_scores
from genrm_operator.demand import Demand, Desired, Idle
from genrm_operator.doors import Doors
from genrm_operator.engines import Adapter, adapter_for
from genrm_operator.engines.adapter import answers
from genrm_operator.errors import (
    ApiError,
    Deposed,
    DoorUnreachable,
    EngineError,
    Impossible,
    KindAbsent,
    NotFound,
    ScoresDiffer,
    Terminating,
)
from genrm_operator.hooked import Hooked
from genrm_operator.kube import Kube
from genrm_operator.lifecycle import Begin, GiveUp, Join, Rest, Serve, StopServing
from genrm_operator.making import made
from genrm_operator.marking import Marker
from genrm_operator.memory import Memory, Running
from genrm_operator.metrics import Metrics, reason_of
from genrm_operator.observed import JOINED, VERIFIED, Place, Pod, Transition
from genrm_operator.observing import Observer
from genrm_operator.polling import ABSENT
from genrm_operator.reporting import Reporter
from genrm_operator.routers import Routers, workers
from genrm_operator.settings import Settings
from genrm_operator.slots import Book, Turn
from genrm_operator.tokens import admin_token, router_token
from genrm_operator.trainers import Trainers
from genrm_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

API_RETRY_SECONDS: Final = 1.0
ROUTE_RETRY_SECONDS: Final = 1.0


class Reconciler:
    """Owns the caches, the queue, and every task that works on them."""

    def __init__(
        self, kube: Kube, doors: Doors, routers: Routers, settings: Settings, metrics: Metrics | None = None
    ) -> None:
        self._metrics = metrics or Metrics()
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(self._metrics.waited)
        self._kube = kube
        self._doors = doors
        self._routers = routers
        self._settings = settings
        self._memory: dict[Key, Memory] = {}
        self._reporter = Reporter(kube, self.cache, self.queue, self._metrics)
        self._observer = Observer(self.cache, doors)
        self._marker = Marker(kube, self.cache, self.queue)
        self._book = Book(settings.slot_turn_seconds)
        self._trainers = Trainers(kube, self.cache, self._book, self._look_at_those_who_share)
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for _ in range(self._settings.max_concurrent_reconciles):
                self._tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            began = self._now()
            try:
                if (next_look := await self._reconcile(key)) is not None:
                    self.queue.add_at(key, next_look)
            except Deposed as error:
                # A renewal that was late for a moment: who leads after all has this look still to take.
                log.info("look dropped reward_model=%s/%s %s", *key, error)
                self.queue.add_at(key, self._now() + API_RETRY_SECONDS)
            except (NotFound, Terminating) as error:
                log.info("gone while looked at reward_model=%s/%s %s", *key, error)
                self.queue.add_at(key, self._now() + self._settings.resync_seconds)
            except ApiError as error:
                log.warning("look failed reward_model=%s/%s %s", *key, error)
                self._metrics.look_failed(reason_of(error))
                self.queue.add_at(key, self._now() + API_RETRY_SECONDS)
            except Exception:
                log.exception("look failed by a bug of ours reward_model=%s/%s", *key)
                self._metrics.look_failed("Bug")
                self.queue.add_at(key, self._now() + self._settings.resync_seconds)
            finally:
                self._metrics.looked(self._now() - began)
                self.queue.done(key)

    async def _reconcile(self, key: Key) -> float | None:
        """Take one look at a RewardModel and act on it; return the loop time of the next look without an event.

        `None`: it is gone, and only an event can bring it back.
        """
        obj = self.cache.reward_models.get(key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return await self._trainers.settle(key, self._now())  # who has its GPUs has them still
        if (known := self._memory.get(key)) is not None and known.is_of_another(obj):
            self._forget(key)
        memory = self._memory.setdefault(key, Memory())
        try:
            rm = memory.read(obj)
        except ValidationError as error:
            # Written under an older schema, or past it: say so and leave what runs alone.
            await self._reporter.unreadable(obj, error)
            return self._now() + self._settings.resync_seconds
        adapter = adapter_for(rm.spec.engine.name)
        wants = await expiry.demanded(self._kube, self.cache, key, rm, memory, self._now())
        asked, rm = rm, scaling.as_it_counts(rm, self.cache.asked[key], wants.desired)
        mine = self.cache.holdings.get(key)
        twice = None if mine is None else mine.twice
        problem: tuple[str, str] | None = None if twice is None else (Reason.SLOT_TWICE, twice)
        apply_again, refusal = None, next(iter(self.cache.refusals[key].values()), None)
        there = self.cache.pods[key].values()
        waits = memory.choice.name is not None and not memory.choice.goes_on
        memory.surge = surge = memory.surge.look(rm, self.cache.rolling[key], there, refusal, self._now(), waits=waits)
        try:
            memory.made = made(
                self.cache, key, rm, adapter, self._settings, memory.made, wants,
                may_run=twice is None and wants.desired is not Desired.OFF,
                recreates=surge.revision if surge.recreates else None, finishes=memory.choice.finishes,
            )  # fmt: skip
            await apply.settle(self._kube, self.cache, key, rm.metadata["uid"], memory, memory.made)
            memory.refused_applies = 0
        except Impossible as error:
            problem = (error.reason, str(error))
        except (NotFound, Terminating):
            raise
        except KindAbsent:
            problem, apply_again = ("ApplyFailed", ABSENT), self._now() + memory.apply_refused()
        except ApiError as error:
            # A child that cannot be made must not keep those that run from being slept and woken.
            problem, apply_again = ("ApplyFailed", str(error)), self._now() + memory.apply_refused()
            self._metrics.look_failed("ApplyFailed")
        if problem is None and refusal is not None and refusal.message != surge.lacks:
            problem = (refusal.reason, refusal.message)
        problem = problem or self._observer.trouble_of_workers(key)
        if rm.spec.is_external:
            await self._reporter.external(rm, problem)
            return self._now() + self._settings.resync_seconds
        memory.want(wants.desired)
        run = bool(wants.held) and effective_spec(rm).pin_during_lease
        hooked = self._hooked(rm, adapter, memory)
        pods = await self._observer.observe(key, rm, adapter, memory, self._token(rm), hooked)
        if told := [pod.door.idle_seconds for pod in pods if pod.door is not None]:
            memory.idle = Idle(min(told), self._now())
        memory.pin = pinning.settle(rm, pods)
        made_from, before = memory.made.made_from if memory.made else None, memory.choice.finishes
        scored = rm.status.pinned.revision if rm.status and rm.status.pinned else None
        shelf = self.cache.rolling[key]
        memory.choice = one_revision.choose(pods, shelf, made_from, run=run, before=scored)
        if memory.choice.finishes != before:
            self.queue.add(key)  # the children follow from it
        pods = judge_scores(rm, self._judged(rm, memory, pods), memory.golden)
        await self._replace(key, rm, memory, pods)
        memory.image = images.pinned(rm, pods, run=bool(wants.held))
        pods = images.judge(pods, memory.image)
        trainers_due = await self._trainers.settle(key, self._now())
        pods, turns = await self._take_turns(key, rm, memory, wants, pods)
        at_gate = transitions.rests_at_gate(rm)
        plan = lifecycle.decide(
            pods, wants.desired, self._now(), has_door=answers(adapter, rm), at_gate=at_gate,
            sleeps=effective_spec(rm).lifecycle.sleep_mode in (SleepMode.ENGINE, SleepMode.RESTART),
        )  # fmt: skip
        if plan.actions:
            by_pod: dict[str, list[lifecycle.Action]] = {}
            for action in plan.actions:
                by_pod.setdefault(action.pod.uid, []).append(action)
            acting = (self._act_in_order(key, rm, adapter, memory, todo) for todo in by_pod.values())
            # All of them end before the look does: what one begins later nobody would have allowed.
            for ended in await asyncio.gather(*acting, return_exceptions=True):
                if isinstance(ended, BaseException):
                    raise ended
            pods = memory.beside(self.cache.pods[key].values(), {p.uid: p.door for p in pods})
            pods = images.judge(self._judged(rm, memory, pods), memory.image)
        router_key = router_token(self._settings.master_key, rm.namespace, rm.name, rm.metadata["uid"])
        astray = await self._routers.follow_all(
            self.cache.routers[key].values(), router_key, workers(self.cache.pods[key].values())
        )
        shrinks = None if rm is asked else asked.spec.replicas
        await self._reporter.look(rm, adapter, memory, pods, wants, problem or astray, turns, shrinks_to=shrinks)
        endpoints_due = await endpoints.settle(self._kube, self.cache, key, memory, self._now())
        route_again = self._now() + ROUTE_RETRY_SECONDS if astray else None
        due = [
            self._now() + self._settings.resync_seconds,
            plan.look_again_at,
            wants.next_expiry,
            surge.look_again_at,
            trainers_due,
            endpoints_due,
            apply_again,
            route_again,
            *(turn.look_again_at for turn in turns.values()),
        ]
        return min(at for at in due if at is not None)

    @staticmethod
    def _judged(rm: RewardModel, memory: Memory, pods: Sequence[Pod]) -> list[Pod]:
        return pinning.judge(rm, memory.choice.apply(memory.surge.judge(pods)), memory.pin)

    # ------------------------------------------------------------------ act

    async def _act_in_order(
        self, key: Key, rm: RewardModel, adapter: Adapter, memory: Memory, actions: Sequence[lifecycle.Action]
    ) -> None:
        for action in actions:
            await self._act(key, rm, adapter, memory, action)

    async def _act(self, key: Key, rm: RewardModel, adapter: Adapter, memory: Memory, action: lifecycle.Action) -> None:
        match action:
            case Serve(pod, boot_id):
                await self._marker.serving(key, pod, "true", boot_id)
                memory.relabelled = self._now()
                log.info("serves namespace=%s pod=%s boot_id=%s", pod.namespace, pod.name, boot_id)
            case StopServing(pod, because):
                await self._marker.serving(key, pod, None, None)
                memory.relabelled = self._now()
                log.info("stops serving namespace=%s pod=%s because=%r", pod.namespace, pod.name, because)
            case Rest(pod):
                await self._marker.tell(pod, "Gated")
            case Join(pod):
                await self._marker.tell(pod, JOINED)
            case Begin(pod, transition):
                assert self._tasks is not None
                if transition is Transition.START and pod.places:
                    await self._marker.let_in(key, pod)
                hooked = self._hooked(rm, adapter, memory)
                canary = canary_of(self._kube, rm, adapter, memory.golden, memory.pin, self.cache.children[key])
                at_gate = transitions.rests_at_gate(rm) or lifecycle.is_in_the_way(pod)
                target = transitions.Target(
                    rm, pod, adapter, self._token(rm), hooked, canary, memory.nights, memory.engine_wakes, at_gate
                )
                task = self._tasks.create_task(self._transition(key, memory, transition, target))
                memory.running[pod.uid] = Running(transition, task, target.ordered)
            case GiveUp(pod):
                running = memory.running.get(pod.uid)
                if running is not None and not running.ordered.is_set():  # since the look: an order is not called off
                    running.task.cancel()

    async def _replace(self, key: Key, rm: RewardModel, memory: Memory, pods: Sequence[Pod]) -> None:
        """Delete pods that will never serve, so that others come."""
        maps = {name for kind, name in self.cache.children[key] if kind == "ConfigMap"}
        most = effective_spec(rm).lifecycle.most_failed_wakes
        why = f"{most} times its engine did not wake or computed other scores"
        because = dict.fromkeys(replacing.unfit(pods, memory.unfit, most), why)
        because |= dict.fromkeys(pinning.to_delete(rm, pods, maps), "it started with other weights")
        for pod, why in list(because.items())[: replacing.room(memory.replaced, self._now())]:
            memory.replaced.append(self._now())
            with contextlib.suppress(NotFound):
                await self._kube.delete("Pod", pod.namespace, pod.name, pod.uid)
            await self._reporter.announce.replaced(rm, pod, why)

    async def _transition(self, key: Key, memory: Memory, transition: Transition, target: transitions.Target) -> None:
        pod, began, engine = target.pod, self._now(), str(target.rm.spec.engine.name)
        try:
            aborted = await transitions.run(transition, target, self._doors)
            if aborted:
                self._metrics.aborted(engine, aborted)
                await self._reporter.announce.aborted(target.rm, pod, aborted)
            if transition is Transition.VERIFY:
                await self._marker.tell(pod, VERIFIED, joins=pod.passed)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.uncancel() > 0 or self._stopping:
                raise
            log.info("%s given up namespace=%s pod=%s: wanted again", transition, pod.namespace, pod.name)
            self._metrics.transition_ended(transition, engine, self._now() - began, "given_up")
        except Deposed as error:
            log.info("%s dropped namespace=%s pod=%s %s", transition, pod.namespace, pod.name, error)
        except Exception as error:
            answered = isinstance(error, EngineError) and not isinstance(error, DoorUnreachable)
            # Who is held up by what an operator of before has ordered is not blamed for that, as long as it may take.
            limit = effective_spec(target.rm).lifecycle.wake_timeout
            held_up = self._now() - memory.inherited.get(pod.uid, -math.inf) < limit
            unfit = isinstance(error, ScoresDiffer) or (answered and transition is Transition.WAKE and not held_up)
            memory.fail(pod.uid, str(error), self._now(), unfit=unfit)
            self._metrics.transition_ended(transition, engine, self._now() - began, "failed", reason_of(error))
            if isinstance(error, ApiError | Impossible):  # a hook that cannot be read, which the status says too
                log.warning("%s failed namespace=%s pod=%s %s", transition, pod.namespace, pod.name, error)
                return
            if not isinstance(error, EngineError):
                log.exception("%s failed by a bug of ours namespace=%s pod=%s", transition, pod.namespace, pod.name)
                return
            log.warning("%s failed namespace=%s pod=%s %s", transition, pod.namespace, pod.name, error)
            await self._reporter.announce.transition_failed(
                target.rm, transition, error, unreachable=isinstance(error, DoorUnreachable)
            )
        else:
            memory.succeed(pod.uid, transition)
            seconds = self._now() - began
            self._metrics.transition_ended(transition, engine, seconds, "done")
            log.info("%s done namespace=%s pod=%s seconds=%.3f", transition, pod.namespace, pod.name, seconds)
        finally:
            memory.running.pop(pod.uid, None)
            self.queue.add(key)
            if strays := target.strays.get(pod.uid):
                self._metrics.strayed(engine, strays)
                await self._reporter.announce.strays(target.rm, pod, strays)

    # ------------------------------------------------------------------ helpers

    _stopping = False

    def stop(self) -> None:
        """The process ends: transitions are cancelled for good, the next operator continues from what is there."""
        self._stopping = True

    def _hooked(self, rm: RewardModel, adapter: Adapter, memory: Memory) -> Hooked | None:
        hooks = adapter.hooks(rm)
        return None if hooks is None else Hooked(self._doors, hooks, memory.shut)

    def _token(self, rm: RewardModel) -> str:
        return admin_token(self._settings.master_key, rm.namespace, rm.name, rm.metadata["uid"])

    async def _take_turns(
        self, key: Key, rm: RewardModel, memory: Memory, wants: Demand, pods: list[Pod]
    ) -> tuple[list[Pod], dict[str, Turn]]:
        """The pods, with whether they may have the GPUs that they share; and what their slots got, by name."""
        if (mine := self.cache.holdings.get(key)) is None:
            return pods, {}
        starts = effective_spec(rm).startup_timeout
        asks = slots.asks(mine, pods, wants.wanting, starts) if wants.desired is Desired.AWAKE else []
        placed = self.cache.placed.values()
        nights = status.remembered_nights(rm, pods, memory.nights)
        beside, wanting = self._trainers.takers(), self.cache.wanting
        turns, news = self._book.settle(mine, asks, pods, nights, placed, beside, wanting, self._now())
        if news:
            self._look_at_those_who_share(key, news)
        measure = functools.partial(self._doors.device_memory, token=self._token(rm))
        allowed = slots.let_in(pods, turns, mine)
        return await room.look(rm, mine, allowed, turns, nights, measure, memory.tight, self._now())

    def _look_at_those_who_share(self, key: Key, places: frozenset[Place]) -> None:
        # Of the Leases of trainers on one RewardModel each is an owner: what one gave back is news to the next.
        others = self.cache.naming(places)
        for other in others if self.cache.trainers.get(key) else others - {key}:
            self.queue.add(other)

    def _forget(self, key: Key) -> None:
        self._look_at_those_who_share(key, self._book.forget(key))
        self._trainers.drop_the_gone(key)
        if (memory := self._memory.pop(key, None)) is not None:
            for running in memory.running.values():
                running.task.cancel()
        self._metrics.forget(key)
        self.cache.tidy(key)
