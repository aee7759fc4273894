"""What to write next to a run's Lease, on a clock that the test moves."""

from __future__ import annotations

from genrm_api.leases import Phase
from genrm_scoring.lease_plan import LeasePlan, Wish, Write
from hypothesis import given
from hypothesis import strategies as st

PHASES = st.sampled_from(list(Phase))


def test_a_holder_creates_then_renews_every_third_of_the_ttl() -> None:
    plan = LeasePlan(30.0, holds=True)
    assert plan.next(0.0).write is Write.CREATE
    plan.succeeded(Write.CREATE, None, 0.0)
    times = []
    now = 0.0
    for _ in range(4):
        step = plan.next(now)
        assert step.write is Write.RENEW
        now = step.at
        times.append(now)
        plan.succeeded(Write.RENEW, None, now)
    assert times == [10.0, 20.0, 30.0, 40.0]


def test_who_only_writes_phases_never_renews() -> None:
    plan = LeasePlan(30.0, holds=False)
    assert plan.next(0.0).write is None
    plan.want(Phase.SCORING, 1.0)
    assert (plan.next(1.0).write, plan.next(1.0).at) == (Write.PHASE, 1.0)
    plan.succeeded(Write.PHASE, Wish(Phase.SCORING), 1.0)
    assert (plan.next(2.0).write, plan.next(2.0).at) == (Write.PHASE, 11.0)


def test_a_phase_that_failed_is_tried_again_until_another_takes_its_place() -> None:
    plan = LeasePlan(30.0, holds=False)
    plan.want(Phase.SCORING, 0.0)
    now = 0.0
    for _ in range(20):
        plan.failed(Write.PHASE, now)
        now = plan.next(now).at
    assert not plan.settled
    plan.want(Phase.IDLE, now)
    assert plan.next(now).at == now
    plan.succeeded(Write.PHASE, Wish(Phase.IDLE), now)
    assert plan.settled


def test_a_wish_that_changed_during_the_write_is_written_at_once() -> None:
    plan = LeasePlan(30.0, holds=False)
    plan.want(Phase.SCORING, 0.0)
    plan.want(Phase.IDLE, 0.1)
    plan.succeeded(Write.PHASE, Wish(Phase.SCORING), 0.2)
    assert plan.next(0.2).at <= 0.2
    assert not plan.settled


def test_a_lease_that_vanished_is_made_again_with_the_phase_wanted() -> None:
    plan = LeasePlan(30.0, holds=True)
    plan.want(Phase.SCORING, 0.0)
    plan.succeeded(Write.CREATE, Wish(Phase.SCORING), 0.0)
    plan.vanished(Write.RENEW, 5.0)
    assert plan.next(5.0).write is Write.CREATE
    plan.succeeded(Write.CREATE, Wish(Phase.SCORING), 5.0)
    assert plan.settled


@given(st.integers(3, 300), st.floats(0, 0.9))
def test_an_outage_shorter_than_the_ttl_never_costs_the_lease(ttl: int, share: float) -> None:
    """The renewal after the outage comes before the TTL has passed since the one before it."""
    plan = LeasePlan(float(ttl), holds=True)
    plan.succeeded(Write.CREATE, None, 0.0)
    outage_ends = ttl * share
    now = 0.0
    while True:
        now = max(now, plan.next(now).at)
        if now >= outage_ends:
            break
        plan.failed(Write.RENEW, now)
    assert now < ttl


@given(st.lists(st.tuples(PHASES, st.booleans()), min_size=1, max_size=30))
def test_whatever_fails_the_last_wish_is_what_gets_written(story: list[tuple[Phase, bool]]) -> None:
    plan = LeasePlan(30.0, holds=False)
    now = 0.0
    for phase, works in story:
        plan.want(phase, now)
        step = plan.next(now)
        if step.at <= now:
            assert step.write is Write.PHASE
            if works:
                plan.succeeded(Write.PHASE, plan.wanted, now)
            else:
                plan.failed(Write.PHASE, now)
        now += 0.01
    for _ in range(3):
        now = max(now, plan.next(now).at)
        plan.succeeded(Write.PHASE, plan.wanted, now)
    assert plan.written == Wish(story[-1][0])
