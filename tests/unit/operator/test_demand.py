"""Who wants a model awake: the table of `demand`, and what time does to Leases."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from genrm_api.effective import EffectiveLifecycle, effective_spec
from genrm_api.leases import DemandLease, Phase, Sighting
from genrm_api.lifecycle import SleepMode
from genrm_api.rewardmodel import RewardModel
from genrm_operator.demand import LOOK_AGAIN_SECONDS, Demand, Desired, Idle, Past, demand
from genrm_operator.memory import Memory

NOTHING = Past()


def make_lease(run: str, phase: Phase, ttl: int = 30, renewal: str = "r1") -> DemandLease:
    return DemandLease("rl", f"lease-{run}", "judge", run, phase, ttl, renewal)


def lives(state: str = "Auto", mode: str = "Engine", **idle: str) -> EffectiveLifecycle:
    lifecycle = {"state": state, "sleep": {"mode": mode}, "idle": idle}
    return effective_spec(model({"lifecycle": lifecycle})).lifecycle


def model(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, generation: int = 1) -> RewardModel:
    meta = {"name": "judge", "namespace": "rl", "uid": "u", "generation": generation}
    whole = {"metadata": meta, "spec": {"model": {"uri": "hf://a/b"}} | (spec or {})}
    return RewardModel.model_validate(whole | ({"status": status} if status is not None else {}))


def decide(
    state: str, *leases: DemandLease, seen: float = 0.0, now: float = 10.0, past: Past = NOTHING, **spec: str
) -> Demand:
    return demand(
        lives(state, **spec), leases, {lease.name: Sighting.first(lease, seen) for lease in leases}, now, past
    )


@pytest.mark.parametrize(
    ("state", "desired"), [("Off", Desired.OFF), ("Awake", Desired.AWAKE), ("Auto", Desired.AWAKE)]
)
def test_engines_that_never_sleep_are_awake_without_a_run(state: str, desired: Desired) -> None:
    assert decide(state, mode="None").desired is desired


@pytest.mark.parametrize(("mode", "rest"), [("Engine", Desired.ASLEEP), ("ScaleToZero", Desired.OFF)])
@pytest.mark.parametrize(
    ("state", "phases", "desired"),
    [
        ("Off", [Phase.SCORING], Desired.OFF),
        ("Awake", [], Desired.AWAKE),
        ("Asleep", [Phase.SCORING], None),
        ("Auto", [], None),
        ("Auto", [Phase.IDLE], None),
        ("Auto", [Phase.PREWAKE], Desired.AWAKE),
        ("Auto", [Phase.SCORING], Desired.AWAKE),
        ("Auto", [Phase.IDLE, Phase.SCORING], Desired.AWAKE),
    ],
)
def test_the_documented_table(
    state: str, phases: list[Phase], desired: Desired | None, mode: str, rest: Desired
) -> None:
    leases = [make_lease(f"run{n}", phase) for n, phase in enumerate(phases)]
    assert decide(state, *leases, mode=mode).desired is (desired or rest)


AWAKE_BY_ITSELF = Past(awake=True, idle=Idle(3.0, at=10.0))


@pytest.mark.parametrize(
    ("past", "spec", "desired", "look_at"),
    [
        pytest.param(AWAKE_BY_ITSELF, {}, Desired.ASLEEP, None, id="no sleepAfter"),
        pytest.param(AWAKE_BY_ITSELF, {"sleepAfter": "9s"}, Desired.AWAKE, 16.0, id="asked lately"),
        pytest.param(Past(awake=True), {"sleepAfter": "9s"}, Desired.AWAKE, None, id="no door has told"),
        pytest.param(
            Past(awake=True, idle=Idle(8.0, at=4.0)), {"sleepAfter": "9s"}, Desired.AWAKE, 10.0 + LOOK_AGAIN_SECONDS,
            id="what is known is old: look before anything is done",
        ),
        pytest.param(Past(awake=True, idle=Idle(9.0, at=10.0)), {"sleepAfter": "9s"}, Desired.ASLEEP, None, id="idle"),
        pytest.param(Past(idle=Idle(3.0, at=10.0)), {"sleepAfter": "9s"}, Desired.ASLEEP, None, id="asleep already"),
        pytest.param(
            Past(awake=True, idle=Idle(9.0, at=10.0)), {"sleepAfter": "9s", "mode": "ScaleToZero"}, Desired.OFF, None,
            id="idle, and sleeping is to have no pods",
        ),
        pytest.param(AWAKE_BY_ITSELF, {"offAfter": "9s"}, Desired.ASLEEP, 16.0, id="off later"),
        pytest.param(
            AWAKE_BY_ITSELF, {"sleepAfter": "5s", "offAfter": "9s"}, Desired.AWAKE, 12.0, id="asleep, then off"
        ),
        pytest.param(AWAKE_BY_ITSELF, {"offAfter": "9s", "mode": "None"}, Desired.AWAKE, 16.0, id="never asleep"),
        pytest.param(Past(idle=Idle(9.0, at=10.0)), {"offAfter": "9s"}, Desired.OFF, None, id="off"),
        pytest.param(Past(off=True), {"offAfter": "9s"}, Desired.OFF, None, id="stays off"),
        pytest.param(Past(off=True), {}, Desired.ASLEEP, None, id="no more offAfter"),
        pytest.param(Past(), {"offAfter": "9s"}, Desired.ASLEEP, None, id="nobody knows how idle it is"),
    ],
)  # fmt: skip
def test_what_idleness_leads_to(past: Past, spec: dict[str, str], desired: Desired, look_at: float | None) -> None:
    answer = decide("Auto", past=past, **spec)
    assert (answer.desired, answer.next_expiry) == (desired, look_at)


@pytest.mark.parametrize("mode", SleepMode)
@pytest.mark.parametrize("phase", Phase)
def test_idleness_takes_no_pod_from_a_run_that_holds_a_lease(phase: Phase, mode: SleepMode) -> None:
    past = Past(off=True, idle=Idle(99.0, at=10.0))
    wants = decide("Auto", make_lease("a", phase), past=past, offAfter="9s", mode=str(mode)).desired
    rests_without_pods = mode is SleepMode.SCALE_TO_ZERO and not phase.wants_awake
    assert (wants is Desired.OFF) == rests_without_pods, "as it would without offAfter"


@pytest.mark.parametrize(
    ("status", "past"),
    [
        (None, Past(awake=True)),
        ({"phase": "Starting", "observedGeneration": 1}, Past(awake=True)),
        ({"phase": "Serving", "observedGeneration": 1}, Past(awake=True)),
        ({"phase": "Asleep", "observedGeneration": 1}, Past()),
        ({"phase": "Off", "observedGeneration": 1}, Past(off=True)),
        ({"phase": "Off", "observedGeneration": 0}, Past()),
    ],
)
def test_a_new_process_takes_the_past_from_the_status(status: dict[str, Any] | None, past: Past) -> None:
    assert Memory().past(model(status=status)) == past


def test_what_was_awake_for_a_run_rests_at_once_and_a_change_of_the_spec_brings_pods_back() -> None:
    memory, rm = Memory(), model()
    awake, off = decide("Auto", make_lease("a", Phase.SCORING)), decide("Off")
    memory.wants = (awake, 1)
    assert awake.for_run and memory.past(rm) == Past()
    memory.wants = (decide("Awake"), 1)
    assert memory.past(rm) == Past(awake=True)
    memory.wants = (off, 1)
    assert memory.past(rm) == Past(off=True) and memory.past(model(generation=2)) == Past()


def test_a_lease_counts_until_its_ttl_after_the_last_change_that_we_saw() -> None:
    lease = make_lease("a", Phase.SCORING, ttl=30)
    assert decide("Auto", lease, seen=100.0, now=129.9).desired is Desired.AWAKE
    late = decide("Auto", lease, seen=100.0, now=130.0)
    assert late.desired is Desired.ASLEEP and late.expired == (lease,) and late.held == ()


def test_the_next_expiry_is_when_the_answer_may_change_by_itself() -> None:
    leases = [make_lease("a", Phase.SCORING, ttl=30), make_lease("b", Phase.IDLE, ttl=20)]
    assert decide("Auto", *leases, seen=5.0).next_expiry == 25.0
    assert decide("Auto").next_expiry is None


def test_only_a_changed_renewal_prolongs_a_lease() -> None:
    first = Sighting.first(make_lease("a", Phase.IDLE), 0.0)
    assert first.update(make_lease("a", Phase.IDLE, renewal="r1"), now=50.0) is first
    assert first.update(make_lease("a", Phase.IDLE, renewal="r2"), now=50.0).since == 50.0


SOON = dataclasses.replace(make_lease("a", Phase.PREWAKE), needed_in=20.0)


@pytest.mark.parametrize(
    ("wake_seconds", "now", "desired", "look_at"),
    [
        pytest.param(4.0, 10.0, Desired.ASLEEP, 21.0, id="in time is later"),
        pytest.param(4.0, 21.0, Desired.AWAKE, 35.0, id="it is time"),
        pytest.param(90.0, 10.0, Desired.AWAKE, 35.0, id="a wake takes longer than there is"),
        pytest.param(None, 10.0, Desired.AWAKE, 35.0, id="nobody knows how long a wake takes"),
    ],
)
def test_a_prewake_begins_as_late_as_is_safe(
    wake_seconds: float | None, now: float, desired: Desired, look_at: float
) -> None:
    """Wished at 5: needed at 25. The Lease itself ends at 35."""
    seen = Sighting.first(make_lease("a", Phase.IDLE), 0.0).update(dataclasses.replace(SOON, renewal="r2"), 5.0)
    answer = demand(lives(), [SOON], {SOON.name: seen}, now, Past(wake_seconds=wake_seconds))
    assert (answer.desired, answer.next_expiry) == (desired, look_at)
    assert answer.because == (
        "run a is in phase prewake" if desired is Desired.AWAKE else "no run's Lease asks for it; run a needs it later"
    )


def test_a_prewake_that_has_begun_is_not_called_off_and_scoring_is_no_prewake() -> None:
    seen = {SOON.name: Sighting.first(make_lease("a", Phase.SCORING), 0.0).update(SOON, 5.0)}
    scored = demand(lives(), [make_lease("a", Phase.SCORING)], seen, 4.0)
    assert scored.for_run and not scored.prewoken
    begun = demand(lives(), [SOON], seen, 21.0, Past(wake_seconds=4.0, prewoken=scored.prewoken))
    assert begun.prewoken == {SOON.name}
    memory = Memory()
    memory.wants = (begun, 1)
    past = dataclasses.replace(memory.past(model()), wake_seconds=1.0)
    assert demand(lives(), [SOON], seen, 21.5, past).desired is Desired.AWAKE


def test_a_prewake_of_before_our_time_counts_from_nobody_knows_when() -> None:
    answer = demand(lives(), [SOON], {SOON.name: Sighting.first(SOON, 5.0)}, 5.0, Past(wake_seconds=4.0))
    assert answer.desired is Desired.AWAKE


def test_a_prewake_counts_from_when_it_was_written_whoever_renews_the_lease_since() -> None:
    seen = Sighting.first(make_lease("a", Phase.IDLE), 0.0).update(SOON, 5.0)
    later = seen.update(dataclasses.replace(SOON, renewal="r9"), 11.0)
    assert (later.since, later.needed_at()) == (11.0, 25.0)
    again = later.update(dataclasses.replace(SOON, renewal="r9", needed_in=13.0), 12.0)
    assert (again.since, again.needed_at()) == (11.0, 25.0)


def test_nine_of_ten_wakes_are_usual_and_a_new_process_goes_on_from_the_status() -> None:
    memory, rm = Memory(), model(status={"usualWakeSeconds": 7.0})
    assert memory.usual_wake_seconds(rm) == 7.0 and memory.usual_wake_seconds(model()) is None
    memory.wakes.extend([2.0] * 14 + [9.0])
    assert memory.usual_wake_seconds(rm) == 2.0
    memory.wakes.append(9.0)
    assert memory.usual_wake_seconds(rm) == 9.0
    allowed = memory.past(rm).wake_seconds
    assert allowed is not None and 9.0 < allowed < 11.0


WAKES = {"u0": (11.0, 12.0), "u1": (11.0, 12.9), "u2": (3.0, 5.0)}


@pytest.mark.parametrize(
    ("phase", "seen", "wakes", "waited", "engine"),
    [
        pytest.param(Phase.SCORING, 11.0, WAKES, 2.1, 1.9, id="as long as the slowest engine of this wake"),
        pytest.param(Phase.SCORING, 12.5, WAKES, 0.6, 0.4, id="another run's wake, from when it came"),
        pytest.param(Phase.SCORING, 13.0, WAKES, 0.1, None, id="all were awake"),
        pytest.param(Phase.SCORING, 11.0, {}, 2.1, None, id="no engine was woken by a call"),
        pytest.param(Phase.PREWAKE, 11.0, WAKES, 0.0, None, id="nobody waits for a pre-wake"),
    ],
)
def test_a_run_is_told_how_long_it_waited_and_what_of_it_was_the_engines(
    phase: Phase, seen: float, wakes: dict[str, tuple[float, float]], waited: float, engine: float | None
) -> None:
    memory, lease = Memory(engine_wakes=wakes), make_lease("a", phase)
    for now in (seen, seen + 0.05):
        memory.wait([lease], now)
    grant = memory.grant(lease, 13.1, datetime(2026, 11, 21, tzinfo=UTC))
    assert (grant.at, grant.waited) == ("2026-11-21T00:00:00.000000Z", pytest.approx(waited))
    assert grant.engine == (None if engine is None else pytest.approx(engine))
    memory.wait([dataclasses.replace(lease, granted=str(grant))], 14.0)
    assert not memory.waiting


def test_one_crashed_run_does_not_put_another_runs_model_to_sleep() -> None:
    dead, alive = make_lease("dead", Phase.SCORING, ttl=5), make_lease("alive", Phase.SCORING, ttl=30)
    sightings = {dead.name: Sighting.first(dead, 0.0), alive.name: Sighting.first(alive, 8.0)}
    answer = demand(lives(), [dead, alive], sightings, 10.0)
    assert answer.desired is Desired.AWAKE and answer.held == (alive,) and answer.expired == (dead,)


def test_a_person_who_says_asleep_wins_and_the_waiting_run_is_named() -> None:
    answer = decide("Asleep", make_lease("grpo-7", Phase.SCORING))
    assert "grpo-7" in answer.because
