"""Whatever happens to engines, doors, clients and the operator, in any order: what must never be, and what must come.

The decision and the transitions are the operator's own, and every door keeps the door's own record. Made up are the
engines, and that each call of a transition waits until the story lets it through: with its answer, with its answer
lost, refused, or into nothing. Time is a number.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from typing import cast

from genrm_api.rewardmodel import RewardModel
from genrm_door.record import State
from genrm_operator import golden
from genrm_operator.canary import Canary
from genrm_operator.demand import Desired
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.errors import EngineError
from genrm_operator.golden import Golden, Row
from genrm_operator.kube import Kube
from genrm_operator.lifecycle import Begin, GiveUp, Join, Rest, Serve, StopServing, decide, is_in_the_way
from genrm_operator.memory import Memory, Running
from genrm_operator.observed import Pod, Transition
from genrm_operator.transitions import Target, run
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.operator.story import Engine, Loop, StoryDoors


def model(**sleep: str) -> RewardModel:
    spec = {"model": {"uri": "hf://a/b"}, "lifecycle": {"sleep": sleep}}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})


RM = model()
ADAPTER = adapter_for(RM.spec.engine.name)
PODS = ("a", "b")
FAULTS = ("lost", "refused", "unreachable", "lies")
OUTCOMES = ("answered",) * 6 + FAULTS
NO_KUBE = cast("Kube", None)
"""What is recorded is known, and nothing is written."""
LOOKS = 8
"""After the last fault, each after the longest back-off: to give up what is under way, to start, to verify, to wake or
sleep."""


def remembering() -> Memory:
    """As a new operator process has it once it has read what was recorded."""
    memory = Memory()
    kind = golden.facts(RM, Engine("any").pod(Engine("any").document()), None)
    recorded = Golden(kind, "a", "u-a", "before", "2026-11-22T04:00:00Z", (Row((-1.0,), 0.0),), agreed=True)
    memory.golden.by_key = {golden.key(kind): (recorded,)}
    return memory


class Story(RuleBasedStateMachine):
    rm = RM
    at_gate = False
    """Its engines rest at their start gates."""
    shares = False
    """Its pods share GPUs: their engines wait to be let in."""
    may_be_up = True

    @initialize(desired=st.sampled_from([Desired.AWAKE, Desired.ASLEEP]))
    def begin(self, desired: Desired) -> None:
        self.loop = Loop()
        self.engines = {uid: Engine(uid, gated=self.shares) for uid in PODS}
        self.doors = StoryDoors(self.loop, self.engines)
        self.memory = remembering()
        self.desired = desired
        self.broken: list[BaseException] = []
        self._calm()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self._calm()
        finally:
            for running in list(self.memory.running.values()):
                running.task.cancel()
            self._run()
            self.loop.close()

    # -- what people, clients and faults do

    @rule(desired=st.sampled_from([Desired.AWAKE, Desired.ASLEEP, Desired.OFF]))
    def want(self, desired: Desired) -> None:
        self.memory.want(desired)
        self.memory.desired = self.desired = desired

    @rule(uid=st.sampled_from(PODS))
    def a_client_comes(self, uid: str) -> None:
        engine = self.engines[uid]
        if engine.record.state is State.SERVING:
            assert engine.strayed or not engine.asleep, "nobody reaches a sleeper"
            engine.record.enter(operator=False)

    @rule(uid=st.sampled_from(PODS))
    def a_client_leaves(self, uid: str) -> None:
        if self.engines[uid].record.inside:
            self.engines[uid].record.leave(operator=False)

    @rule(uid=st.sampled_from(PODS))
    def a_container_restarts(self, uid: str) -> None:
        """With its old label, and its old gate."""
        self.engines[uid].boot(gated=self.shares)

    @precondition(lambda self: self.shares)
    @rule()
    def the_slot_is_given_or_taken(self) -> None:
        self.may_be_up ^= True

    @rule(uid=st.sampled_from(PODS))
    def the_next_wake_leaves_it_corrupt(self, uid: str) -> None:
        self.engines[uid].rots = True

    @rule(uid=st.sampled_from(PODS))
    def somebody_writes_a_label(self, uid: str) -> None:
        self.engines[uid].label = "somebody's"

    @rule(uid=st.sampled_from(PODS))
    def an_engine_changes_by_itself(self, uid: str) -> None:
        if not self.engines[uid].gated:
            self.engines[uid].asleep ^= True
            self.engines[uid].strayed = True

    @rule()
    def the_operator_is_killed(self) -> None:
        for running in self.memory.running.values():
            running.task.cancel()
        self._run()
        self.memory = remembering()

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.clock += seconds
        self._run()

    # -- what the operator does

    @rule(unreachable=st.sets(st.sampled_from(PODS)))
    def look(self, unreachable: set[str]) -> None:
        """As a look of the reconciler: observe, decide, act."""
        seen = [e.pod(None if uid in unreachable else e.document()) for uid, e in self.engines.items()]
        pods = [dataclasses.replace(pod, may_be_up=self.may_be_up) for pod in self.memory.beside(seen)]
        for action in decide(pods, self.desired, self.loop.clock, has_door=True, at_gate=self.at_gate).actions:
            engine = self.engines[action.pod.uid]
            match action:
                case Serve(_, boot_id):
                    assert (engine.record.state, engine.asleep) == (State.SERVING, False), "it cannot serve"
                    assert boot_id == engine.boot_id == engine.gate, "and is not verified"
                    engine.label = boot_id
                case StopServing():
                    engine.label = None
                case Rest(pod):
                    assert engine.gated, "and so it runs nothing"
                    engine.joined = True
                case Join():
                    assert engine.gate == engine.boot_id, "nobody goes for who is not verified"
                    awake = self.desired is Desired.AWAKE and self.may_be_up
                    assert engine.serves or not awake, "nor before it serves in his place"
                    engine.joined = True
                case Begin(pod, transition):
                    assert transition is not Transition.START or self.may_be_up, "it may not have the GPUs"
                    task = self.loop.create_task(self._transition(pod, transition))
                    self.memory.running[pod.uid] = Running(transition, task)
                case GiveUp(pod):
                    self.memory.running[pod.uid].task.cancel()
        self._run()

    @rule()
    def all_goes_well_for_a_moment(self) -> None:
        self.look(set())
        self._answer_all()

    @rule(calls=st.integers(0, 8), outcome=st.sampled_from([*FAULTS, "the operator is killed"]))
    def it_breaks_in_the_middle(self, calls: int, outcome: str) -> None:
        """At every edge: so many calls of each transition are answered, and then this."""
        self.look(set())
        for _ in range(calls):
            self._end_calls("answered")
        if outcome in FAULTS:
            self._end_calls(outcome)
        else:
            self.the_operator_is_killed()

    @precondition(lambda self: self.doors.waiting)
    @rule(which=st.integers(0, 1), outcome=st.sampled_from(OUTCOMES))
    def a_call_ends(self, which: int, outcome: str) -> None:
        waiting = self.doors.waiting
        waiting[which % len(waiting)].set_result(outcome)
        self._run()

    @invariant()
    def nothing_broke(self) -> None:
        if hasattr(self, "broken") and self.broken:
            raise self.broken[0]

    # -- how

    async def _transition(self, pod: Pod, transition: Transition) -> None:
        """As the reconciler's."""
        memory = self.memory
        try:
            canary = Canary(NO_KUBE, self.rm, ADAPTER, memory.golden, None)
            at_gate = self.at_gate or is_in_the_way(pod)
            target = Target(self.rm, pod, ADAPTER, "token", canary=canary, at_gate=at_gate)
            await run(transition, target, cast("Doors", self.doors))
            if transition is Transition.VERIFY:
                assert pod.door is not None
                self.engines[pod.uid].gate = pod.door.boot_id
        except EngineError as error:
            memory.fail(pod.uid, str(error), self.loop.clock)
        except AssertionError as error:
            self.broken.append(error)
        else:
            memory.succeed(pod.uid, transition)
        finally:
            memory.running.pop(pod.uid, None)

    def _run(self) -> None:
        """Until every task waits for the story, or for time."""

        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(cast("Awaitable[None]", turns()))

    def _answer_all(self) -> None:
        """Every call of the transitions that are under way, one after another; a drain looks again and again."""
        for _ in range(20):
            self._end_calls("answered")

    def _end_calls(self, outcome: str) -> None:
        """One call of each transition, if it has begun one."""
        for turn in list(self.doors.waiting):
            turn.set_result(outcome)
        self.loop.clock += 0.05
        self._run()

    def _calm(self) -> None:
        """No more faults: whatever was before, what is desired comes, and stays."""
        for _ in range(LOOKS):
            for engine in self.engines.values():
                engine.rots = engine.corrupt = False
                while engine.record.inside:
                    engine.record.leave(operator=False)
            self.look(set())
            self._answer_all()
            self.nothing_broke()
            self.loop.clock += 16.0
        for engine in self.engines.values():
            found = (engine.record.state, engine.asleep, engine.serves)
            assert engine.joined or self.desired is Desired.OFF, "a rollout would wait for it for ever"
            if self.desired is Desired.OFF:
                assert not engine.label, "who is to have no pods serves with none"
            elif self.desired is Desired.AWAKE and self.may_be_up:
                assert found == (State.SERVING, False, True)
            elif self.at_gate or (self.shares and engine.gated):
                assert found == (State.GATED, False, False)
            else:
                assert found == (State.ASLEEP, True, False)
        assert not self.memory.running, "and nothing goes on for ever"


class StoryOfRestarts(Story):
    """`sleep.mode: Restart`."""

    rm = model(mode="Restart")
    at_gate = True


class StoryOfASlot(Story):
    """On GPUs that somebody else wants, too."""

    shares = True


class StoryOfRestartsOnASlot(StoryOfRestarts, StoryOfASlot):
    pass


TestStory = Story.TestCase
TestStoryOfRestarts = StoryOfRestarts.TestCase
TestStoryOfASlot = StoryOfASlot.TestCase
TestStoryOfRestartsOnASlot = StoryOfRestartsOnASlot.TestCase
TestStory.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
for other in (TestStoryOfRestarts, TestStoryOfASlot, TestStoryOfRestartsOnASlot):
    other.settings = settings(TestStory.settings, max_examples=40)
