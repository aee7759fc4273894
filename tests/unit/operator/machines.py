"""Pods as they are, for the whole story: a node's kubelet, the real gate and door, a simulated engine, and a network.

What the operator may never do is asserted where it would be done: in the engine, at the door, on the GPUs. The
assertions go to `World.broken`, because whoever gives orders over a network hears of no exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from genrm_api.names import DOOR_PATH
from genrm_door.nvml import DeviceMemory
from genrm_door.record import State
from genrm_operator.calls import Answer, Calls, Unreachable
from genrm_operator.doors import Doors
from genrm_operator.observed import START_GATE_ENV, Pod
from yarl import URL

from tests.simulator.asgi import Message, Receive, Scope, Send
from tests.simulator.engine import SimEngine
from tests.simulator.faults import Faults
from tests.simulator.fleet import PodSettings, SimPod
from tests.simulator.vllm import SimVllm

if TYPE_CHECKING:
    from tests.unit.operator.world import World

TOTAL: Final = 80 << 30
TOOK: Final = 72 << 30
LATENCY: Final = 0.002
LOADS: Final = 4.0
"""Seconds from the gate to an engine that answers."""
CHAT: Final = "/v1/chat/completions"
WELL: Final = Faults(slow={"/start": LOADS, "/sleep": 1.0, "/wake_up": 1.5, CHAT: 3.0})
RACE_SECONDS: Final = 0.1
"""So soon after an order of a leader that was deposed another one may give it too, who asked just before."""
LIED_SECONDS: Final = 60.0
"""So long whoever was lied to may act on it: what is under way, and what a look has seen."""


class Vllm(SimVllm):
    """It knows whether it does what it was told, and does what it was told once."""

    container: Container | None = None
    came_at = 0.0
    """When the last call arrived that changes it: the door lets one in at a time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ("/sleep", "/wake_up"):
            self.came_at = asyncio.get_running_loop().time()
        if scope["path"] in self.scoring:
            self._asked(scope["path"])
        await super().__call__(scope, receive, send)

    def again(self) -> Vllm:
        other = cast(Vllm, super().again())
        other.container = self.container
        return other

    @property
    def strayed(self) -> bool:
        return self.container is not None and self.container.strayed

    async def _sleep(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self._once("/sleep", done=self.asleep)
        if self.container is not None:
            self.container.obeyed(deaf="/sleep" in self.faults.deaf)
            if self.running and not self.strayed:
                self.container.broke("sleeps, and somebody is inside")
        await super()._sleep(scope, body, receive, send)

    async def _wake_up(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self._once("/wake_up", done=not self.asleep)
        if self.container is not None and "/wake_up" not in self.faults.deaf:
            self.container.obeyed(deaf=False)
            self.container.takes_memory()
            self.container.replica.rots_now()
        await super()._wake_up(scope, body, receive, send)

    def _asked(self, path: str) -> None:
        """The door has let somebody in: at `CHAT` a client, elsewhere the operator."""
        if self.container is None:
            return
        if self.asleep and not self.strayed and not self.container.by_itself:
            self.container.broke(f"{path} reaches a sleeper")
        if path == CHAT and self.container.state is not State.SERVING:
            self.container.broke(f"a request came in while its door was {self.container.state.value}")

    def _once(self, order: str, *, done: bool) -> None:
        if self.container is None or not done or self.strayed or self.container.by_itself:
            return
        if self.came_at - self.container.obeyed_at > RACE_SECONDS:
            self.container.broke(f"{order}, which it has done already")


class Container(SimPod):
    """The engine's container, from one start to the next."""

    engines: ClassVar[Mapping[str, type[SimEngine]]] = {"vllm": Vllm}

    def __init__(self, replica: Replica, settings: PodSettings, faults: Faults) -> None:
        self.replica, self.world = replica, replica.world
        self.strayed_at: float | None = None
        """Since when it may be otherwise than whoever asks can know."""
        self.by_itself = False
        """It has slept or woken without an order, and obeyed none since: its door knows nothing of it, and whoever
        finds it so, however late, gives the order that was never given."""
        self.obeyed_at = 0.0
        self.seen: set[str] = set()
        """What the operator has found out of this boot, and since its engine woke."""
        super().__init__(settings, faults)
        self._know(self.engine)

    def _begin(self, words: Any) -> None:
        self._know(self.engine)
        super()._begin(words)

    def _know(self, engine: SimEngine) -> None:
        cast(Vllm, engine).container = self

    def _to_the_gate(self, past: Mapping[str, Any]) -> None:
        self.seen.clear()
        super()._to_the_gate(past)

    def broke(self, what: str) -> None:
        self.world.broke(f"{self.replica.name}: {what}")

    # -- what it is

    @property
    def boot_id(self) -> str:
        front = self.gate or self.door
        return "" if front is None else front.record.boot_id

    @property
    def state(self) -> State:
        front = self.gate or self.door
        return State.CLOSED if front is None else front.record.state

    @property
    def up(self) -> bool:
        """Whether the memory of its GPUs is taken."""
        return self.gate is None and (self.starting or not self.engine.asleep or self.keeps)

    @property
    def keeps(self) -> bool:
        return self.engine.faults.keeps > 0.5

    @property
    def strayed(self) -> bool:
        since, now = self.strayed_at, self.world.loop.time()
        return self.engine.faults.lie or (since is not None and now - since < LIED_SECONDS)

    @property
    def used(self) -> int:
        if not self.up:
            return 0 if self.gate is not None else 2 << 30
        return round(TOOK * self.engine.faults.keeps) if self.engine.asleep and not self.starting else TOOK

    def gpus(self) -> DeviceMemory | None:
        """Of all that share them: the driver tells nobody apart."""
        if not self.world.measurable or not self.replica.places:
            return None
        used = sum(taken for _, taken, _ in self.world.taken(self.replica.places))
        return DeviceMemory(min(used, TOTAL), TOTAL, ((min(used, TOTAL), TOTAL),))

    # -- what happens to it

    def obeyed(self, *, deaf: bool) -> None:
        """It is as it was told, or says so at least."""
        self.seen.discard("row")
        self.by_itself = False
        self.obeyed_at = self.world.loop.time()
        self.strayed_at = self.world.loop.time() if deaf and self.engine.faults.lie else None

    def strays(self) -> None:
        """Its engine sleeps or wakes by itself."""
        engine = cast(Vllm, self.engine)
        engine.sleeping = frozenset() if engine.asleep else frozenset({"weights", "kv_cache"})
        engine.paused, engine.level = bool(engine.sleeping), int(bool(engine.sleeping))
        self.by_itself = True
        self.strayed_at = self.world.loop.time()

    def takes_memory(self) -> None:
        """Its engine starts or wakes: nobody else on its GPUs has memory up of whom that could be known."""
        for who, taken, known in self.world.taken(self.replica.places):
            if who != self.replica.name and taken > TOTAL // 4 and known and not self.strayed:
                self.broke(f"takes the memory of GPUs that {who} has")

    def serves_now(self) -> None:
        """Its door has been opened."""
        if not {"guarded", "models", "row"} <= self.seen:
            self.broke(f"serves, and of this boot only {sorted(self.seen)} was found out since it woke")
        if self.engine.faults.corrupt:
            self.broke("serves, and computes something else than before")
        if self.engine.asleep and not self.strayed:
            self.broke("serves asleep")


class Replica:
    """A pod on its node. Its container may be another one after a while."""

    def __init__(self, world: World, obj: Mapping[str, Any], ip: str, owner: str) -> None:
        pod = Pod.from_object(obj)
        engine = obj["spec"]["containers"][0]
        env = {v["name"]: v.get("value", "") for v in engine["env"]}
        self.world, self.ip, self.owner = world, ip, owner
        self.name, self.uid, self.model = pod.name, pod.uid, pod.reward_model
        self.places = pod.places
        self.settings = PodSettings(
            token_sha256=env["GENRM_TOKEN_SHA256"], revision=env["GENRM_REVISION"], model=pod.reward_model,
            slot="gpus" if START_GATE_ENV in env else "",
        )  # fmt: skip
        self.restarts = -1
        self.deleting = False
        self.container: Container | None = None
        self.faults = WELL
        self.rots = False
        """Its next start or wake leaves it computing nonsense."""
        self.reachable = asyncio.Event()
        self.reachable.set()
        self.lose: int = 0
        """So many answers get lost."""
        self.serving: set[asyncio.Task[Any]] = set()
        """What its server does right now."""

    def starts(self) -> None:
        self.restarts += 1
        self.rots_now()
        self.container = Container(self, self.settings, self.faults)

    def rots_now(self) -> None:
        if self.rots:
            self.rots = False
            self.told(worse(self.faults, corrupt=True))

    def dies(self) -> None:
        """Its container ends; whoever waits for an answer gets none."""
        self.container = None
        for task in list(self.serving):
            task.cancel()

    @property
    def ready(self) -> bool:
        return self.container is not None and not self.container.starting

    def told(self, faults: Faults) -> None:
        self.faults = faults
        if self.container is not None:
            if self.container.engine.faults.lie and not faults.lie and self.container.strayed_at is None:
                self.container.strayed_at = self.world.loop.time()
            self.container.engine.faults = faults


class Network:
    """What is between one operator, or clients, and all pods. It stands in for `Calls`."""

    def __init__(self, world: World, *, of_operator: bool = True) -> None:
        self.world, self.of_operator = world, of_operator
        self.dead = False
        """Whoever sends here has died: what is on its way arrives, and nobody hears the answer."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], timeout: float, body: Mapping[str, Any] | None = None
    ) -> Answer:
        target = URL(url, encoded=True)
        replica = self.world.at(str(target.host))
        if replica is None:
            await asyncio.sleep(timeout)
            raise Unreachable("no route")
        answered = not self.of_operator or self.world.gets_an_answer()
        arrived = asyncio.Event()
        late = self.world.late if self.dead else 0.0
        hung_up = asyncio.Event()
        carrying = self._carry(replica, arrived, hung_up, method, target, headers, body, late)
        carried = self.world.loop.create_task(carrying)
        replica.serving.add(carried)
        carried.add_done_callback(replica.serving.discard)
        carried.add_done_callback(_heard)
        try:
            async with asyncio.timeout(timeout):
                answer = await asyncio.shield(carried)
        except TimeoutError as error:
            raise Unreachable(f"nothing within {timeout:g} s") from error
        except asyncio.CancelledError:
            if carried.cancelled():
                raise Unreachable("connection reset") from None
            raise
        finally:
            hung_up.set()
            if not arrived.is_set() and not self.dead and not carried.done():
                carried.cancel()  # the connection is closed before the request was read
        if not answered or (replica.lose and self.of_operator):
            replica.lose -= answered
            raise Unreachable("the answer is lost")
        return answer

    async def _carry(
        self, replica: Replica, arrived: asyncio.Event, hung_up: asyncio.Event, method: str, target: URL,
        headers: Mapping[str, str], body: Mapping[str, Any] | None, late: float,
    ) -> Answer:  # fmt: skip
        await asyncio.sleep(LATENCY + late)
        await replica.reachable.wait()
        container = replica.container
        if container is None or container.starting or container.engine.died_of is not None:
            raise Unreachable("connection refused")
        arrived.set()
        before = container.state
        answer = await _ask(container, hung_up, method, target, headers, body)
        if self.of_operator and answer.status == 200:
            self._note(container, method, target.path, before, body)
        elif answer.status == 404 and "Authorization" not in headers:
            container.seen.add("guarded")
        return answer

    def _note(
        self, container: Container, method: str, path: str, before: State, body: Mapping[str, Any] | None
    ) -> None:
        """What the operator has found out, or brought about."""
        if path in ("/v1/models", "/v1/completions"):
            container.seen.add("models" if path == "/v1/models" else "row")
        if path != DOOR_PATH or method != "PUT":
            return
        self.world.labelled(container.replica.name)  # the label goes before the door shuts
        if container.starting and body == {"state": "closed"}:
            container.takes_memory()
        elif body == {"state": "serving"} and before is not State.SERVING:
            container.serves_now()


async def _ask(
    app: SimPod, hung_up: asyncio.Event, method: str, target: URL, headers: Mapping[str, str],
    body: Mapping[str, Any] | None,
) -> Answer:  # fmt: skip
    sent = [{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode(), "more_body": False}]
    status, parts = 0, []

    async def receive() -> Message:
        if sent:
            return cast(Message, sent.pop())
        await hung_up.wait()  # who waits no longer, or died
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http", "method": method, "path": target.path, "raw_path": target.raw_path.encode(),
        "query_string": target.raw_query_string.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    return Answer(status, b"".join(parts))


def _heard(task: asyncio.Task[Any]) -> None:
    """Whatever became of it, its sender may be gone."""
    if not task.cancelled():
        task.exception()


class StoryDoors(Doors):
    """The operator's own, over this network."""

    def __init__(self, epoch: int, network: Network) -> None:
        self._epoch = lambda: epoch
        self._calls = self._orders = cast(Calls, network)


async def comes(world: World, replica: Replica, seconds: float) -> None:
    """A client sends a judgement to a pod, whatever the Services say of it, so many seconds from now."""
    await asyncio.sleep(seconds)
    network = Network(world, of_operator=False)
    with contextlib.suppress(Unreachable):
        body = {"model": replica.model, "messages": [{"role": "user", "content": "?"}]}
        await network.send("POST", f"http://{replica.ip}:8000{CHAT}", {}, 600.0, body)


def worse(faults: Faults, **changes: Any) -> Faults:
    """`slow` beside what is slow anyway."""
    if "slow" in changes:
        changes["slow"] = {**faults.slow, **changes["slow"]}
    return dataclasses.replace(faults, **changes)
