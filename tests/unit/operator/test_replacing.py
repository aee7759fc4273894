"""Which pods are deleted so that others come, and how often at most."""

from __future__ import annotations

from collections import deque

from genrm_operator.demand import Desired
from genrm_operator.memory import BACKOFF_SECONDS, Memory
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
        return [p.name for p in unfit(pods, memory.unfit, 2)]

    memory.fail("a", "unreachable", 0.0)
    memory.fail("a", "500", 1.0, unfit=True)
    memory.fail("a", "a sleep", 2.0)
    assert tired() == []
    memory.fail("a", "500", 3.0, unfit=True)
    assert tired() == ["a"]
    memory.succeed("a", Transition.WAKE)
    memory.fail("a", "500", 4.0, unfit=True)
    assert tired() == []


def test_a_run_that_gives_the_model_back_between_two_tries_does_not_start_the_count_anew() -> None:
    memory = Memory()
    for step in range(3):
        memory.want(Desired.AWAKE)
        memory.desired = Desired.AWAKE
        assert memory.failures == {}, "that another sleep failed holds no wake back"
        memory.fail("a", "500", float(step), unfit=True)
        assert memory.failures["a"].retry_at == step + BACKOFF_SECONDS[0]
        memory.want(Desired.ASLEEP)
        memory.desired = Desired.ASLEEP
        memory.succeed("a", Transition.SLEEP)
    assert memory.unfit == {"a": 3}
    memory.succeed("a", Transition.VERIFY)
    assert memory.unfit == {}, "a new boot computes what it should"
    memory.fail("a", "500", 9.0, unfit=True)
    memory.unreachable = {"a", "b"}
    memory.forget_pods({"b"})
    assert (memory.unfit, memory.unreachable) == ({}, {"b"})


def test_one_that_ends_or_is_being_woken_is_left_alone() -> None:
    pods = [make_pod(deleting=True), make_pod(busy=Transition.WAKE)]
    assert unfit(pods, {"u0": 9}, 1) == []
