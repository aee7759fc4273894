"""Who wants a model awake: the table of `demand`, and what time does to Leases."""

from __future__ import annotations

import pytest
from genrm_api.leases import DemandLease, Phase, Sighting
from genrm_api.rewardmodel import LifecycleState
from genrm_operator.demand import Demand, Desired, demand


def make_lease(run: str, phase: Phase, ttl: int = 30, renewal: str = "r1") -> DemandLease:
    return DemandLease("rl", f"lease-{run}", "judge", run, phase, ttl, renewal)


def decide(state: LifecycleState, *leases: DemandLease, seen: float = 0.0, now: float = 10.0) -> Demand:
    return demand(state, leases, {lease.name: Sighting(lease.renewal, seen) for lease in leases}, now)


@pytest.mark.parametrize(
    ("state", "desired"),
    [
        (LifecycleState.OFF, Desired.OFF),
        (LifecycleState.AWAKE, Desired.AWAKE),
        (LifecycleState.ASLEEP, Desired.ASLEEP),
        (LifecycleState.AUTO, Desired.AWAKE),
    ],
)
def test_engines_that_never_sleep_are_awake_without_a_run(state: LifecycleState, desired: Desired) -> None:
    assert demand(state, (), {}, 0.0, sleeps=False).desired is desired


@pytest.mark.parametrize(
    ("state", "phases", "desired"),
    [
        (LifecycleState.OFF, [Phase.SCORING], Desired.OFF),
        (LifecycleState.AWAKE, [], Desired.AWAKE),
        (LifecycleState.ASLEEP, [Phase.SCORING], Desired.ASLEEP),
        (LifecycleState.AUTO, [], Desired.ASLEEP),
        (LifecycleState.AUTO, [Phase.IDLE], Desired.ASLEEP),
        (LifecycleState.AUTO, [Phase.PREWAKE], Desired.AWAKE),
        (LifecycleState.AUTO, [Phase.SCORING], Desired.AWAKE),
        (LifecycleState.AUTO, [Phase.IDLE, Phase.SCORING], Desired.AWAKE),
    ],
)
def test_the_documented_table(state: LifecycleState, phases: list[Phase], desired: Desired) -> None:
    leases = [make_lease(f"run{n}", phase) for n, phase in enumerate(phases)]
    assert decide(state, *leases).desired is desired


def test_a_lease_counts_until_its_ttl_after_the_last_change_that_we_saw() -> None:
    lease = make_lease("a", Phase.SCORING, ttl=30)
    assert decide(LifecycleState.AUTO, lease, seen=100.0, now=129.9).desired is Desired.AWAKE
    late = decide(LifecycleState.AUTO, lease, seen=100.0, now=130.0)
    assert late.desired is Desired.ASLEEP and late.expired == (lease,) and late.held == ()


def test_the_next_expiry_is_when_the_answer_may_change_by_itself() -> None:
    leases = [make_lease("a", Phase.SCORING, ttl=30), make_lease("b", Phase.IDLE, ttl=20)]
    assert decide(LifecycleState.AUTO, *leases, seen=5.0).next_expiry == 25.0
    assert decide(LifecycleState.AUTO).next_expiry is None


def test_only_a_changed_renewal_prolongs_a_lease() -> None:
    first = Sighting("r1", since=0.0)
    assert first.update(make_lease("a", Phase.IDLE, renewal="r1"), now=50.0) is first
    assert first.update(make_lease("a", Phase.IDLE, renewal="r2"), now=50.0).since == 50.0


def test_one_crashed_run_does_not_put_another_runs_model_to_sleep() -> None:
    dead, alive = make_lease("dead", Phase.SCORING, ttl=5), make_lease("alive", Phase.SCORING, ttl=30)
    sightings = {dead.name: Sighting("r1", 0.0), alive.name: Sighting("r1", 8.0)}
    answer = demand(LifecycleState.AUTO, [dead, alive], sightings, 10.0)
    assert answer.desired is Desired.AWAKE and answer.held == (alive,) and answer.expired == (dead,)


def test_a_person_who_says_asleep_wins_and_the_waiting_run_is_named() -> None:
    answer = decide(LifecycleState.ASLEEP, make_lease("grpo-7", Phase.SCORING))
    assert "grpo-7" in answer.because
