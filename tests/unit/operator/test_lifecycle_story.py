"""Whatever happens to engines, doors, clients and the operator, in any order: what must never be, and what must come.

The decision and the transitions are the operator's own, and every door keeps the door's own record. Made up are the
engines, and that each call of a transition waits until the story lets it through: with its answer, with its answer
lost, refused, or into nothing. Time is a number.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from genrm_api.rewardmodel import RewardModel
from genrm_door.record import Record, Refused, State
from genrm_operator import golden
from genrm_operator.calls import Answer
from genrm_operator.canary import Canary
from genrm_operator.demand import Desired
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import DoorUnreachable, EngineError
from genrm_operator.golden import Golden, Row
from genrm_operator.kube import Kube
from genrm_operator.lifecycle import Begin, GiveUp, Serve, StopServing, decide
from genrm_operator.memory import Memory, Running
from genrm_operator.observed import Door, DoorState, Pod, Transition
from genrm_operator.transitions import Target, run
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.operator.test_lifecycle import make_pod

RM = RewardModel.model_validate(
    {"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"model": {"uri": "hf://a/b"}}}
)
ADAPTER = adapter_for(RM.spec.engine.name)
PODS = ("a", "b")
FAULTS = ("lost", "refused", "unreachable", "lies")
OUTCOMES = ("answered",) * 6 + FAULTS
NO_KUBE = cast("Kube", None)
"""What is recorded is known, and nothing is written."""
LOOKS = 6
"""After the last fault, each after the longest back-off: to verify, to give up what is under way, to wake or sleep."""


def remembering() -> Memory:
    """As a new operator process has it once it has read what was recorded."""
    memory = Memory()
    kind = golden.facts(RM, Engine("any").pod(Engine("any").document()), None)
    recorded = Golden(kind, "a", "before", "2026-11-22T04:00:00Z", (Row((-1.0,), 0.0),), agreed=True)
    memory.golden.by_key = {golden.key(kind): recorded}
    return memory


class Loop(asyncio.SelectorEventLoop):
    """Time passes when the story says so."""

    clock = 1000.0

    def time(self) -> float:
        return self.clock


class Engine:
    """A pod as it is: its engine, its door's record, and what Kubernetes has on its pod."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.boots = 0
        self.label: str | None = None
        self.gate: str | None = None
        self.boot()

    def boot(self) -> None:
        self.boots += 1
        self.record = Record(f"{self.uid}{self.boots}", "vllm", "rev")
        self.asleep = self.verified = self.strayed = False
        self.rots = self.corrupt = False
        """Whether its next wake leaves it computing nonsense, and whether one has."""

    @property
    def boot_id(self) -> str:
        return self.record.boot_id

    @property
    def serves(self) -> bool:
        """Whether the Services send clients here, for whoever knows that labels of another boot mean nothing."""
        return self.label == self.boot_id

    def pod(self, door: Door | None) -> Pod:
        return make_pod(
            uid=self.uid, name=self.uid, serving=self.label is not None, labelled_boot_id=self.label,
            verified_boot_id=self.gate, door=door,
        )  # fmt: skip

    def document(self) -> Door:
        return Door(DoorState(self.record.state.value), self.record.inside, self.boot_id, self.asleep)


class StoryDoors:
    """`Doors` whose every call waits for the story."""

    def __init__(self, loop: Loop, engines: dict[str, Engine]) -> None:
        self.engines = engines
        self.waiting: list[asyncio.Future[str]] = []
        self._loop = loop

    async def _call(self, pod: Pod, act: Callable[[Engine], Any], *, word: bool = False, order: bool = False) -> Any:
        self.waiting.append(turn := self._loop.create_future())
        try:
            outcome = await turn
        finally:
            self.waiting.remove(turn)
        if outcome == "unreachable":
            raise DoorUnreachable(pod.name, "no answer")
        if outcome == "refused":
            raise EngineError(pod.name, "500")
        engine = self.engines[pod.uid]
        if order and pod.door is not None and pod.door.boot_id != engine.boot_id:
            raise EngineError(pod.name, "409 the order is for another boot")
        try:
            answer = act(engine)
        except Refused as refused:
            raise EngineError(pod.name, f"409 {refused}") from refused
        if outcome == "lost":
            raise DoorUnreachable(pod.name, "the answer is lost")
        if outcome == "lies" and word:
            engine.strayed = True
            return not answer
        return answer

    async def look(self, pod: Pod, token: str) -> Door:
        return cast("Door", await self._call(pod, Engine.document))

    async def set_state(self, pod: Pod, token: str, state: DoorState, *, cut: bool = False) -> Door:
        def act(engine: Engine) -> Door:
            wanted = State(state.value)
            engine.record.check(wanted)
            if wanted is State.SERVING and engine.asleep:
                raise Refused("it sleeps")  # the real door asks its engine, too
            if wanted is State.SERVING:
                assert not engine.corrupt, "who serves computes what it did before it slept"
                assert engine.verified, "who serves was verified in this boot, and since it woke"
            if wanted is State.DRAINING:
                assert not engine.serves, "the label goes before the door shuts"
            engine.record.state = wanted
            return engine.document()

        return cast("Door", await self._call(pod, act, order=True))

    async def is_asleep(self, pod: Pod, token: str, call: Call | None) -> bool:
        return bool(await self._call(pod, lambda engine: engine.asleep, word=True))

    async def call_engine(self, pod: Pod, token: str, call: Call, timeout: float = 0.0) -> Answer:
        def act(engine: Engine) -> None:
            if call.path == "/v1/completions":
                assert engine.record.state is State.CLOSED, "nobody else comes in"
                if engine.asleep:
                    assert engine.strayed, "who is asked is awake"
                    raise Refused("it sleeps")
                return
            night = call.path == "/sleep"
            assert night or call.path == "/wake_up"
            assert engine.strayed or engine.asleep is not night, f"{call.path} was done already"
            if night and engine.record.state is State.SERVING:
                raise Refused("drain first")
            assert not (night and engine.record.inside), "somebody is inside"
            engine.asleep = night
            engine.verified = False
            if not night and engine.rots:
                engine.corrupt, engine.rots = True, False

        await self._call(pod, act, order=True)
        likely = [None, {"1": {"logprob": -9.0 if self.engines[pod.uid].corrupt else -1.0}}]
        return Answer(200, json.dumps({"choices": [{"prompt_logprobs": likely}]}).encode())

    async def verify_guarded(self, pod: Pod, call: Call) -> None:
        def act(engine: Engine) -> None:
            engine.verified = True

        await self._call(pod, act)

    async def served_models(self, pod: Pod) -> dict[str, int | None]:
        await self._call(pod, Engine.document)
        return {"judge": None}

    async def device_used(self, pod: Pod, token: str) -> int | None:
        return None

    async def about(self, pod: Pod, calls: Sequence[Call]) -> dict[str, Any]:
        return {"version": "0.32.0"}


class Story(RuleBasedStateMachine):
    @initialize(desired=st.sampled_from([Desired.AWAKE, Desired.ASLEEP]))
    def begin(self, desired: Desired) -> None:
        self.loop = Loop()
        self.engines = {uid: Engine(uid) for uid in PODS}
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
        if desired is not self.desired:
            self.memory.failures.clear()
        self.desired = desired

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
        self.engines[uid].boot()

    @rule(uid=st.sampled_from(PODS))
    def the_next_wake_leaves_it_corrupt(self, uid: str) -> None:
        self.engines[uid].rots = True

    @rule(uid=st.sampled_from(PODS))
    def somebody_writes_a_label(self, uid: str) -> None:
        self.engines[uid].label = "somebody's"

    @rule(uid=st.sampled_from(PODS))
    def an_engine_changes_by_itself(self, uid: str) -> None:
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
        pods = self.memory.beside(seen)
        for action in decide(pods, self.desired, self.loop.clock, has_door=True).actions:
            engine = self.engines[action.pod.uid]
            match action:
                case Serve(_, boot_id):
                    assert (engine.record.state, engine.asleep) == (State.SERVING, False), "it cannot serve"
                    assert boot_id == engine.boot_id == engine.gate, "and is not verified"
                    engine.label = boot_id
                case StopServing():
                    engine.label = None
                case Begin(pod, transition):
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
            canary = Canary(NO_KUBE, RM, ADAPTER, memory.golden, None)
            await run(transition, Target(RM, pod, ADAPTER, "token", canary=canary), cast("Doors", self.doors))
            if transition is Transition.VERIFY:
                assert pod.door is not None
                self.engines[pod.uid].gate = pod.door.boot_id
        except EngineError as error:
            memory.fail(pod.uid, str(error), self.loop.clock)
        except AssertionError as error:
            self.broken.append(error)
        else:
            memory.failures.pop(pod.uid, None)
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
            if self.desired is Desired.AWAKE:
                assert found == (State.SERVING, False, True)
            elif self.desired is Desired.ASLEEP:
                assert found == (State.ASLEEP, True, False)
            else:
                assert not engine.label, "who is to have no pods serves with none"
        assert not self.memory.running, "and nothing goes on for ever"


TestStory = Story.TestCase
TestStory.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
