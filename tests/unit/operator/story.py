"""What the story of a pod's life is played with: engines that are made up, and doors whose every call waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from genrm_door.record import Record, Refused, State
from genrm_operator.calls import Answer
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import DoorUnreachable, EngineError
from genrm_operator.night import DeviceMemory
from genrm_operator.observed import Door, DoorState, Pod

from tests.unit.operator.test_lifecycle import make_pod


class Loop(asyncio.SelectorEventLoop):
    """Time passes when the story says so."""

    clock = 1000.0

    def time(self) -> float:
        return self.clock


class Engine:
    """A pod as it is: its engine, its door's record, and what Kubernetes has on its pod."""

    def __init__(self, uid: str, *, gated: bool = False) -> None:
        self.uid = uid
        self.places = frozenset({("claim", "rl", uid)}) if gated else frozenset()
        self.boots = 0
        self.label: str | None = None
        self.gate: str | None = None
        self.joined = False
        self.boot(gated=gated)

    def boot(self, *, gated: bool) -> None:
        """`gated`: it waits at its start gate, and there is no engine yet."""
        self.boots += 1
        self.record = Record(f"{self.uid}{self.boots}", "vllm", "rev")
        if gated:
            self.record.state = State.GATED
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
            verified_boot_id=self.gate, passed=self.joined, door=door, places=self.places,
        )  # fmt: skip

    @property
    def gated(self) -> bool:
        return self.record.state is State.GATED

    def document(self) -> Door:
        if self.gated:
            return Door(DoorState.GATED, 0, self.boot_id, None)
        return Door(DoorState(self.record.state.value), self.record.inside, self.boot_id, self.asleep)


class StoryDoors:
    """`Doors` whose every call waits for the story."""

    def __init__(self, loop: Loop, engines: dict[str, Engine]) -> None:
        self.engines = engines
        self.waiting: list[asyncio.Future[str]] = []
        self._loop = loop

    async def _call(
        self,
        pod: Pod,
        act: Callable[[Engine], Any],
        *,
        word: bool = False,
        order: bool = False,
        at_gate: bool = False,
    ) -> Any:
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
        if engine.gated and not at_gate:
            raise EngineError(pod.name, "503 the engine is not started")
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
        return cast("Door", await self._call(pod, Engine.document, at_gate=True))

    async def set_state(self, pod: Pod, token: str, state: DoorState, *, cut: bool = False) -> Door:
        def act(engine: Engine) -> Door:
            wanted = State(state.value)
            engine.record.check(wanted)
            if wanted is State.GATED and not engine.gated:
                assert not engine.serves and not engine.record.inside, "nobody is sent there, and nobody inside"
                left = Door(DoorState.CLOSED, 0, engine.boot_id, engine.asleep)
                engine.boot(gated=True)
                return left
            if wanted is State.SERVING and engine.asleep:
                raise Refused("it sleeps")  # the real door asks its engine, too
            if wanted is State.SERVING:
                assert not engine.corrupt, "who serves computes what it did before it slept"
                assert engine.verified, "who serves was verified in this boot, and since it woke"
            if wanted is State.DRAINING:
                assert not engine.serves, "the label goes before the door shuts"
            engine.record.state = wanted
            return engine.document()

        return cast("Door", await self._call(pod, act, order=True, at_gate=True))

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

    async def device_memory(self, pod: Pod, token: str) -> DeviceMemory | None:
        return None

    async def running(self, pod: Pod, gauge: str) -> int:
        return 0

    async def about(self, pod: Pod, calls: Sequence[Call]) -> dict[str, Any]:
        return {"version": "0.32.0"}
