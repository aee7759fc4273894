"""What the status says of a night: whether scores are what they were, and whether it gave the memory back."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason
from genrm_operator.observed import Check, Door, DoorState, Night
from genrm_operator.observing import nights_told
from genrm_operator.status import remembered_nights

from tests.unit.operator import test_pinning
from tests.unit.operator.test_lifecycle import make_pod
from tests.unit.operator.test_pinning import condition, seen

PODS = [make_pod(uid=f"u{i}", name=f"judge-{i}") for i in range(6)]
FINE = Check("b1", Reason.AS_RECORDED, "answers as pod judge-0 did")
FIRST = Check("b1", Reason.NOT_CONFIRMED, "recorded a ConfigMap; no other pod was there to confirm it")
SICK = Check("b1", Reason.SCORES_DIFFER, "computes other scores")
ALONE = Check("b1", Reason.NOT_COMPARED, "cannot be compared, and serves")
DISPUTED = Check("b1", Reason.SCORES_DISPUTED, "answers as pod judge-0 did, and pod judge-9 computed something else")
WRONG = Check("b1", Reason.WORSE_PREFERRED, "does not prefer the better response of spec.scoring.canary.pairs[1]")
RIGHT = Check("b1", Reason.BETTER_PREFERRED, "prefers the better response of each of 2 pairs")
GIB = 1 << 30


def model(known: dict[str, Any] | None = None, *, verify: bool = True) -> RewardModel:
    return test_pinning.model(known=known, lifecycle={"wake": {"verify": verify}})


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ({}, None),
        ({"u0": FINE}, ("True", "AsRecorded", "pod judge-0 answers as pod judge-0 did")),
        ({"u0": FIRST}, ("True", "NotConfirmed", f"pod judge-0 {FIRST.message}")),
        ({"u0": FINE, "u1": SICK}, ("False", "ScoresDiffer", "pod judge-1 computes other scores")),
        ({"u0": ALONE, "u1": SICK}, ("False", "ScoresDiffer", "pod judge-1 computes other scores")),
        ({"u0": ALONE, "u1": FINE}, ("False", "NotCompared", "pod judge-0 cannot be compared, and serves")),
        ({"u0": DISPUTED, "u1": SICK}, ("False", "ScoresDiffer", "pod judge-1 computes other scores")),
        ({"u0": DISPUTED, "u1": ALONE}, ("False", "ScoresDisputed", f"pod judge-0 {DISPUTED.message}")),
        ({"u0": RIGHT}, ("True", "BetterPreferred", f"pod judge-0 {RIGHT.message}")),
        ({"u0": RIGHT, "u1": WRONG}, ("False", "WorsePreferred", f"pod judge-1 {WRONG.message}")),
        ({"gone": SICK}, None),
    ],
)
def test_scores(checks: dict[str, Check], expected: tuple[str, str, str] | None) -> None:
    said = condition(seen(model(), pods=PODS, checks=checks), "ScoresVerified")
    assert (said and (said["status"], said["reason"], said["message"])) == expected


def test_a_message_stays_short() -> None:
    said = condition(seen(model(), pods=PODS, checks={pod.uid: FINE for pod in PODS}), "ScoresVerified")
    assert said is not None and said["message"].endswith("pod judge-3 answers as pod judge-0 did; and 2 more")


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ({}, None),
        (
            {"u0": Night(72 * GIB, 2 * GIB)},
            ("True", "MemoryFreed", "pod judge-0 kept 2.0 of 72.0 GiB"),
        ),
        (
            {"u0": Night(72 * GIB, 2 * GIB), "u1": Night(72 * GIB, 61 * GIB)},
            ("False", "MemoryKept", "pod judge-1 kept 61.0 of 72.0 GiB"),
        ),
        ({"u0": Night(72 * GIB, 35 * GIB)}, ("False", "MemoryKept", "pod judge-0 kept 35.0 of 72.0 GiB")),
        ({"u0": Night(72 * GIB, 9 * GIB)}, ("True", "MemoryFreed", "pod judge-0 kept 9.0 of 72.0 GiB")),
        ({"u0": Night(5 * GIB, 2 * GIB)}, ("True", "MemoryFreed", "pod judge-0 kept 2.0 of 5.0 GiB")),
        ({"u0": Night(5 * GIB, 3 * GIB)}, ("False", "MemoryKept", "pod judge-0 kept 3.0 of 5.0 GiB")),
        # It slept already when it was told to.
        ({"u0": Night(2 * GIB, 2 * GIB, True)}, ("True", "MemoryFreed", "pod judge-0 kept 2.0 of 2.0 GiB")),
        ({"u0": Night(72 * GIB, 4 * GIB, True)}, ("True", "MemoryFreed", "pod judge-0 kept 4.0 of 72.0 GiB")),
        ({"u0": Night(72 * GIB, 9 * GIB, True)}, ("False", "MemoryKept", "pod judge-0 kept 9.0 of 72.0 GiB")),
        (
            {"u0": Night(5 * GIB, 2 * GIB), "u1": Night(72 * GIB, 20 * GIB)},
            ("False", "MemoryKept", "pod judge-1 kept 20.0 of 72.0 GiB"),
        ),
        (
            {"u0": Night(72 * GIB, 2 * GIB), "u1": Night(None, None)},
            ("Unknown", "NotMeasurable", "pod judge-1 computes without a GPU"),
        ),
        (
            {"u0": Night(72 * GIB, 61 * GIB), "u1": Night(None, None)},
            ("False", "MemoryKept", "pod judge-0 kept 61.0 of 72.0 GiB"),
        ),
        ({"gone": Night(72 * GIB, 61 * GIB)}, None),
    ],
)
def test_memory(nights: dict[str, Night], expected: tuple[str, str, str] | None) -> None:
    said = condition(seen(model(), pods=PODS, nights=nights), "SleepEffective")
    if expected is None:
        assert said is None
    else:
        assert said is not None and (said["status"], said["reason"]) == expected[:2]
        assert said["message"].startswith(expected[2])


HOOKS = {name: {"path": f"/{name}"} for name in ("sleep", "wake", "isSleeping")}
CUSTOM = {"name": "custom", "image": "a/b:1", "custom": {"command": ["judge"], **HOOKS}}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "computes without a GPU"),
        ({"gpu": {}}, "NVIDIA_DRIVER_CAPABILITIES: compute,utility"),
        ({"gpu": {}, "engine": CUSTOM}, "has no door that could measure"),
    ],
)
def test_what_nobody_can_measure_is_said_with_why(spec: dict[str, Any], why: str) -> None:
    told = seen(test_pinning.model(**spec), pods=PODS, nights={"u0": Night(None, None)})
    said = condition(told, "SleepEffective")
    assert said is not None and (said["status"], said["reason"]) == ("Unknown", "NotMeasurable")
    assert why in said["message"]
    again = seen(test_pinning.model(known=told, **spec), pods=PODS)
    assert condition(again, "SleepEffective") == said, "and a new operator process says it too"
    assert remembered_nights(test_pinning.model(known=told, **spec), PODS, {}) == {}, "and blocks nobody"


@pytest.mark.parametrize(
    ("state", "night", "expected"),
    [
        (DoorState.ASLEEP, Night(72 * GIB, 61 * GIB), Night(72 * GIB, 61 * GIB)),
        (DoorState.ASLEEP, Night(72 * GIB, None), Night(72 * GIB, 72 * GIB)),
        (DoorState.ASLEEP, Night(None, None), Night(None, None)),
        (DoorState.ASLEEP, None, None),
        (DoorState.DRAINING, Night(72 * GIB, None), None),
        (DoorState.CLOSED, Night(72 * GIB, 2 * GIB), None),
        (DoorState.GATED, Night(72 * GIB, 1 * GIB), Night(72 * GIB, 1 * GIB)),
        (DoorState.GATED, Night(72 * GIB, None), None),
    ],
)
def test_a_new_operator_process_hears_of_a_night_from_the_door(
    state: DoorState, night: Night | None, expected: Night | None
) -> None:
    pod = make_pod(uid="u0", door=Door(state, 0, "b1", engine_asleep=True, night=night))
    assert nights_told([pod, make_pod(uid="u1", door=None)], ()) == ({} if expected is None else {"u0": expected})
    assert nights_told([pod], {"u0"}) == {}, "who puts it to sleep knows better"


@pytest.mark.parametrize("kind", ["ScoresVerified", "SleepEffective"])
def test_a_new_operator_process_says_what_the_last_one_found(kind: str) -> None:
    found: dict[str, Any] = {"checks": {"u0": SICK}, "nights": {"u0": Night(72 * GIB, 61 * GIB)}}
    told = seen(model(), pods=PODS, **found)
    again = seen(model(known=told), pods=PODS)
    assert condition(again, kind) == condition(told, kind)


def test_a_new_operator_process_frees_no_slot_that_the_last_one_did_not() -> None:
    told = seen(model(), pods=PODS, nights={"u0": Night(72 * GIB, 61 * GIB)})
    remembered = remembered_nights(model(known=told), PODS, {"u1": Night(72 * GIB, 2 * GIB)})
    assert not remembered["u0"].effective and remembered["u1"].effective, "until it sleeps anew"
    fine = seen(model(), pods=PODS, nights={"u0": Night(72 * GIB, 2 * GIB)})
    assert remembered_nights(model(known=fine), PODS, {}) == {}


def test_who_may_serve() -> None:
    assert all(check.fine for check in (FINE, ALONE, DISPUTED, RIGHT))
    assert not any(check.fine for check in (SICK, WRONG))


def test_who_wrote_pairs_hears_of_them_without_having_rows_compared() -> None:
    scoring = {"canary": {"pairs": [{"prompt": "2+2?", "better": "4", "worse": "5"}]}}
    asked = test_pinning.model(lifecycle={"wake": {"verify": False}}, scoring=scoring)
    said = condition(seen(asked, pods=PODS, checks={"u0": RIGHT}), "ScoresVerified")
    assert said is not None and said["reason"] == "BetterPreferred"


def test_who_does_not_want_scores_compared_hears_nothing_of_it() -> None:
    unasked = model(verify=False)
    assert condition(seen(unasked, pods=PODS, checks={"u0": SICK}), "ScoresVerified") is None
