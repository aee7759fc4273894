"""Carrying a pod from awake to asleep and back. Each step looks first, so a transition can be repeated at any point.

*Verify*: once for each boot of a pod's server, before anything else is done to it; the readiness gate says so.
What it computes is compared with what engines like it computed before, and with what its user knows (`canary`), then
and after each wake.
*Sleep*: door to `draining` → nobody inside → engine sleep → the engine confirms → the memory of its GPUs is measured →
door `asleep`. The serving label is already off when this begins. The door keeps what is measured: an operator whose
predecessor died after the order finds the engine asleep, and what was in use before. If requests stay inside past the
drain deadline the pod goes back into service, or, with `onDrainTimeout: Abort`, the door ends them: each is answered
503, and asked again elsewhere by a client that can. It does so too where the engine has fallen asleep by itself.
A version that sleeps badly is not told to, and serves on.
*Wake*: engine wake if it sleeps → verified if this boot was not → compared → door `serving`, which asks the engine
whether it is awake, and stays shut if not. The label follows in the next look.
*Start*: the release of an engine that waits at its gate; when it has started it is verified like any other. With
`sleep.mode: Restart` that is its wake: it sleeps by going back to its gate, drained like any other.

An engine without a door takes the same way by its hooks (`hooked`); there is nothing to verify of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

from genrm_api import durations
from genrm_api.effective import effective_spec
from genrm_api.lifecycle import OnDrainTimeout, SleepMode
from genrm_api.rewardmodel import RewardModel

from genrm_operator.calls import Answer
from genrm_operator.canary import ROW_SECONDS, Canary
from genrm_operator.doors import Doors
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import Call, bad_sleeper
from genrm_operator.errors import DoorUnreachable, DrainTimeout, EngineError, EngineHangs, NotVerified
from genrm_operator.hooked import Hooked
from genrm_operator.night import DeviceMemory, Night
from genrm_operator.observed import Door, DoorState, Pod, Transition

CUT_SECONDS: Final = 5.0
"""What the door may take to end those inside: an engine notices a request that was given up within a step or two."""
SETTLE_SECONDS: Final = 2.0
"""After a sleep, until what is still in use counts as kept."""
LAG_SECONDS: Final = 1.0
"""For which nobody has to have been inside before an engine's metrics are asked whether somebody is."""
POLL_SECONDS: Final = 0.02
"""Between looks while requests finish inside: far below any judgement, and a look costs the door microseconds."""


STILL_SLEEPS: Final = "the engine took the wake call, and says that it still sleeps"


class Front(Protocol):
    """What stands before an engine: doors, or hooks in their place."""

    async def look(self, pod: Pod, token: str) -> Door: ...

    async def set_state(self, pod: Pod, token: str, state: DoorState, *, cut: bool = False) -> Door: ...

    async def is_asleep(self, pod: Pod, token: str, call: Call | None) -> bool: ...

    async def call_engine(self, pod: Pod, token: str, call: Call, timeout: float) -> Answer: ...

    async def device_memory(self, pod: Pod, token: str) -> DeviceMemory | None: ...

    async def running(self, pod: Pod, gauge: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Everything a transition needs to know of where it runs."""

    rm: RewardModel
    pod: Pod
    adapter: Adapter
    token: str
    hooked: Hooked | None = None
    """Where there is no door."""
    canary: Canary | None = None
    """Where what the engine computes can be compared, and is to be."""
    nights: dict[str, Night] = field(default_factory=dict)
    """Where is written, by uid of the pod, what its last sleep gave back."""
    engine_wakes: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Where is written, by uid of the pod, when its engine began and ended its last wake."""
    at_gate: bool = False
    """It sleeps by its end: it rests at its start gate."""
    strays: dict[str, int] = field(default_factory=dict)
    """Where is written, by uid of the pod, how many requests its engine computed when its door knew of none."""
    ordered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set before its engine is told to sleep: from there on nobody calls it off."""

    def front(self, doors: Doors) -> Front:
        return self.hooked or doors


def rests_at_gate(rm: RewardModel) -> bool:
    """Whether its engines sleep by their end: those of `ScaleToZero` have no other sleep while they wait for a slot."""
    return effective_spec(rm).lifecycle.sleep_mode in (SleepMode.RESTART, SleepMode.SCALE_TO_ZERO)


async def run(transition: Transition, target: Target, doors: Doors) -> int:
    """Carry out one transition; return how many requests were ended for it.

    Raises:
        EngineError: it could not be completed; the pod is in a state that the next look will tell.
    """
    match transition:
        case Transition.START:
            await target.front(doors).set_state(target.pod, target.token, DoorState.CLOSED)
        case Transition.VERIFY:
            await verify(target, doors)
        case Transition.WAKE:
            await wake(target, doors)
        case Transition.SLEEP:
            await _refuse_bad_sleeper(target, doors)
            return await sleep(target, target.front(doors))
    return 0


async def wake(target: Target, doors: Doors) -> None:
    """Wake the engine and open its door.

    Raises:
        EngineHangs: a call got no answer in time, though its door answers: such a pod may have to be replaced. Where
            the door does not answer either, the network, the node or its container may be the trouble.
    """
    try:
        await _wake(target, doors)
    except DoorUnreachable as error:
        await target.front(doors).look(target.pod, target.token)
        raise EngineHangs(target.pod.name, f"the engine hangs, and its door answers ({error})") from error


async def _wake(target: Target, doors: Doors) -> None:
    """Few calls, because all pods of a model wake at once: the look that began this is not repeated, what was verified
    of this boot stays so, and a door does not open before its engine has said that it is awake. Of an engine that was
    carrying out somebody's order then, what it said is no news any more."""
    pod, token, front = target.pod, target.token, target.front(doors)
    door = pod.door
    word = None if door is None or door.ordered else door.engine_asleep
    if await front.is_asleep(pod, token, target.adapter.asleep) if word is None else word:
        if target.canary is not None:
            target.canary.sleeps(pod)
        limit = durations.seconds(target.rm.spec.lifecycle.wake.timeout)
        now = asyncio.get_running_loop().time
        began = now()
        for call in target.adapter.wake(target.rm):
            await front.call_engine(pod, token, call, limit)
        target.engine_wakes[pod.uid] = (began, now())
        if target.hooked is not None and await front.is_asleep(pod, token, target.adapter.asleep):
            raise EngineError(pod.name, STILL_SLEEPS)
    verified = door is not None and pod.verified_boot_id == door.boot_id
    if target.hooked is None and (target.canary is not None or not verified):
        await verify(target, doors, woken=True)
    if (await front.set_state(pod, token, DoorState.SERVING)).engine_asleep:
        raise EngineError(pod.name, STILL_SLEEPS)  # its door was open before, so that it had nothing to refuse


async def verify(target: Target, doors: Doors, *, woken: bool = False) -> None:
    """Whether this engine may serve: the door guards it, it serves the model under the name that runs will use, and it
    computes what others like it do."""
    pod, adapter = target.pod, target.adapter
    await doors.verify_guarded(pod, adapter.guarded)
    served = await doors.served_models(pod)
    if target.rm.served_name not in served:
        raise NotVerified(pod.name, f"serves {', '.join(served)}, not {target.rm.served_name}")
    if (why := adapter.unfit(target.rm, await doors.about(pod, adapter.about))) is not None:
        raise NotVerified(pod.name, why)
    await _compute(target, doors, served[target.rm.served_name], woken=woken)


async def _compute(target: Target, doors: Doors, longest: int | None, *, woken: bool) -> None:
    """Have the engine compute before its clients do: where its start did not, and to see whether it does so rightly."""
    pod, token = target.pod, target.token
    question = target.adapter.first_question(target.rm)
    due = target.canary is not None and target.canary.is_due(pod)
    if question is None and not due:
        return
    door = await doors.look(pod, token)
    if door.engine_asleep:
        if woken:
            raise EngineError(pod.name, "the engine said that it is awake, and says that it sleeps")
        return  # it will be asked when it wakes
    if question is not None and door.state is DoorState.CLOSED and door.engine_asleep is False:
        await doors.call_engine(pod, token, question)
    if target.canary is not None and due:
        # Clients stay out meanwhile, and the operator gets in only while nobody else does.
        if door.state is not DoorState.CLOSED:
            await doors.set_state(pod, token, DoorState.CLOSED)
        ask = partial(doors.call_engine, pod, token, timeout=ROW_SECONDS)
        await target.canary.ask(pod, ask, longest, woken=woken)


async def _refuse_bad_sleeper(target: Target, doors: Doors) -> None:
    """Before its door shuts, so that it serves on. When this boot was verified the model may have been one that never
    sleeps. Who has fallen asleep by itself is past that, and must not stay behind an open door."""
    pod, adapter = target.pod, target.adapter
    sleeps = pod.door is not None and pod.door.engine_asleep is True
    if target.at_gate or sleeps or not adapter.capabilities.bad_series:
        return
    if (why := bad_sleeper(adapter.capabilities, await doors.about(pod, adapter.about))) is not None:
        raise EngineError(pod.name, f"is not told to sleep, for it {why}")


async def sleep(target: Target, front: Front) -> int:
    pod, token, asleep = target.pod, target.token, target.adapter.asleep
    aborted = await _drain(target, front)
    if not aborted:
        await _count_strays(target, front)
    target.ordered.set()
    if target.at_gate:
        await _leave(target, front)
        return aborted
    if target.canary is not None:
        target.canary.sleeps(pod)  # by itself it may wake, too: whoever finds it awake has it compared
    slept = await front.is_asleep(pod, token, asleep)
    if not slept or await _holds_memory(target, front):
        limit = durations.seconds(target.rm.spec.lifecycle.sleep.timeout)
        before = await front.device_memory(pod, token)
        for call in target.adapter.sleep(target.rm):
            await front.call_engine(pod, token, call, limit)
        if not await front.is_asleep(pod, token, asleep):
            raise EngineError(pod.name, "the engine took the sleep call, and says that it is awake")
        if await _holds_memory(target, front):
            raise EngineError(pod.name, "the engine took the sleep call, and has not released all of its memory")
        await _measure(target, front, Night(None if before is None else before.used, None, slept))
    elif (night := (await front.look(pod, token)).night) is not None and night.before is not None:
        await _measure(target, front, night)
    await front.set_state(pod, token, DoorState.ASLEEP)
    return aborted


async def _count_strays(target: Target, front: Front) -> None:
    """Ask the engine's own metrics whether somebody is inside after all, which is told: somebody may have found a way
    past the door, or the engine goes on with what its client gave up. It stops nothing, for the door's count is what a
    sleep waits for; and it keeps nobody: metrics lag, so they are not asked where somebody was inside just now."""
    if (gauge := target.adapter.running) is None:
        return
    with contextlib.suppress(EngineError):
        idle = (await front.look(target.pod, target.token)).idle_seconds
        if LAG_SECONDS <= idle < math.inf and (found := await front.running(target.pod, gauge)):
            target.strays[target.pod.uid] = found


async def _holds_memory(target: Target, front: Front) -> bool:
    """Whether the engine only says that it sleeps: SGLang does so when it is paused. Hooks keep no account of that."""
    return target.hooked is None and (await front.look(target.pod, target.token)).holds_memory


async def _leave(target: Target, front: Front) -> None:
    """End the engine, and see its container back at the start gate."""
    pod, token = target.pod, target.token
    limit = durations.seconds(target.rm.spec.lifecycle.sleep.timeout)
    before = await front.device_memory(pod, token)
    left = await front.set_state(pod, token, DoorState.GATED)
    now = asyncio.get_running_loop().time
    end = now() + limit
    while True:
        with contextlib.suppress(DoorUnreachable):  # for as long as its processes take to end
            door = await front.look(pod, token)
            if door.state is DoorState.GATED and door.boot_id != left.boot_id:
                break
        if now() >= end:
            raise EngineError(pod.name, f"its engine was told to end, and is not back at its gate after {limit:g} s")
        await asyncio.sleep(POLL_SECONDS)
    await _measure(target, front, Night(None if before is None else before.used, None))


async def _measure(target: Target, front: Front, night: Night) -> None:
    """What the sleep gave back. The driver may need a moment to take it; what nobody can see any more was kept."""
    now = asyncio.get_running_loop().time
    end = now() + SETTLE_SECONDS
    while True:
        found = None
        with contextlib.suppress(EngineError):
            found = await front.device_memory(target.pod, target.token)
        seen = replace(night, after=None if found is None else found.used).over()
        target.nights[target.pod.uid] = seen
        if seen.effective is not False or now() >= end:
            return
        await asyncio.sleep(POLL_SECONDS * 5)


async def _drain(target: Target, front: Front) -> int:
    """Shut the door and wait until nobody is inside; return how many had to be ended for that.

    Raises:
        DrainTimeout: somebody stays; the pod serves on, unless its engine sleeps.
    """
    pod, token, how = target.pod, target.token, target.rm.spec.lifecycle.sleep
    door = await front.look(pod, token)
    if door.state is DoorState.SERVING:
        door = await front.set_state(pod, token, DoorState.DRAINING)
    drain = durations.seconds(how.drain_timeout)
    if not (door := await _empty(pod, token, door, front, drain)).inside:
        return 0
    stayed, sleeps = door.inside, door.engine_asleep is True  # by itself, and so it answers none of them
    ends = how.on_drain_timeout is OnDrainTimeout.ABORT or (sleeps and target.adapter.capabilities.lets_go)
    if ends and door.state is DoorState.DRAINING:
        door = await front.set_state(pod, token, DoorState.DRAINING, cut=True)
        if not (door := await _empty(pod, token, door, front, CUT_SECONDS)).inside:
            return stayed
    if sleeps:
        raise DrainTimeout(
            pod.name, f"{door.inside} requests are still inside after {drain:g} s, and its engine sleeps"
        )
    if door.state is DoorState.DRAINING:
        await front.set_state(pod, token, DoorState.SERVING)
    raise DrainTimeout(pod.name, f"{door.inside} requests were still inside after {drain:g} s; the pod serves on")


async def _empty(pod: Pod, token: str, door: Door, front: Front, seconds: float) -> Door:
    """Look until nobody is inside or the time is over; the last look."""
    try:
        async with asyncio.timeout(seconds):
            while door.inside:
                await asyncio.sleep(POLL_SECONDS)
                door = await front.look(pod, token)
    except TimeoutError:
        pass
    return door
