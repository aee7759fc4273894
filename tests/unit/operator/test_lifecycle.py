"""The lifecycle decision: tables for the cases people think of, properties for those they do not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from genrm_operator.demand import Desired
from genrm_operator.lifecycle import Begin, GiveUp, Join, PodState, Serve, StopServing, decide, pod_state
from genrm_operator.observed import Door, DoorState, Pod, Transition
from hypothesis import given
from hypothesis import strategies as st

NOW = 100.0


def make_pod(**changes: object) -> Pod:
    pod = Pod(
        namespace="rl", name="judge-0", uid="u0", reward_model="judge", ip="10.0.0.1", ready=True, deleting=False,
        serving=False, labelled_boot_id=None, gated=True, verified_boot_id="b1", door_map=None, restarts=0,
        trouble=None, passed=True,
    )  # fmt: skip
    return dataclasses.replace(pod, **changes)  # type: ignore[arg-type]


def make_door(state: DoorState, asleep: bool | None = False, inside: int = 0, boot_id: str = "b1") -> Door:
    return Door(state, inside, boot_id, asleep)


SERVING = make_door(DoorState.SERVING)
ASLEEP = make_door(DoorState.ASLEEP, asleep=True)
CLOSED = make_door(DoorState.CLOSED)
LABELLED = {"serving": True, "labelled_boot_id": "b1"}


@pytest.mark.parametrize(
    ("pod", "desired", "expected"),
    [
        (make_pod(door=CLOSED), Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (make_pod(door=CLOSED), Desired.ASLEEP, [(Begin, Transition.SLEEP)]),
        (make_pod(door=ASLEEP), Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (make_pod(door=ASLEEP), Desired.ASLEEP, []),
        (make_pod(door=SERVING), Desired.AWAKE, [Serve]),
        (make_pod(door=SERVING, **LABELLED), Desired.AWAKE, []),
        (make_pod(door=SERVING, **LABELLED), Desired.ASLEEP, [StopServing, (Begin, Transition.SLEEP)]),
        (make_pod(door=SERVING, **LABELLED, deleting=True), Desired.AWAKE, [StopServing]),
        (make_pod(door=None, **LABELLED, ready=False), Desired.AWAKE, [StopServing]),
        (make_pod(door=SERVING, serving=True, labelled_boot_id="old"), Desired.AWAKE, [Serve]),
        (make_pod(door=CLOSED, serving=True, labelled_boot_id="old"), Desired.AWAKE,
         [StopServing, (Begin, Transition.WAKE)]),
        (make_pod(door=make_door(DoorState.SERVING, asleep=True), **LABELLED), Desired.AWAKE,
         [StopServing, (Begin, Transition.WAKE)]),
        (make_pod(door=make_door(DoorState.ASLEEP, asleep=False)), Desired.ASLEEP, [(Begin, Transition.SLEEP)]),
        (make_pod(door=SERVING, **LABELLED, outvoted=True), Desired.AWAKE, [StopServing, (Begin, Transition.WAKE)]),
        (make_pod(door=SERVING, outvoted=True, retry_at=NOW + 1), Desired.AWAKE, []),
        (make_pod(door=make_door(DoorState.SERVING, asleep=None), **LABELLED, outvoted=True), Desired.AWAKE,
         [StopServing, (Begin, Transition.WAKE)]),
        (make_pod(door=SERVING, **LABELLED), Desired.OFF, [StopServing]),
        (make_pod(door=None), Desired.AWAKE, []),
        (make_pod(door=None, **LABELLED), Desired.AWAKE, []),
        (make_pod(door=None, **LABELLED), Desired.ASLEEP, []),
        (make_pod(door=None, **LABELLED, held=True), Desired.AWAKE, [StopServing]),
        (make_pod(door=None, **LABELLED, astray=True), Desired.AWAKE, [StopServing]),
        (make_pod(door=ASLEEP, busy=Transition.WAKE), Desired.AWAKE, []),
        (make_pod(door=make_door(DoorState.DRAINING, inside=3), busy=Transition.SLEEP), Desired.AWAKE, [GiveUp]),
        (make_pod(door=make_door(DoorState.DRAINING, inside=0), busy=Transition.SLEEP), Desired.AWAKE, []),
        (make_pod(door=make_door(DoorState.DRAINING, inside=3), busy=Transition.SLEEP), Desired.ASLEEP, []),
        (make_pod(door=make_door(DoorState.SERVING, asleep=None), **LABELLED), Desired.AWAKE, []),
        (make_pod(door=make_door(DoorState.ASLEEP, asleep=None)), Desired.ASLEEP, []),
        (make_pod(door=ASLEEP, retry_at=NOW + 1), Desired.AWAKE, []),
        (make_pod(door=SERVING, retry_at=NOW + 1), Desired.ASLEEP, [Serve]),
        (make_pod(door=CLOSED, verified_boot_id=None), Desired.AWAKE, [(Begin, Transition.VERIFY)]),
        (make_pod(door=CLOSED, verified_boot_id=None), Desired.ASLEEP, [(Begin, Transition.VERIFY)]),
        (make_pod(door=CLOSED, verified_boot_id="b0", **LABELLED), Desired.AWAKE,
         [StopServing, (Begin, Transition.VERIFY)]),
        (make_pod(door=CLOSED, verified_boot_id=None, retry_at=NOW + 1), Desired.AWAKE, []),
        (make_pod(door=CLOSED, verified_boot_id=None, busy=Transition.VERIFY), Desired.AWAKE, []),
        (make_pod(door=CLOSED, verified_boot_id=None, gated=False), Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (make_pod(door=CLOSED, passed=False), Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (make_pod(door=SERVING, passed=False), Desired.AWAKE, [Serve, Join]),
        (make_pod(door=SERVING, passed=False, **LABELLED), Desired.AWAKE, [Join]),
        (make_pod(door=SERVING, passed=False, outvoted=True, retry_at=NOW + 1), Desired.AWAKE, []),
        (make_pod(door=CLOSED, passed=False), Desired.ASLEEP, [Join, (Begin, Transition.SLEEP)]),
        (make_pod(door=ASLEEP, passed=False), Desired.ASLEEP, [Join]),
        (make_pod(door=ASLEEP, passed=False, held=True), Desired.ASLEEP, []),
        (make_pod(door=CLOSED, verified_boot_id=None, passed=False, held=True), Desired.AWAKE,
         [(Begin, Transition.VERIFY)]),
        (make_pod(door=CLOSED, passed=False, held=True), Desired.AWAKE, [(Begin, Transition.SLEEP)]),
        (make_pod(door=SERVING, **LABELLED, held=True), Desired.AWAKE, [StopServing, (Begin, Transition.SLEEP)]),
        (make_pod(door=SERVING, held=True, retry_at=NOW + 1), Desired.AWAKE, []),
        (make_pod(door=SERVING, **LABELLED, held=True), Desired.OFF, [StopServing]),
    ],
)  # fmt: skip
def test_each_pod_gets_its_next_action(pod: Pod, desired: Desired, expected: list[object]) -> None:
    plan = decide([pod], desired, NOW, has_door=True)
    assert [_kind(action) for action in plan.actions] == expected


@pytest.mark.parametrize("places", [frozenset(), frozenset({("device", "n", "0")})], ids=["GPUs of its own", "a slot"])
def test_who_may_not_score_a_run_is_told_to_sleep_only_where_engines_do(places: frozenset[Any]) -> None:
    """By default those with GPUs of their own never do, and nothing is known of whether they can."""
    serves = make_pod(door=SERVING, **LABELLED, held=True, places=places)
    unverified = make_pod(door=CLOSED, verified_boot_id=None, passed=False, held=True, places=places)
    plan = decide([serves, unverified], Desired.AWAKE, NOW, has_door=True, sleeps=False)
    sleeps = [(Begin, Transition.SLEEP)] if places else []
    assert [_kind(action) for action in plan.actions] == [StopServing, *sleeps, (Begin, Transition.VERIFY)]


def _kind(action: object) -> object:
    return (Begin, action.transition) if isinstance(action, Begin) else type(action)


def test_a_failed_transition_is_looked_at_again_when_its_back_off_ends() -> None:
    plan = decide([make_pod(door=ASLEEP, retry_at=NOW + 3)], Desired.AWAKE, NOW, has_door=True)
    assert plan.look_again_at == NOW + 3


def test_a_door_that_does_not_answer_is_looked_at_again_soon() -> None:
    plan = decide([make_pod(door=None)], Desired.AWAKE, NOW, has_door=True)
    assert plan.actions == () and plan.look_again_at is not None and plan.look_again_at <= NOW + 1


def test_all_replicas_wake_at_once() -> None:
    pods = [make_pod(uid=str(n), door=ASLEEP) for n in range(8)]
    assert len(decide(pods, Desired.AWAKE, NOW, has_door=True).actions) == 8


def test_an_engine_without_a_door_serves_while_it_lives() -> None:
    assert [_kind(a) for a in decide([make_pod()], Desired.ASLEEP, NOW, has_door=False).actions] == [Serve]
    dead = make_pod(serving=True, ready=False)
    assert [_kind(a) for a in decide([dead], Desired.AWAKE, NOW, has_door=False).actions] == [StopServing]


doors = st.none() | st.builds(
    Door,
    state=st.sampled_from(DoorState),
    inside=st.integers(0, 3),
    boot_id=st.sampled_from(["b1", "b2"]),
    engine_asleep=st.none() | st.booleans(),
)
pods = st.builds(
    make_pod,
    door=doors,
    ready=st.booleans(),
    deleting=st.booleans(),
    serving=st.booleans(),
    labelled_boot_id=st.sampled_from([None, "b1", "b2"]),
    gated=st.booleans(),
    verified_boot_id=st.sampled_from([None, "b1", "b2"]),
    passed=st.booleans(),
    busy=st.none() | st.sampled_from(Transition),
    retry_at=st.sampled_from([0.0, NOW + 1]),
)


@given(pods, st.sampled_from(Desired))
def test_a_pod_is_put_into_service_only_behind_an_open_door_and_an_engine_that_says_it_is_awake(
    pod: Pod, desired: Desired
) -> None:
    for action in decide([pod], desired, NOW, has_door=True).actions:
        if isinstance(action, Serve):
            assert pod.ready and not pod.deleting and pod.door is not None
            assert pod.door.state is DoorState.SERVING and pod.door.engine_asleep is False
            assert action.boot_id == pod.door.boot_id


@given(pods, st.sampled_from(Desired))
def test_an_engine_whose_gate_is_shut_is_verified_before_anything_else(pod: Pod, desired: Desired) -> None:
    for action in decide([pod], desired, NOW, has_door=True).actions:
        unverified = pod.gated and pod.door is not None and pod.verified_boot_id != pod.door.boot_id
        assert not isinstance(action, Serve) or not unverified
        if isinstance(action, Begin):
            assert (action.transition is Transition.VERIFY) == unverified


@given(pods, st.sampled_from(Desired))
def test_a_rollout_goes_on_only_when_the_new_pod_is_verified_and_has_taken_the_place_of_the_old_one(
    pod: Pod, desired: Desired
) -> None:
    actions = decide([pod], desired, NOW, has_door=True).actions
    if any(isinstance(action, Join) for action in actions):
        assert pod.door is not None and pod.verified_boot_id == pod.door.boot_id and not pod.passed
        serves = pod.serving and pod.labelled_boot_id == pod.door.boot_id
        assert desired is not Desired.AWAKE or serves or any(isinstance(action, Serve) for action in actions)


@given(pods, st.sampled_from(Desired))
def test_no_sleep_begins_under_a_serving_label(pod: Pod, desired: Desired) -> None:
    actions = decide([pod], desired, NOW, has_door=True).actions
    for position, action in enumerate(actions):
        if isinstance(action, Begin) and action.transition is Transition.SLEEP and pod.serving:
            assert any(isinstance(earlier, StopServing) for earlier in actions[:position])


@given(pods, st.sampled_from(Desired))
def test_a_pod_that_is_being_worked_on_gets_no_second_transition(pod: Pod, desired: Desired) -> None:
    if pod.busy is not None:
        assert not any(isinstance(a, Begin) for a in decide([pod], desired, NOW, has_door=True).actions)


@given(pods, st.sampled_from(Desired))
def test_a_pod_that_serves_as_wanted_or_sleeps_as_wanted_is_left_alone(pod: Pod, desired: Desired) -> None:
    state = pod_state(pod, has_door=True)
    settled = {Desired.AWAKE: PodState.SERVING, Desired.ASLEEP: PodState.ASLEEP}.get(desired)
    if state is settled and pod.door is not None and pod.door.engine_asleep is not (desired is Desired.AWAKE):
        actions = decide([pod], desired, NOW, has_door=True).actions
        assert not any(isinstance(action, Begin) for action in actions)
