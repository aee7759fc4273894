"""Pods at the two ends of their life: before the engine is started, and while it is being stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from genrm_operator.demand import Desired
from genrm_operator.doors import Doors
from genrm_operator.errors import Deposed, EngineError, Impossible
from genrm_operator.lifecycle import Begin, PodState, Rest, StopServing, decide, is_in_the_way, pod_state
from genrm_operator.observed import Door, DoorState, Transition

from tests.unit.door.stock import TOKEN, launched
from tests.unit.operator.test_children import container, make
from tests.unit.operator.test_lifecycle import make_door, make_pod

ADDRESS = "127.9.8.5"  # a loopback address of this test's own, because doors listen on a fixed port
GATED = make_door(DoorState.GATED, asleep=None)


async def test_the_operator_reads_the_gate_as_a_state_and_releases_the_engine(tmp_path: Path) -> None:
    pod = make_pod(ip=ADDRESS)
    with launched(tmp_path, gated=True, host=ADDRESS, port=8000) as gated:
        async with Doors(epoch=lambda: 7) as doors, Doors(epoch=lambda: 6) as deposed:
            door = await doors.look(pod, TOKEN)
            assert (door.state, door.inside, door.engine_asleep) == (DoorState.GATED, 0, None)
            with pytest.raises(EngineError, match="gated and cannot become serving: from here it can be closed"):
                await doors.set_state(pod, TOKEN, DoorState.SERVING)
            with pytest.raises(Deposed, match="takes orders of epoch 7, and this one was 6"):
                await deposed.set_state(pod, TOKEN, DoorState.CLOSED)
            assert (await doors.set_state(pod, TOKEN, DoorState.CLOSED)).state is DoorState.CLOSED
            gated.until("ready")
            behind = await doors.look(pod, TOKEN)
            assert (behind.state, behind.boot_id) == (DoorState.CLOSED, door.boot_id)
            seen_before_a_restart = dataclasses.replace(pod, door=dataclasses.replace(behind, boot_id="before"))
            with pytest.raises(EngineError, match=f"for boot before, and this is boot {behind.boot_id}"):
                await doors.set_state(seen_before_a_restart, TOKEN, DoorState.SERVING)
            seen_now = dataclasses.replace(pod, door=behind)
            assert (await doors.set_state(seen_now, TOKEN, DoorState.SERVING)).state is DoorState.SERVING


@pytest.mark.parametrize(
    ("desired", "changes", "expected"),
    [
        (Desired.AWAKE, {}, [Begin]),
        (Desired.AWAKE, {"may_be_up": False}, [Rest]),
        (Desired.AWAKE, {"may_be_up": False, "passed": True}, []),
        (Desired.AWAKE, {"retry_at": 1.0}, []),
        (Desired.AWAKE, {"busy": Transition.START}, []),
        (Desired.AWAKE, {"serving": True, "labelled_boot_id": "b1"}, [StopServing, Begin]),
        (Desired.ASLEEP, {}, [Rest]),
        (Desired.ASLEEP, {"passed": True}, []),
        (Desired.ASLEEP, {"serving": True, "labelled_boot_id": "b1", "passed": True}, [StopServing]),
        (Desired.OFF, {}, []),
        (Desired.AWAKE, {"held": True}, []),
        (Desired.ASLEEP, {"held": True}, []),
    ],
)
@pytest.mark.parametrize("verified", [None, "b1"])
def test_a_gated_pod_is_let_in_when_it_is_wanted_and_may(
    desired: Desired, changes: dict[str, Any], expected: list[type], verified: str | None
) -> None:
    pod = make_pod(door=GATED, verified_boot_id=verified, **({"passed": False} | changes))
    actions = decide([pod], desired, 0.0, has_door=True).actions
    assert [type(action) for action in actions] == expected
    assert all(action.transition is Transition.START for action in actions if isinstance(action, Begin))
    assert pod_state(pod, has_door=True) is (PodState.STARTING if pod.busy else PodState.GATED)


@pytest.mark.parametrize("door", [GATED, make_door(DoorState.ASLEEP, asleep=True), make_door(DoorState.CLOSED)])
def test_an_engine_that_rests_by_its_end_is_ended(door: Door) -> None:
    pod = make_pod(door=door, passed=True)
    actions = decide([pod], Desired.ASLEEP, 0.0, has_door=True, at_gate=True).actions
    assert [a.transition for a in actions if isinstance(a, Begin)] == ([] if door is GATED else [Transition.SLEEP])


def test_a_pod_that_lost_its_slot_goes_to_rest() -> None:
    pod = make_pod(
        door=make_door(DoorState.SERVING), serving=True, labelled_boot_id="b1", verified_boot_id="b1", may_be_up=False
    )
    stop, sleep = decide([pod], Desired.AWAKE, 0.0, has_door=True).actions
    assert isinstance(stop, StopServing) and isinstance(sleep, Begin) and sleep.transition is Transition.SLEEP


def test_who_cannot_serve_gives_the_gpus_back_that_others_wait_for() -> None:
    """It goes to its gate: an engine that nobody verified is not trusted to sleep."""
    gpu = frozenset({("device", "n", "0")})
    failed = make_pod(door=make_door(DoorState.CLOSED), verified_boot_id=None, retry_at=-1.0, places=gpu)
    astray = make_pod(door=make_door(DoorState.CLOSED), astray=True, places=gpu)
    for pod in (failed, astray):
        assert is_in_the_way(pod)
        for changes in ({"may_be_up": False}, {}):
            (action,) = decide(
                [dataclasses.replace(pod, **changes)],
                Desired.ASLEEP if not changes else Desired.AWAKE,
                0.0,
                has_door=True,
            ).actions
            assert isinstance(action, Begin) and action.transition is Transition.SLEEP
    (again,) = decide([dataclasses.replace(failed, retry_at=-1.0)], Desired.AWAKE, 0.0, has_door=True).actions
    assert isinstance(again, Begin) and again.transition is Transition.VERIFY, "as long as it is wanted and may"
    untried = make_pod(door=make_door(DoorState.CLOSED), verified_boot_id=None, places=gpu)
    assert not is_in_the_way(untried), "it is verified first, and sleeps then"


def test_the_liveness_probe_is_patient_with_an_engine_that_was_let_in_and_the_others_ask_the_door() -> None:
    engine = container(make({"model": {"uri": "hf://a/b"}, "engine": {"startupTimeout": "90s"}}))
    assert engine["livenessProbe"]["exec"]["command"] == [
        "python3", "/genrm/door/genrm_door.pyz", "alive", "--port", "8000", "--startup-seconds", "90",
    ]  # fmt: skip
    assert "httpGet" not in engine["livenessProbe"]
    assert engine["readinessProbe"]["httpGet"] == engine["startupProbe"]["httpGet"]


@pytest.mark.parametrize(("drain", "seconds"), [("60s", 60), ("250ms", 1), ("90s", 90), ("10m", 600)])
def test_a_pod_has_the_time_to_drain_before_it_is_stopped(drain: str, seconds: int) -> None:
    made = make({"model": {"uri": "hf://a/b"}, "lifecycle": {"sleep": {"drainTimeout": drain}}})
    hook = container(made)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == [
        "python3", "/genrm/door/genrm_door.pyz", "terminate",
        "--port", "8000", "--linger", "2", "--seconds", str(seconds),
    ]  # fmt: skip
    pod = made["Deployment/judge"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 2 + seconds + 30


def test_the_secret_of_the_hook_lies_in_memory_that_only_the_engines_container_sees() -> None:
    made = make({"model": {"uri": "hf://a/b"}})
    template = made["Deployment/judge"]["spec"]["template"]["spec"]
    volume = next(volume for volume in template["volumes"] if volume["name"] == "door-run")
    assert volume["emptyDir"]["medium"] == "Memory"
    assert {"name": "door-run", "mountPath": "/genrm/run"} in container(made)["volumeMounts"]
    assert {"name": "GENRM_RUN_DIR", "value": "/genrm/run"} in container(made)["env"]


def test_an_engine_without_a_door_ends_as_it_likes() -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "judge.py"]}}
    theirs = {"containers": [{"name": "engine", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]}
    made = make(
        {
            "model": {"uri": "hf://a/b"},
            "engine": engine,
            "podTemplate": {"spec": {**theirs, "terminationGracePeriodSeconds": 7}},
        }
    )
    assert container(made)["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert made["Deployment/judge"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 7


@pytest.mark.parametrize(
    "overlay",
    [
        {"terminationGracePeriodSeconds": 5},
        {"containers": [{"name": "engine", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]},
        {"containers": [{"name": "engine", "volumeMounts": [{"name": "x", "mountPath": "/genrm/run"}]}]},
        {"volumes": [{"name": "door-run", "hostPath": {"path": "/tmp"}}]},
        {"volumes": [{"name": "weights-pin", "hostPath": {"path": "/tmp"}}]},
    ],
)
def test_an_overlay_that_would_cut_the_drain_short_is_refused_with_advice(overlay: dict[str, Any]) -> None:
    with pytest.raises(Impossible, match=r"spec\.podTemplate\.spec"):
        make({"model": {"uri": "hf://a/b"}, "podTemplate": {"spec": overlay}})
