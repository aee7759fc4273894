"""The operator's calls to one pod's door: look, set its state, and pass an admin call on to the engine behind it.

Wire format: `docs/reference/door.md`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

from genrm_api.names import DOOR_PATH, ENGINE_PORT, HEADER_BOOT_ID, HEADER_EPOCH

from genrm_operator.calls import Answer, Calls, Unreachable
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import Deposed, DoorUnreachable, EngineError, NotVerified
from genrm_operator.night import DeviceMemory
from genrm_operator.observed import Door, DoorState, Pod

LOOK_TIMEOUT: Final = 1.0
"""Seconds for a look: an answer comes in milliseconds, or the pod is in trouble and the others must not wait for it."""
ADMIN_TIMEOUT: Final = 120.0
"""Seconds for an engine's own sleep or wake: copying a large model's weights takes tens of seconds."""


class Doors:
    """A connection pool to all doors."""

    def __init__(self, epoch: Callable[[], int | None] = lambda: None) -> None:
        """`epoch` says under which leadership orders are given, and raises if they may not be given any more."""
        self._epoch = epoch
        self._calls = Calls(most_connections=256)
        self._orders = Calls(most_connections=0)
        """For what engines take minutes for: nobody who only looks waits for that. There is one for a pod at most."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._calls.__aexit__(*exc)
        await self._orders.__aexit__(*exc)

    async def look(self, pod: Pod, token: str, timeout: float = LOOK_TIMEOUT) -> Door:
        """Read the door's document."""
        answer = await self._send(pod, token, "GET", DOOR_PATH, timeout)
        return _read(pod, DOOR_PATH, lambda: Door.from_document(answer.json()))

    async def take_charge(self, pod: Pod, token: str) -> Door:
        """Read the door's document, and see that it has heard of this leadership.

        Else what an earlier leader has sent could still arrive, and be obeyed: its process may be gone, and a packet of
        it on its way for a minute. An order to stay as it is tells the door, and nothing else.
        """
        door = await self.look(pod, token)
        epoch = self._epoch()
        if epoch is None or door.epoch is None or door.epoch >= epoch:
            return door
        return await self.set_state(dataclasses.replace(pod, door=door), token, door.state, timeout=LOOK_TIMEOUT)

    async def device_memory(self, pod: Pod, token: str) -> DeviceMemory | None:
        """What is in use of the pod's GPUs, by whomever; `None` where nobody can say, or its door is of before."""
        answer = await self._send(pod, token, "GET", f"{DOOR_PATH}?memory=1", LOOK_TIMEOUT)
        return _read(pod, DOOR_PATH, lambda: DeviceMemory.from_document(answer.json()))

    async def set_state(
        self, pod: Pod, token: str, state: DoorState, *, cut: bool = False, timeout: float = LOOK_TIMEOUT * 5
    ) -> Door:
        """`cut`: end what is inside, with `state` draining; a door from before this word drains on."""
        path = f"{DOOR_PATH}?cut=1" if cut else DOOR_PATH
        answer = await self._send(pod, token, "PUT", path, timeout, {"state": str(state)})
        return _read(pod, DOOR_PATH, lambda: Door.from_document(answer.json()))

    async def call_engine(self, pod: Pod, token: str | None, call: Call, timeout: float = ADMIN_TIMEOUT) -> Answer:
        path = f"{call.path}?{urlencode(call.query)}" if call.query else call.path
        return await self._send(pod, token, call.method, path, timeout, call.body, by=self._orders)

    async def is_asleep(self, pod: Pod, token: str, call: Call | None, timeout: float = LOOK_TIMEOUT * 5) -> bool:
        """Whether the engine sleeps, in its own word; in the door's where there is no call that asks the engine.

        Raises:
            EngineError: nobody knows.
        """
        if call is None:
            if (word := (await self.look(pod, token)).engine_asleep) is None:
                raise EngineError(pod.name, "a call to the engine failed, and nobody knows whether it sleeps")
            return word
        answer = await self.call_engine(pod, token, call, timeout)
        return _read(pod, call.path, lambda: _exactly(bool, answer.json()["is_sleeping"]))

    async def in_flight(self, pod: Pod, call: Call, timeout: float = LOOK_TIMEOUT) -> int:
        """How many requests an engine without a door says it has inside."""
        answer = await self.call_engine(pod, None, call, timeout)
        return _read(pod, call.path, lambda: max(_exactly(int, answer.json()["in_flight"]), 0))

    async def running(self, pod: Pod, gauge: str) -> int:
        """How many requests the engine's own metrics say that it computes, all its ranks together; 0 where they do not
        say."""
        answer = await self._send(pod, None, "GET", "/metrics", LOOK_TIMEOUT)
        lines = answer.body.decode(errors="replace").splitlines()
        found = [line for line in lines if line.partition("{")[0].partition(" ")[0] == gauge]
        return _read(pod, "/metrics", lambda: round(sum(float(line.rpartition("}")[2].split()[-1]) for line in found)))

    async def verify_guarded(self, pod: Pod, call: Call) -> None:
        """Check that what needs the operator's token is closed to whoever has none.

        Raises:
            NotVerified: the engine answers anyone, so something is wrong with its door.
        """
        answer = await self._request(pod, None, call.method, call.path, LOOK_TIMEOUT * 5)
        if answer.status != 404:
            raise NotVerified(pod.name, f"{call.path} without a token answers {answer.status} instead of 404")

    async def served_models(self, pod: Pod) -> Mapping[str, int | None]:
        """By name, how many tokens each takes, if the engine says so."""
        answer = await self._send(pod, None, "GET", "/v1/models", LOOK_TIMEOUT * 5)

        def longest(model: Mapping[str, Any]) -> int | None:
            return None if (said := model.get("max_model_len")) is None else int(said)

        return _read(pod, "/v1/models", lambda: {str(model["id"]): longest(model) for model in answer.json()["data"]})

    async def about(self, pod: Pod, calls: Sequence[Call]) -> dict[str, Any]:
        """What the server says of itself, of all calls together."""
        said: dict[str, Any] = {}
        for call in calls:
            answer = await self.call_engine(pod, None, call, LOOK_TIMEOUT * 5)
            said |= _read(pod, call.path, lambda answer=answer: dict(answer.json()))  # type: ignore[misc]
        return said

    async def _send(
        self, pod: Pod, token: str | None, method: str, path: str, timeout: float,
        body: Mapping[str, Any] | None = None, by: Calls | None = None,
    ) -> Answer:  # fmt: skip
        answer = await self._request(pod, token, method, path, timeout, body, by)
        if answer.status >= 300:
            raise EngineError(pod.name, f"{method} {path} answered {answer.status}: {answer.text}", answer.status)
        return answer

    async def _request(
        self, pod: Pod, token: str | None, method: str, path: str, timeout: float,
        body: Mapping[str, Any] | None = None, by: Calls | None = None,
    ) -> Answer:  # fmt: skip
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Asked for before every order: who does not lead any more gives none to an engine without a door either.
        epoch = self._epoch() if method != "GET" else None
        if token and epoch is not None:
            headers[HEADER_EPOCH] = str(epoch)
        if token and method != "GET" and pod.door is not None:
            headers[HEADER_BOOT_ID] = pod.door.boot_id
        try:
            answer = await (by or self._calls).send(method, f"{_url(pod)}{path}", headers, timeout, body)
        except Unreachable as error:
            raise DoorUnreachable(pod.name, f"{method} {path}: {error}") from error
        if answer.status == HTTPStatus.CONFLICT and token and epoch is not None:
            await self._ask_who_leads(pod, token, epoch)
        return answer

    async def _ask_who_leads(self, pod: Pod, token: str, epoch: int) -> None:
        """Whether an order was refused for who gave it. Then it says nothing of the pod, however often that happens.

        Raises:
            Deposed: a later leader gives the orders there.
        """
        with contextlib.suppress(EngineError):
            heard_of = (await self.look(pod, token)).epoch
            if heard_of is not None and heard_of > epoch:
                raise Deposed(f"the door of pod {pod.name} takes orders of epoch {heard_of}, and this one was {epoch}")


T = TypeVar("T")


def _read(pod: Pod, path: str, parse: Callable[[], T]) -> T:
    """Read an answer. What an engine sends is not ours: another shape is its error, not a bug of the operator's."""
    try:
        return parse()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(pod.name, f"{path} answered in a form that cannot be read: {error!r}") from error


def _exactly(kind: type[T], found: Any) -> T:
    if type(found) is not kind:
        raise TypeError(f"found {found!r}, wanted {kind.__name__}")
    return found


def _url(pod: Pod) -> str:
    assert pod.ip is not None, "only pods with an address are called"
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return f"http://{host}:{ENGINE_PORT}"
