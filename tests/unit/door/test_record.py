"""What the door remembers, and which changes of state it allows."""

from __future__ import annotations

import json

import pytest
from genrm_door.record import LEDGER_LENGTH, Record, Refused, State, stamp

ALLOWED = {
    ("gated", "gated"), ("gated", "closed"),
    ("closed", "closed"), ("closed", "serving"), ("closed", "asleep"), ("closed", "gated"),
    ("serving", "serving"), ("serving", "draining"), ("serving", "closed"),
    ("draining", "draining"), ("draining", "serving"), ("draining", "asleep"), ("draining", "closed"),
    ("draining", "gated"),
    ("asleep", "asleep"), ("asleep", "serving"), ("asleep", "closed"), ("asleep", "gated"),
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_795_256_294.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def record(clock: Clock) -> Record:
    return Record("boot-1", "vllm", "rev-1", now=clock, monotonic=clock)


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_the_changes_of_state(record: Record, before: State, after: State) -> None:
    record.state = before
    if (before.value, after.value) in ALLOWED:
        record.check(after)
    else:
        with pytest.raises(Refused, match=f"the door is {before.value} and cannot become {after.value}: from here"):
            record.check(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [("closed", "serving"), ("draining", "serving"), ("asleep", "serving"), ("gated", "closed")],
)
def test_a_pod_that_ends_never_serves_and_never_starts_its_engine(record: Record, before: str, after: str) -> None:
    record.state = State(before)
    record.terminate(admit=True)
    assert record.state is State(before)
    with pytest.raises(Refused, match=f"the pod is being deleted: the door stays {before}"):
        record.check(State(after))


def test_a_pod_that_ends_lets_nobody_in_any_more_and_says_so_once(record: Record) -> None:
    record.state = State.SERVING
    for _ in range(2):
        record.terminate(admit=True)
    assert record.state is State.SERVING
    for _ in range(2):
        record.terminate(admit=False)
    assert record.state is State.DRAINING
    assert [entry.call for entry in record.ledger] == ["terminate", "terminate: draining"]


def test_what_the_gate_hands_over_is_remembered(record: Record, clock: Clock) -> None:
    record.obey(7)
    record.note("PUT closed", 200)
    door = Record("boot-1", "vllm", "rev-1", now=clock)
    door.take_over(json.loads(json.dumps(record.hand_over())))
    assert (door.epoch, door.document(None)["ledger"]) == (7, record.document(None)["ledger"])
    door.take_over({})
    assert door.epoch is None


def nights(record: Record, *asked: tuple[State, int | None, bool | None]) -> dict[str, int] | None:
    """What it keeps when the memory is asked for in these states, with this much in use and this word."""
    for state, used, asleep in asked:
        record.state = state
        record.measured(used, asleep)
    found: dict[str, int] | None = record.document(None)["night"]
    return found


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param([(State.SERVING, 72, False)], None, id="it serves"),
        pytest.param([(State.DRAINING, 72, False)], (72, None), id="before its sleep"),
        pytest.param([(State.DRAINING, 72, False), (State.DRAINING, 60, True), (State.DRAINING, 2, True)], (72, 2),
                     id="the driver takes a moment"),
        pytest.param([(State.DRAINING, 72, False), (State.DRAINING, 2, True), (State.ASLEEP, 75, True)], (72, 2),
                     id="another is up"),
        pytest.param([(State.DRAINING, 72, False), (State.DRAINING, None, True)], (72, None), id="it says no more"),
        pytest.param([(State.DRAINING, None, False), (State.DRAINING, None, True)], (None, None), id="it never said"),
        pytest.param([(State.DRAINING, 72, False), (State.DRAINING, 30, False), (State.DRAINING, 2, True)], (72, 2),
                     id="a sleep that was cut in two"),
        pytest.param([(State.DRAINING, 72, False), (State.DRAINING, 2, None)], (72, None), id="nobody knows"),
        pytest.param([(State.DRAINING, 72, False), (State.GATED, 1, None)], (72, 1), id="its end"),
        pytest.param([(State.GATED, 75, None)], None, id="at the gate it has slept never"),
        pytest.param([(State.ASLEEP, 75, True)], None, id="nobody looked before"),
    ],
)  # fmt: skip
def test_what_a_sleep_gave_back_is_kept(
    record: Record, asked: list[tuple[State, int | None, bool | None]], expected: tuple[int | None, int | None] | None
) -> None:
    found = nights(record, *asked)
    assert found == (None if expected is None else {"before": expected[0], "after": expected[1]})
    next_ = Record("boot-2", "vllm", "rev-1")
    next_.take_over(json.loads(json.dumps(record.hand_over())))
    assert next_.document(None)["night"] == found, "who comes back to the gate gave it back by its end"


def test_a_new_record_is_closed_and_empty(record: Record) -> None:
    assert record.document(asleep=None) == {
        "version": 2,
        "state": "closed",
        "inside": 0,
        "bootId": "boot-1",
        "engine": "vllm",
        "revision": "rev-1",
        "weights": None,
        "device": None,
        "asleep": None,
        "memory": None,
        "night": None,
        "epoch": None,
        "terminating": False,
        "startedAt": "2026-11-21T10:18:14.000Z",
        "lastRequestAt": None,
        "idleSeconds": 0.0,
        "served": 0,
        "ledger": [],
    }


def test_requests_are_counted_in_and_out(record: Record, clock: Clock) -> None:
    record.enter(operator=False)
    clock.seconds += 2.5
    record.enter(operator=False)
    record.leave(operator=False)
    document = record.document(asleep=False)
    assert (document["inside"], document["served"]) == (1, 1)
    assert document["lastRequestAt"] == "2026-11-21T10:18:16.500Z"


def test_it_is_idle_since_the_last_client_left_and_not_while_one_is_inside(record: Record, clock: Clock) -> None:
    clock.seconds += 10
    assert record.idle_seconds == 10
    record.enter(operator=False)
    clock.seconds += 5
    record.enter(operator=True)
    assert record.idle_seconds == 0
    record.leave(operator=False)
    clock.seconds += 3
    record.leave(operator=True)
    assert record.idle_seconds == 3


def test_the_operators_own_requests_are_inside_but_nobodys_demand(record: Record) -> None:
    record.enter(operator=True)
    assert record.inside == 1
    record.leave(operator=True)
    assert (record.inside, record.served, record.last_request_at) == (0, 0, None)


def test_a_call_is_in_the_ledger_while_it_runs_and_afterwards(record: Record, clock: Clock) -> None:
    with record.turn("POST /wake_up") as entry:
        assert record.document(asleep=True)["ledger"] == [
            {"at": "2026-11-21T10:18:14.000Z", "call": "POST /wake_up", "status": None, "seconds": None}
        ]
        clock.seconds += 1.25
        entry.status = 200
    assert record.document(asleep=False)["ledger"] == [
        {"at": "2026-11-21T10:18:14.000Z", "call": "POST /wake_up", "status": 200, "seconds": 1.25}
    ]


def test_a_second_call_is_refused_while_one_runs_and_not_after_it_failed(record: Record) -> None:
    with pytest.raises(ZeroDivisionError), record.turn("POST /sleep"):
        with (
            pytest.raises(Refused, match=r"POST /sleep is running since 2026-11-21T10:18:14.000Z"),
            record.turn("POST /sleep"),
        ):
            raise AssertionError("the second one got its turn")
        raise ZeroDivisionError
    with record.turn("POST /sleep"):
        pass
    assert [entry.call for entry in record.ledger] == ["POST /sleep", "POST /sleep"]


def test_the_ledger_forgets_the_oldest(record: Record) -> None:
    for i in range(LEDGER_LENGTH + 3):
        record.note(f"call {i}", 200)
    calls = [entry["call"] for entry in record.document(asleep=None)["ledger"]]
    assert calls == [f"call {i}" for i in range(3, LEDGER_LENGTH + 3)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.9996, "1970-01-01T00:00:01.000Z"),
        (1_795_256_294.2345, "2026-11-21T10:18:14.234Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(seconds: float, text: str) -> None:
    assert stamp(seconds) == text
