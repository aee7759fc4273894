"""What to do next to the pods of one RewardModel: `decide(pods, desired, now) -> actions`. No I/O.

Order is safety. A pod carries the serving label only while its door serves and its engine is awake under the boot id
that was verified; the label goes before a sleep begins and comes after the door has opened. Every action is safe to
repeat: it starts from what the door and the engine say now, so a missed event or a new operator process changes
nothing. A pod that shares its GPUs is up only while it may be (`slots`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from genrm_operator.demand import Desired
from genrm_operator.observed import Door, DoorState, Pod, Transition

UNREACHABLE_RETRY_SECONDS: Final = 1.0
"""A pod that the kubelet calls ready and whose door or engine did not answer: look again this soon."""


class PodState(enum.StrEnum):
    """One word for what a pod is doing, as status shows it."""

    PENDING = "Pending"
    GATED = "Gated"
    STARTING = "Starting"
    VERIFYING = "Verifying"
    SERVING = "Serving"
    DRAINING = "Draining"
    SLEEPING = "Sleeping"
    ASLEEP = "Asleep"
    WAKING = "Waking"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Serve:
    """Put the serving label on a pod, bound to the boot id (`None` for an engine without a door and without hooks)."""

    pod: Pod
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class StopServing:
    """Take the serving label off a pod."""

    pod: Pod
    because: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a transition on a pod; it runs in the background and ends by another look at the RewardModel."""

    pod: Pod
    transition: Transition


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a transition whose purpose is gone: a drain that still waits, for pods that are wanted again."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Rest:
    """Tell Kubernetes that a pod which waits at its start gate is as it should be: a rollout need not wait for it."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Join:
    """Tell Kubernetes that a verified pod is where it is wanted: the pod that it replaces may go."""

    pod: Pod


Action = Serve | StopServing | Begin | GiveUp | Rest | Join


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    look_again_at: float | None
    """Monotonic seconds of the next retry; `None` if nothing waits for time to pass."""


def decide(
    pods: Iterable[Pod], desired: Desired, now: float, *, has_door: bool, at_gate: bool = False, sleeps: bool = True
) -> Plan:
    """Plan the next actions for all pods of a RewardModel.

    Args:
        has_door: or hooks that stand for one.
        at_gate: its engines rest at their start gates.
        sleeps: its pods are kept when it rests. Of one whose pods go then, or that never does, nobody knows that its
            engines may sleep.
    """
    actions: list[Action] = []
    retries: list[float] = []
    for pod in pods:
        wanted = Desired.ASLEEP if desired is Desired.AWAKE and not pod.may_be_up else desired
        actions += _for_pod(pod, wanted, now, at_gate, sleeps) if has_door else _without_door(pod, desired)
        if pod.retry_at > now:
            retries.append(pod.retry_at)
        elif has_door and pod.ready and not pod.deleting and (pod.door is None or pod.door.engine_asleep is None):
            retries.append(now + UNREACHABLE_RETRY_SECONDS)
    return Plan(tuple(actions), min(retries, default=None))


def _without_door(pod: Pod, desired: Desired) -> list[Action]:
    """An engine that cannot sleep serves whenever the kubelet says that it lives."""
    alive = pod.ready and not pod.deleting and not pod.astray and not pod.held and desired is not Desired.OFF
    if alive and not pod.serving:
        return [Serve(pod, None)]
    if pod.serving and not alive:
        return [StopServing(pod, _why_not_serving(pod, desired))]
    return []


def _for_pod(pod: Pod, desired: Desired, now: float, at_gate: bool, sleeps: bool) -> list[Action]:
    if not pod.held:
        return _next(pod, desired, now, at_gate)
    # It rests while a run is under way that another revision scores; nor does it join: the rollout goes on after that.
    rests = Desired.OFF if desired is Desired.OFF else Desired.ASLEEP
    may_sleep = sleeps or bool(pod.places)
    return [
        action
        for action in _next(pod, rests, now, at_gate)
        if isinstance(action, StopServing | GiveUp)
        or (isinstance(action, Begin) and (may_sleep or action.transition is not Transition.SLEEP))
    ]


def _next(pod: Pod, desired: Desired, now: float, at_gate: bool) -> list[Action]:
    door = pod.door
    stop = StopServing(pod, _why_not_serving(pod, desired))
    if pod.deleting or not pod.ready or door is None or desired is Desired.OFF:
        # Who only does not answer may be answering others. Who is not to score may not, whether it hears of it or not.
        ends = pod.deleting or not pod.ready or desired is Desired.OFF or pod.astray or pod.held
        return [stop] if pod.serving and ends else []
    if pod.busy is not None:
        wanted_again = pod.busy is Transition.SLEEP and desired is Desired.AWAKE
        return [GiveUp(pod)] if wanted_again and door.state is DoorState.DRAINING and door.inside else []
    if door.state is DoorState.GATED:
        next_: list[Action] = [stop] if pod.serving else []
        if desired is Desired.AWAKE:
            return [*next_, Begin(pod, Transition.START)] if pod.retry_at <= now else next_
        return [*next_, Rest(pod)] if pod.gated and not pod.passed else next_
    if is_in_the_way(pod) and desired is not Desired.AWAKE:
        next_ = [stop] if pod.serving else []
        return [*next_, Begin(pod, Transition.SLEEP)] if pod.retry_at <= now else next_
    if pod.astray:
        return [stop] if pod.serving else []
    if pod.gated and pod.verified_boot_id != door.boot_id:
        verify = [Begin(pod, Transition.VERIFY)] if pod.retry_at <= now else []
        return [stop, *verify] if pod.serving else [*verify]
    actions, joins = _for_verified(pod, door, desired, now, at_gate), _joining(pod, door, desired)
    return [*actions, *joins] if desired is Desired.AWAKE else [*joins, *actions]


def _joining(pod: Pod, door: Door, desired: Desired) -> list[Action]:
    """For a pod that is verified. One that is wanted awake has to serve first: a rollout takes the pod that serves in
    its place as soon as this one counts."""
    serves = door.state is DoorState.SERVING and door.engine_asleep is False and not pod.outvoted
    return [Join(pod)] if pod.gated and not pod.passed and (desired is not Desired.AWAKE or serves) else []


def _for_verified(pod: Pod, door: Door, desired: Desired, now: float, at_gate: bool) -> list[Action]:
    stop = StopServing(pod, _why_not_serving(pod, desired))
    open_ = door.state is DoorState.SERVING
    verified = pod.serving and pod.labelled_boot_id == door.boot_id
    fit = open_ and door.engine_asleep is False and not pod.outvoted
    if desired is Desired.AWAKE:
        if open_ and verified and door.engine_asleep is None and not pod.outvoted:
            return []  # a busy engine that did not say in time has not changed: no pod loses its place for that
        if fit:
            return [] if verified else [Serve(pod, door.boot_id)]
        wake = [Begin(pod, Transition.WAKE)] if pod.retry_at <= now else []
        return [stop, *wake] if pod.serving else [*wake]
    if _is_asleep(door) and not at_gate:
        return [stop] if pod.serving else []
    if pod.retry_at > now:
        # The last sleep was given up and the pod put back into service: it serves until the next try.
        return [Serve(pod, door.boot_id)] if fit and not verified else []
    return [stop, Begin(pod, Transition.SLEEP)] if pod.serving else [Begin(pod, Transition.SLEEP)]


def is_in_the_way(pod: Pod) -> bool:
    """Whether it has GPUs that others wait for, and will not serve as it is: back to its gate, whatever its mode."""
    unverified = pod.gated and pod.door is not None and pod.verified_boot_id != pod.door.boot_id
    return bool(pod.places) and (pod.astray or (unverified and pod.retry_at != 0.0))


def _is_asleep(door: Door) -> bool:
    """The door was told so after the engine had confirmed it, and the engine does not say the contrary now."""
    return door.state is DoorState.ASLEEP and door.engine_asleep is not False and not door.holds_memory


def _why_not_serving(pod: Pod, desired: Desired) -> str:
    if pod.deleting:
        return "the pod is being deleted"
    if not pod.ready:
        return "the engine does not live"
    if pod.astray:
        return "it started with other weights than the model's, or another image than those who score a run"
    if pod.held:
        return "a run is under way that is scored by another revision"
    if pod.outvoted:
        return "two others of its kind compute something else"
    if pod.door is not None and pod.labelled_boot_id != pod.door.boot_id:
        return "its container restarted"
    return f"desired {desired}"


def pod_state(pod: Pod, *, has_door: bool) -> PodState:
    """The state of one pod, from what was observed."""
    if pod.trouble is not None:
        return PodState.FAILED
    if pod.ip is None:
        return PodState.PENDING
    if not pod.ready:
        return PodState.STARTING
    if not has_door:
        return PodState.SERVING if pod.serving else PodState.VERIFYING
    door = pod.door
    if door is None:
        return PodState.VERIFYING
    if door.state is DoorState.GATED:
        return PodState.STARTING if pod.busy is Transition.START else PodState.GATED
    if pod.busy is Transition.VERIFY or (pod.gated and pod.verified_boot_id != door.boot_id):
        return PodState.VERIFYING
    if pod.busy is Transition.WAKE:
        return PodState.WAKING
    if pod.busy is Transition.SLEEP:
        return PodState.DRAINING if door.state is DoorState.DRAINING else PodState.SLEEPING
    if _is_asleep(door):
        return PodState.ASLEEP
    if pod.serving and pod.labelled_boot_id == door.boot_id and door.state is DoorState.SERVING:
        return PodState.SERVING
    return PodState.DRAINING if door.state is DoorState.DRAINING else PodState.VERIFYING


def count(states: Sequence[PodState], *which: PodState) -> int:
    return sum(state in which for state in states)
