"""Whether an engine that was given its slot finds the memory there that it is about to take.

That a slot is free follows from words: an engine's that it sleeps, a trainer's that it has given the GPUs back, a
kubelet's that a container has ended. The waiter's own gate or door is on the same GPUs, and can see whether the memory
is there: after a trainer nobody else looks. While too much is in use its engine is not let in, and keeps its place, so
that nobody else is let in either. Where the driver does not say what is in use, the words count.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from genrm_api.engine import EngineName
from genrm_api.rewardmodel import RewardModel

from genrm_operator.errors import EngineError
from genrm_operator.night import KEPT_BYTES, KEPT_SHARE, DeviceMemory, Night
from genrm_operator.observed import DoorState, Pod
from genrm_operator.slots import Holding, Turn

SHARES: Final = {EngineName.VLLM: 0.9, EngineName.SGLANG: 0.7}
"""Of each GPU, what an engine takes that nobody told how much: vLLM's own default, 0.92 in newer ones; SGLang computes
it from what the GPU has, 0.8 to 0.9 of one of 80 GiB and less of a small one."""
MOST_SHARE: Final = 0.95
"""Of each GPU, what an engine takes at most that nobody told how much, or told in its arguments."""
SLACK: Final = 0.01
"""Of each GPU: the driver keeps some for itself, which is in use for us and not there at all for the engine."""
SETTLE_SECONDS: Final = 2.0
"""The driver may need a moment to take back what a process that ends had; after that it is somebody's."""
AGAIN_SECONDS: Final = 0.5
GIB: Final = 1 << 30

Measure = Callable[[Pod], Awaitable[DeviceMemory | None]]


def lacks(rm: RewardModel, found: DeviceMemory, *, asleep: bool, night: Night | None) -> str | None:
    """What is missing for its engine to start, or to wake if it is `asleep`; `None`: nothing, as far as can be told.

    `night`: what its sleep gave back, which its wake takes again.
    """
    share = rm.spec.engine.gpu_memory_utilization or SHARES.get(rm.spec.engine.name)
    released = None if night is None else night.released
    for used, total in found.gpus:
        if asleep and released is not None:
            # More than it may take was somebody else's, who went while it fell asleep.
            most = rm.spec.engine.gpu_memory_utilization or MOST_SHARE
            needs = min(released / len(found.gpus), most * total)
        elif share is None:
            return None
        else:  # who sleeps has what it kept already; nobody knows how much that is
            needs = share * total - (max(KEPT_BYTES, share * total * KEPT_SHARE) if asleep else 0)
        if total - used < needs - SLACK * total:
            return (
                f"of a GPU's {total / GIB:.1f} GiB {(total - used) / GIB:.1f} are free, and the engine needs "
                f"{needs / GIB:.1f}"
            )
    return None


async def look(
    rm: RewardModel, mine: Holding, pods: Sequence[Pod], turns: Mapping[str, Turn], nights: Mapping[str, Night],
    measure: Measure, tight: dict[str, float], now: float,
) -> tuple[list[Pod], dict[str, Turn]]:  # fmt: skip
    """The pods and the turns, without those that were given a slot whose memory is not there.

    `tight`: kept between looks, since when that was seen, by uid of the pod.
    """
    found = await asyncio.gather(*(_lacks(rm, pod, nights.get(pod.uid), measure) for pod in pods))
    short = {pod.uid: what for pod, what in zip(pods, found, strict=True) if what is not None}
    for uid in set(tight) - set(short):
        del tight[uid]
    kept = dict(turns)
    for pod in pods:
        if pod.uid in short:
            since = tight.setdefault(pod.uid, now)
            slot = next(name for name, places in mine.slots.items() if places == pod.places)
            kept[slot] = dataclasses.replace(  # runs that are refused stay so
                kept[slot], given=False, waits=_sentence(slot, pod, short[pod.uid]),
                blocked=now - since >= SETTLE_SECONDS, look_again_at=now + AGAIN_SECONDS,
            )  # fmt: skip
    return [dataclasses.replace(pod, may_be_up=pod.may_be_up and pod.uid not in short) for pod in pods], kept


async def _lacks(rm: RewardModel, pod: Pod, night: Night | None, measure: Measure) -> str | None:
    door = pod.door
    if not pod.may_be_up or not pod.places or pod.busy is not None or pod.deleting or door is None:
        return None
    asleep = door.engine_asleep is True
    if not asleep and door.state is not DoorState.GATED:
        return None
    try:
        memory = await measure(pod)
    except EngineError:
        return None  # who does not answer is not let in either
    return None if memory is None else lacks(rm, memory, asleep=asleep, night=door.last_night or night)


def _sentence(slot: str, pod: Pod, what: str) -> str:
    return (
        f"slot {slot} is not seen to be free: pod {pod.name} sees that {what}, although all who share it say that they "
        "gave their memory back; look with nvidia-smi on the node whose process has it (a trainer's, one that "
        "sleeps and keeps much, one that nobody here knows), end that, or lower spec.engine.gpuMemoryUtilization"
    )
