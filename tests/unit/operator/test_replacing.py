"""Which pods are deleted so that others come, and how often at most."""

from __future__ import annotations

from collections import deque

from genrm_operator.memory import Memory
from genrm_operator.observed import Transition
from genrm_operator.replacing import room, unfit

from tests.unit.operator.test_lifecycle import make_pod


def test_three_in_ten_minutes() -> None:
    past: deque[float] = deque()
    assert room(past, 0.0) == 3
    past.extend([0.0, 0.0, 1.0])
    assert (room(past, 599.0), room(past, 600.0), room(past, 601.0)) == (0, 2, 3)
    past.extend([602.0] * 5)
    assert room(past, 603.0) == 0


def test_only_what_the_engine_answered_counts_and_only_in_a_row() -> None:
    memory, pods = Memory(), [make_pod(uid="b", name="b"), make_pod(uid="a", name="a")]

    def tired() -> list[str]:
        return [p.name for p in unfit(pods, {uid: f.unfit for uid, f in memory.failures.items()}, 2)]

    memory.fail("a", "unreachable", 0.0)
    memory.fail("a", "500", 1.0, unfit=True)
    memory.fail("a", "a sleep", 2.0)
    assert tired() == []
    memory.fail("a", "500", 3.0, unfit=True)
    assert tired() == ["a"]
    memory.failures.pop("a")
    memory.fail("a", "500", 4.0, unfit=True)
    assert tired() == []


def test_one_that_ends_or_is_being_woken_is_left_alone() -> None:
    pods = [make_pod(deleting=True), make_pod(busy=Transition.WAKE)]
    assert unfit(pods, {"u0": 9}, 1) == []
