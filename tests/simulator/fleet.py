"""One pod per local address: a simulated engine behind a real door, or `custom` without one.

A pod comes into being with the first connection to its address, or when `control` names it, and is forgotten by
`DELETE`: what comes next under that address has a new boot id and remembers nothing, as a restarted container.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genrm_door import Door, Settings

from tests.simulator.asgi import Receive, Scope, Send, lifespan
from tests.simulator.custom import SimCustom
from tests.simulator.engine import SimEngine, call_json
from tests.simulator.faults import Faults
from tests.simulator.sglang import SimSglang, SimSglangEmbedding
from tests.simulator.vllm import SimVllm, SimVllmPooling

ENGINES: Mapping[str, type[SimEngine]] = {
    "vllm": SimVllm,
    "vllm-pooling": SimVllmPooling,
    "sglang": SimSglang,
    "sglang-embedding": SimSglangEmbedding,
    "custom": SimCustom,
}


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
    def __init__(self, settings: PodSettings, faults: Faults) -> None:
        self.settings = settings
        self.engine = ENGINES[settings.engine](settings.model, faults)
        keys = (settings.client_key_sha256,) if settings.client_key_sha256 else ()
        words = Settings(
            token_sha256=settings.token_sha256,
            client_key_sha256=keys,
            revision=settings.revision,
            engine=type(self.engine).door,
            weights=settings.weights,
        )
        self.door = Door(self.engine, words, gpus=self.engine.gpus) if words.engine else None

    def to_json(self) -> dict[str, Any]:
        """The truth about this pod, as nobody in a cluster could know it."""
        return {
            "settings": self.settings.to_json(),
            "faults": self.engine.faults.to_json(),
            **(_record(self.door) if self.door is not None else {}),
            "asleep": self.engine.asleep,
            "diedOf": self.engine.died_of,
            "calls": [call_json(call) for call in self.engine.calls],
            "violations": [call_json(call) for call in self.engine.violations],
        }


def _record(door: Door) -> dict[str, Any]:
    record = door.record
    return {
        "bootId": record.boot_id,
        "state": record.state.value,
        "inside": record.inside,
        "epoch": record.epoch,
        "served": record.served,
    }


class Fleet:
    """The application on the public port: hands each request to the pod whose address was dialled."""

    def __init__(self, default: PodSettings | None = None) -> None:
        self.default = default or PodSettings()
        self.pods: dict[str, SimPod] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        pod = self.pod(scope["server"][0])
        await (pod.door or pod.engine)(scope, receive, send)

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
        return pod

    def forget(self, address: str) -> bool:
        return self.pods.pop(address, None) is not None

    def refuses(self, address: str) -> bool:
        pod = self.pods.get(address)
        return pod is not None and (pod.engine.faults.refuse or pod.engine.died_of is not None)
