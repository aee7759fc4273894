"""Who may lead, as far as it is arithmetic; the rest is shown with real operators in the cluster tier."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_operator.leadership import LEASE_SECONDS, RENEW_EVERY_SECONDS, RENEWAL_HOLDS_SECONDS, Seen, next_epoch
from hypothesis import given
from hypothesis import strategies as st


def lease(holder: str | None, renewed: str = "t0", seconds: int | None = 15, epoch: str | None = "7") -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": "1", "annotations": {"genrm.dev/epoch": epoch} if epoch is not None else None},
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds},
    }


def test_who_leads_stops_before_anybody_else_may_begin() -> None:
    assert RENEW_EVERY_SECONDS < RENEWAL_HOLDS_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize(
    ("holder", "after", "free"),
    [
        ("a", 0.0, False),
        ("a", 14.9, False),
        ("a", 15.0, True),  # nothing was heard of it for its whole lease
        ("", 0.0, True),  # handed over
        (None, 0.0, True),
        ("me", 0.0, True),  # this pod's container before this one
    ],
)
def test_when_a_lease_is_free(holder: str | None, after: float, free: bool) -> None:
    seen = Seen.of(lease(holder), None, now=100.0)
    assert seen.free("me", 100.0 + after) is free


def test_every_renewal_starts_the_wait_anew_and_a_look_alone_does_not() -> None:
    first = Seen.of(lease("a", "t0"), None, now=100.0)
    again = Seen.of(lease("a", "t0"), first, now=110.0)
    renewed = Seen.of(lease("a", "t1"), again, now=114.0)
    assert (first.since, again.since, renewed.since) == (100.0, 100.0, 114.0)
    assert again.free("me", 115.0) and not renewed.free("me", 115.0)


def test_another_holder_at_the_same_time_stamp_is_news() -> None:
    first = Seen.of(lease("a", "t0"), None, now=100.0)
    assert Seen.of(lease("b", "t0"), first, now=110.0).since == 110.0


@given(last=st.integers(0, 2**53), clock=st.floats(0, 4e9))
def test_an_epoch_is_larger_than_the_one_before(last: int, clock: float) -> None:
    assert next_epoch(last, clock) > last


def test_a_deleted_lease_does_not_turn_the_epochs_back() -> None:
    before = next_epoch(0, 1_795_000_000.0)
    assert next_epoch(0, 1_795_000_060.0) > next_epoch(before, 1_795_000_001.0)


@pytest.mark.parametrize("text", [None, "", "x", "-1"])
def test_an_epoch_that_somebody_spoilt_counts_as_none(text: str | None) -> None:
    assert Seen.of(lease("a", epoch=text), None, now=0.0).epoch == 0
