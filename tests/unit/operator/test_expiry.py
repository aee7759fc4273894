"""When a run's Lease has expired, and when it only seems so to an operator that hears nothing."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.leases import DemandLease, Phase
from genrm_operator.errors import ApiError, Forbidden

from tests.unit.operator.machines import Container
from tests.unit.operator.test_whole_story import Everything

TTL = 30.0


def serves(story: Everything, name: str) -> bool:
    return story.world.api.there["RewardModel", name]["status"]["phase"] == "Serving"


def serves_a_run(story: Everything) -> Container:
    """The judge does; the container of its only pod."""
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(20.0)
    judge = next(r for r in story.world.replicas.values() if r.model == "judge").container
    assert serves(story, "judge") and judge is not None
    return judge


def the_lease(story: Everything) -> DemandLease:
    (lease,) = story.world.leases
    return lease


def test_a_watch_that_hangs_takes_no_engine_from_a_run_that_renews(story: Everything) -> None:
    """Its connection may have died without a word; until that is noticed, the operator sees nobody renew."""
    judge = serves_a_run(story)
    story.watches_lag(3 * TTL)
    for _ in range(8):
        story.time_passes(10.0)
        assert serves(story, "judge") and story.is_granted("p")
    assert not any("/sleep" in entry.call for entry in judge.door.record.ledger)
    story.watches_lag(0.01)
    story.a_run_crashes("p")
    story.time_passes(TTL + 20.0)
    assert not serves(story, "judge")


def test_nobody_is_dead_for_an_operator_that_cannot_ask(story: Everything) -> None:
    """An API server that answers nobody hears no run renew."""
    judge = serves_a_run(story)
    story.watches_lag(3 * TTL)
    refuse_leases(story, ApiError("PATCH", 503, "overloaded"))
    for _ in range(8):
        story.time_passes(10.0)
        assert not judge.engine.asleep and not any("/sleep" in entry.call for entry in judge.door.record.ledger)


def test_who_may_not_write_to_a_lease_believes_its_watch(story: Everything) -> None:
    serves_a_run(story)
    refuse_leases(story, Forbidden("PATCH", 403, "a policy of theirs"))
    story.a_run_crashes("p")
    story.time_passes(TTL + 20.0)
    assert not serves(story, "judge")


def test_what_a_dead_run_left_behind_wakes_nothing_when_operators_change(story: Everything) -> None:
    serves_a_run(story)
    story.a_run_crashes("p")
    story.time_passes(TTL + 20.0)
    assert not serves(story, "judge") and the_lease(story).has_expired
    assert the_lease(story).granted is None, "its answer ended with it"
    for _ in range(3):
        story.the_operator_is_killed(1.0)
        story.time_passes(20.0)
        assert not serves(story, "judge")
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(20.0)
    assert serves(story, "judge") and story.is_granted("p"), "whoever comes back after that is heard"


def test_a_new_operator_counts_a_whole_ttl_for_who_may_be_alive(story: Everything) -> None:
    serves_a_run(story)
    story.a_run_crashes("p")
    story.time_passes(TTL - 5.0)
    story.the_operator_is_killed(0.0)
    story.time_passes(TTL - 5.0)
    assert serves(story, "judge")
    story.time_passes(30.0)
    assert not serves(story, "judge")


def test_a_lease_that_cannot_be_written_keeps_no_answer_from_others_and_no_engine_awake(story: Everything) -> None:
    (first, second) = sorted(["p", "q"])
    refuse_leases(story, Forbidden("PATCH", 403, "a policy of theirs"), only=first)
    story.a_run_says(first, "judge", Phase.SCORING, None)
    story.a_run_says(second, "judge", Phase.SCORING, None)
    story.time_passes(20.0)
    assert story.is_granted(second) and not story.is_granted(first)
    story.a_run_ends(first)
    story.a_run_ends(second)
    story.time_passes(20.0)
    assert not serves(story, "judge")


def refuse_leases(story: Everything, error: ApiError, only: str | None = None) -> None:
    """The API server answers so to who writes to Leases, of one run or of all."""
    api = story.world.api
    patch = api.merge_patch

    async def refused(kind: str, namespace: str, name: str, what: Any) -> Any:
        if kind == "Lease" and only in (None, DemandLease.from_object(api.there[kind, name]).run):
            raise error
        return await patch(kind, namespace, name, what)

    api.merge_patch = refused  # type: ignore[method-assign]


@pytest.mark.parametrize("refused", [False, True])
def test_a_trainer_whose_lease_cannot_be_written_keeps_no_engine_from_its_orders(
    story: Everything, refused: bool
) -> None:
    if refused:
        refuse_leases(story, Forbidden("PATCH", 403, "a policy of theirs"), only="q")
    story.a_trainer_asks(("q", ("one",)))
    story.a_person_wants("critic", "Awake")
    story.time_passes(60.0)
    pods = [r for r in story.world.replicas.values() if r.model == "critic"]
    up = [r for r in pods if r.container is not None and r.container.up]
    assert len(up) == 1, "on the slot that nobody else has"
