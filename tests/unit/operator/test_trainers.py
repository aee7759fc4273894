"""What a trainer's word about a slot's GPUs is worth, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from genrm_api.leases import DemandLease, Phase, lease_manifest
from genrm_operator.slots import Holding, Use
from genrm_operator.trainers import Wish

from tests.unit.operator.happenings import on
from tests.unit.operator.test_whole_story import Everything

GPU = frozenset({("device", "n", "0")})


OTHER = frozenset({("device", "n", "1")})


def lease(phase: Phase = Phase.SCORING, slots: Sequence[str] = ("gpu-0",), **annotations: str) -> DemandLease:
    made: dict[str, Any] = lease_manifest("run-1", "judge", "rl", phase, datetime.now(UTC), slots=slots)
    made["metadata"]["annotations"] |= {f"genrm.dev/{name}": word for name, word in annotations.items()}
    return DemandLease.from_object(made)


@pytest.mark.parametrize(
    ("wish", "asks", "use"),
    [
        pytest.param(Wish(lease(Phase.IDLE), GPU, False), False, Use.FREE, id="it needs nothing"),
        pytest.param(Wish(lease(), GPU, False), False, Use.FREE, id="a wish without a word is not one yet"),
        pytest.param(Wish(lease(asked="1"), GPU, False), True, Use.FREE, id="it waits"),
        pytest.param(Wish(lease(asked="1", granted="1"), GPU, False), True, Use.TAKEN, id="it has them"),
        pytest.param(Wish(lease(asked="2", granted="1"), GPU, False), True, Use.FREE, id="it gave back, and asks anew"),
        pytest.param(Wish(lease(Phase.IDLE, granted="1"), GPU, False), False, Use.FREE, id="it gave back"),
        pytest.param(Wish(lease(asked="1"), GPU, True), False, Use.FREE, id="it died waiting"),
        pytest.param(Wish(lease(asked="1", granted="1"), GPU, True), False, Use.UNKNOWN, id="it died, and had them"),
        pytest.param(Wish(lease(asked="1", granted="1"), GPU, True, gone=True), False, Use.FREE, id="so did its pods"),
    ],
)
def test_what_a_lease_says_of_gpus(wish: Wish, asks: bool, use: Use) -> None:
    assert (bool(wish.asks), wish.taker.use) == (asks, use)
    assert wish.owner == ("rl", f"run run-1 (Lease {wish.lease.name})") == wish.taker.owner


def test_several_slots_are_one_claim_on_all_of_their_gpus() -> None:
    judge = Holding("rl", "judge", {"gpu-0": GPU, "gpu-1": OTHER}, None)
    asks = lease(slots=["gpu-1", "gpu-0"], asked="1")
    places = judge.places_of(asks.slots)
    assert places == GPU | OTHER and judge.places_of(["gpu-0", "gpu-9"]) is None
    wish = Wish(asks, places, expired=False)
    assert [(claim.slot, claim.places) for claim in wish.asks] == [("gpu-0, gpu-1", GPU | OTHER)]
    assert wish.taker.places == wish.holding.places == GPU | OTHER


@pytest.mark.parametrize(
    "event", ["its slots have other names", "its slots are other GPUs", "it is deleted", "it is deleted and made anew"]
)
@pytest.mark.parametrize("ends", ["gives back", "deletes its Lease", "crashes, and its pod ends"])
def test_what_became_of_the_reward_model_frees_no_gpu_that_a_trainer_has(
    story: Everything, event: str, ends: str
) -> None:
    world, who = story.world, ("q", ("one",))
    world.measurable = False  # words alone count
    story.change("critic", replicas=0)
    story.time_passes(10.0)
    story.a_trainer_asks(who)
    story.time_passes(20.0)
    assert story.is_granted("q")
    critic = world.api.there["RewardModel", "critic"]
    if event.startswith("its slots"):
        story.change("critic", gpu=on(three=4) if "names" in event else on(one=4, two=1))
    else:
        world.api.remove("RewardModel", "critic")
        story.time_passes(5.0)
    if event == "it is deleted and made anew":
        world.api.put("RewardModel", {**critic, "metadata": {**critic["metadata"], "uid": "another"}, "status": None})
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(60.0)
    assert not story.is_granted("p"), "the trainer has its GPU"
    assert [lease.granted == lease.asked for lease in world.leases if lease.run == "q"] == [True]
    match ends:
        case "gives back":
            story.a_trainer_gives_back(who)
        case "deletes its Lease":
            story.a_run_ends("q")
        case _:
            story.a_runs_pod_is_gone("q")
            story.time_passes(40.0)
    story.time_passes(30.0)
    assert story.is_granted("p")
