"""What stands for the door before an engine that has none: its hooks, and what the operator has begun with whom.

The calls are those of `Doors`, so that transitions are the same for both. Nothing here closes the way to an engine:
that the serving label is off, and that kube-proxy has heard of it, is all there is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from genrm_operator.calls import Answer
from genrm_operator.doors import ADMIN_TIMEOUT, LOOK_TIMEOUT, Doors
from genrm_operator.engines.adapter import Call, Hooks
from genrm_operator.night import DeviceMemory
from genrm_operator.observed import Door, DoorState, Pod, stand_in

LINGER_SECONDS: Final = 2.0
"""After a pod has lost its serving label: for how long a request may still be on its way to it by an older word."""


@dataclass(frozen=True, slots=True)
class Hooked:
    """The pods of one RewardModel whose engine has hooks. No token goes to them."""

    doors: Doors
    hooks: Hooks
    shut: dict[str, float | None]
    """Kept between looks. Pods that are being drained: uid → loop time until which requests may be on their way; `None`
    once an order was given: how that went is known when it has ended.
    """
    linger: float = LINGER_SECONDS

    async def look(self, pod: Pod, token: str, timeout: float = LOOK_TIMEOUT) -> Door:
        """Ask the engine. One that is open is not asked to count: only a drain waits for that.

        Raises:
            EngineError: a hook gave no answer that could be read.
        """
        asleep = await self.doors.is_asleep(pod, "", self.hooks.is_sleeping, timeout)
        if pod.uid not in self.shut:
            return stand_in(pod, asleep)
        count = self.hooks.in_flight
        inside = 0 if count is None else await self.doors.in_flight(pod, count, timeout)
        on_their_way = asyncio.get_running_loop().time() < (self.shut.get(pod.uid) or 0.0)
        return stand_in(pod, asleep, inside=max(inside, int(on_their_way)), shut=self._shut(pod))

    def unknown(self, pod: Pod) -> Door:
        """In the place of a look that got no answer."""
        return stand_in(pod, None, shut=self._shut(pod))

    def _shut(self, pod: Pod) -> DoorState | None:
        if pod.uid not in self.shut:
            return None
        return DoorState.CLOSED if self.shut[pod.uid] is None else DoorState.DRAINING

    async def set_state(self, pod: Pod, token: str, state: DoorState, *, cut: bool = False) -> Door:
        """Remember who is drained; that begins with the wait for those who are on their way.

        `cut` ends nobody here: only a door could. The API refuses to ask for it.
        """
        if state is DoorState.DRAINING:
            self.shut[pod.uid] = asyncio.get_running_loop().time() + self.linger
            await asyncio.sleep(self.linger)
        else:
            self.shut.pop(pod.uid, None)
        return await self.look(pod, token)

    async def device_memory(self, pod: Pod, token: str) -> DeviceMemory | None:
        """Nobody measures it."""
        return None

    async def running(self, pod: Pod, gauge: str) -> int:
        """What it counts is what `look` says is inside."""
        return 0

    async def is_asleep(self, pod: Pod, token: str, call: Call | None) -> bool:
        return await self.doors.is_asleep(pod, "", self.hooks.is_sleeping)

    async def call_engine(self, pod: Pod, token: str, call: Call, timeout: float = ADMIN_TIMEOUT) -> Answer:
        """Give an order. From here on nobody calls it off, and nobody is served before it has succeeded."""
        self.shut[pod.uid] = None
        return await self.doors.call_engine(pod, None, call, timeout)
