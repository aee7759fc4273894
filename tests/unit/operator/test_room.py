"""Whether an engine finds the memory that it is about to take: what it needs, and what happens when it is not there."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator import room
from genrm_operator.errors import DoorUnreachable
from genrm_operator.night import DeviceMemory, Night
from genrm_operator.observed import Door, DoorState, Pod, Transition
from genrm_operator.slots import Holding, Turn

from tests.unit.operator.test_lifecycle import make_pod

GIB = 1 << 30
GPU = frozenset({("device", "n", "0")})
MINE = Holding("rl", "judge", {"s": GPU}, None)
GATED = Door(DoorState.GATED, 0, "b1", engine_asleep=None)
ASLEEP = Door(DoorState.ASLEEP, 0, "b1", engine_asleep=True)
SERVING = Door(DoorState.SERVING, 0, "b1", engine_asleep=False)
NOW = 1000.0


def model(**engine: Any) -> RewardModel:
    slots = [{"name": "s", "node": "n", "devices": [0]}]
    spec = {"model": {"uri": "hf://a/b"}, "engine": engine, "gpu": {"sharing": "Colocated", "slots": slots}}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})


def memory(*used: float) -> DeviceMemory:
    """As many GPUs of 80 GiB, with so many in use of each."""
    return DeviceMemory(tuple((round(gib * GIB), 80 * GIB) for gib in used))


@pytest.mark.parametrize(
    ("engine", "used", "missing"),
    [
        pytest.param({}, [0.6], None, id="an empty GPU"),
        pytest.param({}, [6.0], None, id="beside three that sleep"),
        pytest.param({}, [35.0], "80.0 GiB 45.0 are free, and the engine needs 72.0", id="beside half of another"),
        pytest.param({"gpuMemoryUtilization": 0.5}, [35.0], None, id="one that takes little"),
        pytest.param({"gpuMemoryUtilization": 0.99}, [0.6], None, id="one that takes all there is"),
        pytest.param({}, [0.6, 40.0], "40.0 are free", id="one GPU has room for two"),
        pytest.param({"name": "sglang"}, [15.0], None, id="SGLang adapts itself"),
        pytest.param({"name": "sglang"}, [35.0], "45.0 are free, and the engine needs 56.0", id="SGLang, and too much"),
        pytest.param({"name": "sglang", "gpuMemoryUtilization": 0.8}, [20.0], "needs 64.0", id="SGLang was told"),
    ],
)
def test_a_start(engine: dict[str, Any], used: list[float], missing: str | None) -> None:
    found = room.lacks(model(**engine), memory(*used), asleep=False, night=None)
    assert found is None if missing is None else found is not None and missing in found


@pytest.mark.parametrize(
    ("night", "used", "missing"),
    [
        pytest.param(Night(72 * GIB, 2 * GIB), 2.0, None, id="what it gave back is there"),
        pytest.param(Night(72 * GIB, 2 * GIB), 9.0, None, id="and more"),
        pytest.param(Night(72 * GIB, 2 * GIB), 37.0, "43.0 are free, and the engine needs 70.0", id="another's half"),
        pytest.param(Night(72 * GIB, 61 * GIB), 61.0, None, id="it kept most of it, and needs little"),
        pytest.param(Night(None, None), 9.0, None, id="nobody measured it"),
        pytest.param(Night(80 * GIB, 1 * GIB), 4.0, None, id="another one's, who went, counted as its own"),
        pytest.param(Night(80 * GIB, 1 * GIB), 7.0, "73.0 are free, and the engine needs 76.0", id="it may take that"),
        pytest.param(Night(2 * GIB, 2 * GIB, True), 37.0, "43.0 are free, and the engine needs 57.6", id="it slept"),
        pytest.param(None, 37.0, "43.0 are free, and the engine needs 57.6", id="nobody knows of it, and too much"),
        pytest.param(Night(0, 1), 37.0, "43.0 are free, and the engine needs 57.6", id="too much was kept once"),
    ],
)
def test_a_wake(night: Night | None, used: float, missing: str | None) -> None:
    found = room.lacks(model(), memory(used), asleep=True, night=night)
    assert found is None if missing is None else found is not None and missing in found


async def looked(pod: Pod, found: DeviceMemory | None, tight: dict[str, float], now: float = NOW) -> tuple[Pod, Turn]:
    async def measure(pod: Pod) -> DeviceMemory | None:
        return found

    (after,), turns = await room.look(model(), MINE, [pod], {"s": Turn(given=True)}, {}, measure, tight, now)
    return after, turns["s"]


async def test_who_does_not_fit_is_not_let_in_and_both_numbers_are_said() -> None:
    tight: dict[str, float] = {}
    waits = make_pod(uid="u", places=GPU, door=GATED)
    pod, turn = await looked(waits, memory(60.0), tight)
    assert (pod.may_be_up, turn.given, turn.blocked) == (False, False, False), "the driver may need a moment"
    assert turn.look_again_at is not None and turn.look_again_at > NOW
    pod, turn = await looked(waits, memory(60.0), tight, NOW + room.SETTLE_SECONDS)
    assert (pod.may_be_up, turn.given, turn.blocked) == (False, False, True)
    assert turn.waits is not None and "20.0 are free, and the engine needs 72.0" in turn.waits
    pod, turn = await looked(waits, memory(2.0), tight, NOW + 60)
    assert (pod.may_be_up, turn.given, tight) == (True, True, {})


async def test_a_run_that_is_refused_stays_so_while_the_memory_is_not_there() -> None:
    async def measure(pod: Pod) -> DeviceMemory | None:
        return memory(60.0)

    before = {"s": Turn(given=True, refused={"run": "it holds the slot itself"})}
    pods = [make_pod(places=GPU, door=GATED)]
    _, turns = await room.look(model(), MINE, pods, before, {}, measure, {}, NOW)
    assert not turns["s"].given and turns["s"].refused == before["s"].refused


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(make_pod(places=GPU, door=SERVING), id="it is up itself"),
        pytest.param(make_pod(places=GPU, door=GATED, busy=Transition.START), id="it starts"),
        pytest.param(make_pod(places=GPU, door=None), id="it does not answer"),
        pytest.param(make_pod(places=GPU, door=GATED, deleting=True), id="it ends"),
        pytest.param(make_pod(door=ASLEEP), id="it shares nothing"),
    ],
)
async def test_who_is_not_asked(pod: Pod) -> None:
    async def measure(pod: Pod) -> DeviceMemory | None:
        raise AssertionError("there is nothing to ask for")

    (after,), turns = await room.look(model(), MINE, [pod], {"s": Turn(given=True)}, {}, measure, {}, NOW)
    assert after.may_be_up and turns["s"].given


async def test_where_nobody_can_measure_the_words_count() -> None:
    for found in (None, DeviceMemory(())):
        pod, turn = await looked(make_pod(places=GPU, door=GATED), found, {})
        assert pod.may_be_up and turn.given

    async def measure(pod: Pod) -> DeviceMemory | None:
        raise DoorUnreachable(pod.name, "no answer")

    pods = [make_pod(places=GPU, door=GATED)]
    (after,), turns = await room.look(model(), MINE, pods, {"s": Turn(given=True)}, {}, measure, {}, NOW)
    assert after.may_be_up and turns["s"].given, "its release asks it too"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ({"used": 3, "total": 8}, ((3, 8),)),
        ({"used": 5, "total": 16, "gpus": [[3, 8], [2, 8]]}, ((3, 8), (2, 8))),
    ],
)
def test_what_doors_say_of_their_gpus(said: Any, expected: Any) -> None:
    found = DeviceMemory.from_document({"deviceMemory": said})
    assert (found and found.gpus) == expected
