"""Orders that go on while somebody else decides: another operator, or a look that takes long."""

from __future__ import annotations

import pytest
from genrm_api.leases import Phase

from tests.unit.operator.machines import WELL, Replica, worse
from tests.unit.operator.test_whole_story import Everything


def a_sleeper(story: Everything) -> Replica:
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(20.0)
    story.a_run_says("p", "judge", Phase.IDLE, None)
    story.time_passes(20.0)
    judge = next(r for r in story.world.replicas.values() if r.model == "judge")
    assert judge.container is not None and judge.container.engine.asleep
    return judge


def test_a_long_wake_outlives_its_operator_and_costs_no_pod(story: Everything) -> None:
    """Its door takes no second order meanwhile. That says nothing of its engine."""
    world, judge = story.world, a_sleeper(story)
    judge.told(worse(WELL, slow={"/wake_up": 15.0}))
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(2.0)
    story.the_operator_is_killed(0.5)
    story.time_passes(30.0)
    assert world.replicas.get(judge.name) is judge
    assert story.is_granted("p")


def test_what_ended_while_a_look_took_long_is_not_ordered_again(story: Everything) -> None:
    """The look has seen a sleeper with an order under way, and waits a second for a pod that does not answer."""
    first, second = (r for r in story.world.replicas.values() if r.model == "alone")
    assert first.container is not None and first.container.engine.asleep
    first.told(worse(WELL, slow={"/wake_up": 2.0}))
    story.a_person_wants("alone", "Awake")
    story.time_passes(0.3)
    second.reachable.clear()
    story.the_operator_is_killed(0.0)
    story.time_passes(10.0)
    story.nothing_broke()
    assert not first.container.engine.asleep
    second.reachable.set()


def test_a_wake_that_never_ends_costs_its_pod_though_operators_change(story: Everything) -> None:
    world, judge = story.world, a_sleeper(story)
    judge.told(worse(WELL, hang=frozenset({"/wake_up"})))
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(2.0)
    story.the_operator_is_killed(0.5)
    story.time_passes(120.0)
    assert judge.name not in world.replicas
    assert story.is_granted("p")


def test_a_sleep_that_was_ordered_while_a_look_took_long_is_not_called_off(
    story: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    """The look has seen who is inside, waits a second for another pod that does not answer, and wants them awake."""
    caplog.set_level("INFO")
    world = story.world
    story.a_person_wants("alone", "Awake")
    story.time_passes(20.0)
    first, second = (r for r in world.replicas.values() if r.model == "alone")
    story.clients_come(list(world.replicas.values()).index(first), 1, 0.0)  # for three seconds
    story.time_passes(2.0)
    story.a_person_wants("alone", "Asleep")
    story.time_passes(0.5)
    assert first.container is not None and first.container.state == "draining"
    second.reachable.clear()
    story.a_person_wants("alone", "Awake")
    story.time_passes(0.8)
    assert "/sleep" in str(first.container.door.record.running), "the look is not over, and its drain is"
    second.reachable.set()
    story.time_passes(20.0)
    assert "given up" not in caplog.text
    assert story.world.api.there["RewardModel", "alone"]["status"]["phase"] == "Serving"
