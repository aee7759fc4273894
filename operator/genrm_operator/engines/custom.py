"""An HTTP server of the user's own, without our door.

It serves while the kubelet says that it lives. With the hooks of `spec.engine.custom` it also sleeps and wakes. They
are called without a token: nobody but this server could check it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from genrm_api.engine import CustomEngine, OrderHook
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason

from genrm_operator.engines.adapter import Call, Capabilities, Container, Hooks
from genrm_operator.engines.weights import locate
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings


class Custom:
    has_door = False
    capabilities = Capabilities()
    asleep: Call | None = None
    guarded = Call("GET", "/")
    running: str | None = None
    about: Sequence[Call] = ()

    def hooks(self, rm: RewardModel) -> Hooks | None:
        own = _own(rm)
        if own.is_sleeping is None:
            return None
        count = None if own.in_flight is None else Call("GET", own.in_flight.path)
        return Hooks(Call("GET", own.is_sleeping.path), count)

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        engine, own = rm.spec.engine, _own(rm)
        assert engine.image is not None, "the CRD's rules require it"
        weights = locate(rm, settings)
        for name, hook in (("sleep", own.sleep), ("wake", own.wake)):
            _order(name, hook)  # what cannot be read is refused before there are pods
        return Container(
            image=engine.image,
            command=own.command,
            args=engine.args or (),
            env={"GENRM_MODEL": weights.path, "GENRM_SERVED_NAME": rm.served_name},
            health_path=own.health_path,
            volumes=weights.volumes,
            mounts=weights.mounts,
        )

    def worker(self, rm: RewardModel, settings: Settings) -> Container:
        raise Impossible(Reason.NODES_NOT_SUPPORTED, "spec.gpu.nodes: engine custom runs on one node; remove it")

    def sleep(self, rm: RewardModel) -> Sequence[Call]:
        return _order("sleep", _own(rm).sleep)

    def wake(self, rm: RewardModel) -> Sequence[Call]:
        return _order("wake", _own(rm).wake)

    def first_question(self, rm: RewardModel) -> Call | None:
        return None

    def rendering(self, rm: RewardModel, messages: Sequence[Mapping[str, str]], *, opens: bool) -> Call | None:
        return None

    def tokenizing(self, rm: RewardModel, text: str) -> Call | None:
        return None

    def tokens(self, answer: Any) -> tuple[int, ...]:
        raise ValueError("an engine of which nothing is known")

    def golden_row(self, rm: RewardModel, asked: str | Sequence[int], salt: str) -> Call | None:
        return None

    def golden_values(self, answer: Any) -> tuple[float, ...]:
        raise ValueError("an engine of which nothing is known")

    def unfit(self, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
        return None


def _own(rm: RewardModel) -> CustomEngine:
    assert rm.spec.engine.custom is not None, "the CRD's rules require it"
    return rm.spec.engine.custom


def _order(name: str, hook: OrderHook | None) -> Sequence[Call]:
    if hook is None:
        return ()
    try:
        body = None if hook.body is None else json.loads(hook.body)
    except ValueError as error:
        raise Impossible(
            Reason.HOOK_NOT_READABLE, f"spec.engine.custom.{name}.body: {error}; write a JSON object"
        ) from error
    return (Call(hook.method, hook.path, body=body),)
