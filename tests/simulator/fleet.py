"""One pod per local address: a simulated engine behind a real door, or `custom` without one.

A pod that shares its GPUs waits at the real start gate first, and is back there when its door is told so. What must
never be is written down when it is: that two engines on the same GPUs have their memory up.

Between a pod and whoever calls it is a network that can `hold` one call. From then on that sender's later orders to the
pod get lost: it is as far as it came.

A pod comes into being with the first connection to its address, or when `control` names it, and is forgotten by
`DELETE`: what comes next under that address has a new boot id and remembers nothing, as a restarted container.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from genrm_door import Door, Settings
from genrm_door.gate import HEADERS, Gate
from genrm_door.nvml import DeviceMemory
from genrm_door.record import Record
from genrm_door.routes import DOOR_PATH
from genrm_door.wire import again, values

from tests.simulator.asgi import Message, Receive, Scope, Send, answer_json, body_of, lifespan
from tests.simulator.custom import SimCustom
from tests.simulator.engine import SimEngine, call_json
from tests.simulator.faults import Faults
from tests.simulator.holds import Hold
from tests.simulator.sglang import SimSglang, SimSglangEmbedding
from tests.simulator.vllm import SimVllm, SimVllmPooling

ENGINES: Mapping[str, type[SimEngine]] = {
    "vllm": SimVllm,
    "vllm-pooling": SimVllmPooling,
    "sglang": SimSglang,
    "sglang-embedding": SimSglangEmbedding,
    "custom": SimCustom,
}

MOST_HEARD: Final = 1000


@dataclass(frozen=True)
class PodSettings:
    """What the pod's environment and arguments would say."""

    token_sha256: str = ""
    client_key_sha256: str = ""
    revision: str = "simulated"
    model: str = "judge"
    engine: str = "vllm"
    weights: str = ""
    """What its launcher found, as the launcher hands it to the door: JSON."""
    slot: str = ""
    """The GPUs that it shares, in some words; with any it begins at its start gate."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any], default: PodSettings) -> PodSettings:
        """Raises ValueError for a key that is none."""
        names = {_camel(field.name): field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(document) - set(names)):
            raise ValueError(f"unknown setting {', '.join(unknown)}: there are {', '.join(names)}")
        read = cls(**{own: str(document.get(name, getattr(default, own))) for name, own in names.items()})
        if read.engine not in ENGINES:
            raise ValueError(f"unknown engine {read.engine}: there are {', '.join(ENGINES)}")
        return read

    def to_json(self) -> dict[str, str]:
        return {_camel(name): value for name, value in dataclasses.asdict(self).items()}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


class SimPod:
    engines: ClassVar[Mapping[str, type[SimEngine]]] = ENGINES

    def __init__(self, settings: PodSettings, faults: Faults) -> None:
        self.settings = settings
        self.engine = self.engines[settings.engine](settings.model, faults)
        self.gate: Gate | None = None
        self.door: Door | None = None
        self.starting = False
        """Let past its gate, and not up yet: nobody listens."""
        self.starts = 0
        self.heard: deque[str] = deque(maxlen=MOST_HEARD)
        """What came from outside that changes something, or asks whether it sleeps."""
        self.hold: Hold | None = None
        self.held_epoch: list[bytes] = []
        """Of whoever sent the call that is held."""
        if not self.engine.door:
            return
        if settings.slot:
            self._to_the_gate({})
        else:
            self._begin(self._words(secrets.token_hex(8), {}))

    @property
    def up(self) -> bool:
        """Whether the memory of its GPUs is taken."""
        return self.gate is None and self.engine.has_memory

    def gpus(self) -> DeviceMemory | None:
        """What its driver says."""
        return self.engine.gpus(gone=self.gate is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.gate is None:
            await (self.door or self.engine)(scope, receive, send)
            return
        gate = self.gate
        headers = {name: [v for n, v in scope["headers"] if n == name.encode()] for name in HEADERS}
        target = "?".join(filter(None, (scope["path"], scope["query_string"].decode())))
        status, document = gate.answer(scope["method"], target, headers, await body_of(receive))
        if gate.released and self.gate is gate:
            self.gate, self.starting = None, True
            asyncio.get_running_loop().create_task(self._start(gate))
        await answer_json(send, status, document)

    async def past_the_door(self, method: str, path: str) -> int:
        """Call the engine as somebody in its container could; its status."""
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
        await self.engine(scope, receive, send)
        return statuses[0]

    async def _start(self, gate: Gate) -> None:
        """As long as the route /start, which no engine has, is told to take."""
        await asyncio.sleep(self.engine.faults.slow.get("/start", 0.0))
        self.engine = self.engine.again()
        self._begin(self._words(gate.settings.boot_id, gate.record.hand_over()))
        self.starting = False
        self.starts += 1

    def _begin(self, words: Settings) -> None:
        self.door = Door(self.engine, words, gpus=self.gpus, restart=self._to_the_gate)

    def _to_the_gate(self, past: Mapping[str, Any]) -> None:
        self.door = None
        self.gate = Gate(self._words(secrets.token_hex(8), past), gpus=self.gpus)

    def _words(self, boot_id: str, past: Mapping[str, Any]) -> Settings:
        given = self.settings
        return Settings(
            token_sha256=given.token_sha256,
            client_key_sha256=(given.client_key_sha256,) if given.client_key_sha256 else (),
            revision=given.revision,
            engine=type(self.engine).door,
            weights=given.weights,
            boot_id=boot_id,
            past=json.dumps(past) if past else "",
        )

    def to_json(self) -> dict[str, Any]:
        """The truth about this pod, as nobody in a cluster could know it."""
        return {
            "settings": self.settings.to_json(),
            "faults": self.engine.faults.to_json(),
            **(_record(front.record) if (front := self.gate or self.door) is not None else {}),
            "up": self.up,
            "starts": self.starts,
            "heard": list(self.heard),
            "held": None if self.hold is None else _told(self.hold),
            "asleep": self.engine.asleep,
            "diedOf": self.engine.died_of,
            "calls": [call_json(call) for call in self.engine.calls],
            "violations": [call_json(call) for call in self.engine.violations],
        }


def _record(record: Record) -> dict[str, Any]:
    return {
        "bootId": record.boot_id,
        "state": record.state.value,
        "inside": record.inside,
        "epoch": record.epoch,
        "served": record.served,
        "idleSeconds": record.idle_seconds,
        "ledger": record.document(None)["ledger"],
    }


def _told(hold: Hold) -> dict[str, Any]:
    return {"call": hold.call, "reached": hold.reached, "delivered": hold.delivered, "status": hold.status}


EPOCH: Final = b"genrm-epoch"


def _state_order(scope: Scope, body: bytes) -> str:
    """As the door's ledger calls it."""
    try:
        state = json.loads(body)["state"]
    except (ValueError, KeyError, TypeError):
        state = "?"
    query = scope["query_string"].decode()
    return f"PUT {state}{'?' if query else ''}{query}"


class Fleet:
    """The application on the public port: hands each request to the pod whose address was dialled."""

    def __init__(self, default: PodSettings | None = None, patience: float = 0.0) -> None:
        """`patience`: for so many seconds a call to an address waits for somebody to configure its pod."""
        self.default, self.patience = default or PodSettings(), patience
        self.pods: dict[str, SimPod] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self.collisions: list[tuple[str, str]] = []
        """Addresses of two pods on the same GPUs whose memory was up together."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        address = scope["server"][0]
        if self.patience and address not in self.pods:
            await self._come(address)
        pod = self.pod(address)
        if scope["path"] == DOOR_PATH and scope["method"] == "PUT":
            receive = again(body := await body_of(receive), receive)
            call = _state_order(scope, body)
        else:
            call = f"{scope['method']} {scope['path']}"
        hold = pod.hold
        if hold is not None and hold.takes(call):
            pod.held_epoch = values(scope, EPOCH)
            await self._held(hold, address, scope, receive, send)
        elif hold is not None and hold.taken and pod.held_epoch and values(scope, EPOCH) == pod.held_epoch:
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await self._deliver(address, pod, call, scope, receive, send)

    async def _come(self, address: str) -> None:
        """A fake node calls its pods ready before anybody has told them what they are; a kubelet would not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                await self._awaited.setdefault(address, asyncio.Event()).wait()

    async def _held(self, hold: Hold, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever sent it may hang up meanwhile: its body is here already, and its answer is kept."""
        receive = again(await body_of(receive), receive)
        said: list[Message] = []

        async def keep(message: Message) -> None:
            said.append(message)
            hold.status = message.get("status", hold.status)

        await hold.carry(lambda: self._deliver(address, self.pod(address), hold.call, scope, receive, keep))
        for message in said:
            await send(message)

    async def _deliver(self, address: str, pod: SimPod, call: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET" or scope["path"] == "/is_sleeping":
            pod.heard.append(call)
        try:
            await pod(scope, receive, send)
        finally:
            self._look_for_collisions(address, pod)

    def _look_for_collisions(self, address: str, pod: SimPod) -> None:
        """After each request, because nothing else changes an engine."""
        if pod.settings.slot and pod.up:
            others = ((a, p) for a, p in self.pods.items() if p is not pod and p.settings.slot == pod.settings.slot)
            self.collisions += ((address, other) for other, its in others if its.up)

    def pod(self, address: str) -> SimPod:
        pod = self.pods.get(address)
        if pod is None:
            pod = self.pods[address] = SimPod(self.default, Faults())
        return pod

    def configure(self, address: str, settings: PodSettings | None, faults: Faults | None) -> SimPod:
        """Tell a pod what it is. Other settings are another container; other faults are not."""
        pod = self.pods.get(address)
        if pod is None or (settings is not None and settings != pod.settings):
            old = Faults() if pod is None else pod.engine.faults
            pod = self.pods[address] = SimPod(settings or self.default, old if faults is None else faults)
        elif faults is not None:
            pod.engine.faults = faults
        if told := self._awaited.pop(address, None):
            told.set()
        return pod

    def forget(self, address: str) -> bool:
        return self.pods.pop(address, None) is not None

    def let_go(self, address: str) -> bool:
        """What is held goes on, and its sender gets through again. What became of it is still told."""
        pod = self.pods.get(address)
        if pod is None or pod.hold is None:
            return False
        pod.held_epoch = []
        pod.hold.let_go()
        return True

    def refuses(self, address: str) -> bool:
        pod = self.pods.get(address)
        return pod is not None and (pod.engine.faults.refuse or pod.starting or pod.engine.died_of is not None)
