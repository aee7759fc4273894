"""Carrying a pod from awake to asleep and back. Each step looks first, so a transition can be repeated at any point.

*Sleep*: door to `draining` → nobody inside → engine sleep → the engine confirms → door `asleep`. The serving label is
already off when this begins. If requests stay inside past the drain deadline the pod goes back into service.
*Wake*: engine wake if it sleeps → the engine confirms → verified → door `serving`. The label follows in the next look.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from genrm_api import durations
from genrm_api.rewardmodel import RewardModel

from genrm_operator.doors import Doors
from genrm_operator.engines import Adapter
from genrm_operator.errors import DrainTimeout, EngineError, NotVerified
from genrm_operator.observed import DoorState, Pod, Transition

POLL_SECONDS: Final = 0.02
"""Between looks while requests finish inside: far below any judgement, and a look costs the door microseconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Everything a transition needs to know of where it runs."""

    rm: RewardModel
    pod: Pod
    adapter: Adapter
    token: str


async def run(transition: Transition, target: Target, doors: Doors) -> None:
    """Carry out one transition.

    Raises:
        EngineError: it could not be completed; the pod is in a state that the next look will tell.
    """
    if transition is Transition.WAKE:
        await wake(target, doors)
    else:
        await sleep(target, doors)


async def wake(target: Target, doors: Doors) -> None:
    pod, token, asleep = target.pod, target.token, target.adapter.is_asleep()
    if await doors.is_asleep(pod, token, asleep):
        await doors.call_engine(pod, token, target.adapter.wake(target.rm))
        if await doors.is_asleep(pod, token, asleep):
            raise EngineError(pod.name, "the engine took the wake call, and says that it still sleeps")
    await verify(target, doors)
    await doors.set_state(pod, token, DoorState.SERVING)


async def verify(target: Target, doors: Doors) -> None:
    """Whether this engine may serve: the door guards it, and it serves the model under the name that runs will use."""
    await doors.verify_guarded(target.pod, target.adapter.is_asleep())
    served = await doors.served_models(target.pod)
    if target.rm.served_name not in served:
        raise NotVerified(target.pod.name, f"serves {', '.join(served)}, not {target.rm.served_name}")


async def sleep(target: Target, doors: Doors) -> None:
    pod, token, asleep = target.pod, target.token, target.adapter.is_asleep()
    door = await doors.look(pod, token)
    if door.state is DoorState.SERVING:
        door = await doors.set_state(pod, token, DoorState.DRAINING)
    drain = durations.seconds(target.rm.spec.lifecycle.sleep.drain_timeout)
    try:
        async with asyncio.timeout(drain):
            while door.inside:
                await asyncio.sleep(POLL_SECONDS)
                door = await doors.look(pod, token)
    except TimeoutError as error:
        if door.state is DoorState.DRAINING:
            await doors.set_state(pod, token, DoorState.SERVING)
        raise DrainTimeout(
            pod.name, f"{door.inside} requests were still inside after {drain:g} s; the pod serves on"
        ) from error
    if not await doors.is_asleep(pod, token, asleep):
        await doors.call_engine(pod, token, target.adapter.sleep(target.rm))
        if not await doors.is_asleep(pod, token, asleep):
            raise EngineError(pod.name, "the engine took the sleep call, and says that it is awake")
    await doors.set_state(pod, token, DoorState.ASLEEP)
