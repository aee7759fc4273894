"""The soak's accounts of doors and clients: each thing that they would claim can also be seen to be missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.doors_word import Attempt, Hours, Witnessed, hours

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def entry(after: float, call: str, status: int | None = 200, seconds: float | None = 0.0) -> dict[str, Any]:
    at = datetime.fromtimestamp(NOON + after, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"at": at, "call": call, "status": status, "seconds": seconds}


DAY = [entry(0, "PUT serving"), entry(10, "PUT draining"), entry(11, "POST /sleep?level=1"), entry(11.5, "PUT asleep")]
MORNING = [entry(20, "POST /wake_up"), entry(21, "PUT serving", seconds=0.5)]


def answered(sent: float, ended: float) -> Attempt:
    return Attempt("http://10.0.0.1:8000/v1/chat/completions", NOON + sent, NOON + ended, 200, "b1")


def door(served: int, *ledgers: list[dict[str, Any]], before: int = 0) -> Witnessed:
    first, *later = ledgers
    document = {"bootId": "b1", "served": served}
    found = Witnessed("10.0.0.1", document, before)
    for ledger in (first, *later):
        found.hear(document | {"ledger": ledger})
    return found


def test_a_door_serves_from_its_opening_to_its_shutting() -> None:
    assert hours(DAY + MORNING) == [Hours(NOON, NOON + 10), Hours(NOON + 21.5, float("inf"))]


@pytest.mark.parametrize("call", ["PUT draining", "PUT closed", "terminate: draining"])
def test_whatever_shuts_it_ends_its_hours(call: str) -> None:
    assert hours([entry(0, "PUT serving"), entry(4, call)]) == [Hours(NOON, NOON + 4)]


@pytest.mark.parametrize("opening", [entry(0, "PUT serving", 409), entry(0, "PUT serving", None, None)])
def test_an_opening_that_was_refused_or_still_runs_is_none(opening: dict[str, Any]) -> None:
    assert hours([opening]) == []


def test_who_was_let_in_before_the_door_shut_may_be_answered_after_it() -> None:
    assert door(1, DAY).contradicts([answered(9.9, 10.8)]) == []


@pytest.mark.parametrize(("sent", "ended"), [(-2, -1), (10.1, 10.9), (12, 12.2), (20.5, 21.4)])
def test_an_answer_out_of_hours_is_told(sent: float, ended: float) -> None:
    (told,) = door(1, DAY + MORNING).contradicts([answered(sent, ended)])
    assert told.startswith("door b1 at 10.0.0.1 served") and "and answered" in told


@pytest.mark.parametrize("served", [4, 6])
def test_a_count_that_is_not_the_clients_is_told(served: int) -> None:
    (told,) = door(served, DAY, before=3).contradicts([answered(1, 2), answered(2, 3)])
    assert told == f"door b1 at 10.0.0.1 let {served - 3} in, and clients have 2 answers"


def test_what_no_longer_stands_in_the_document_is_remembered() -> None:
    assert door(2, DAY, MORNING).contradicts([answered(1, 2), answered(22, 23)]) == []


def test_a_call_that_ran_at_the_first_look_counts_as_it_ended() -> None:
    assert hours(door(0, [entry(0, "PUT serving", None, None)], DAY).ledger.values()) == [Hours(NOON, NOON + 10)]
