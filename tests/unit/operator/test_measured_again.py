"""What a sleep seems to have kept is looked at again, by the operators that come after, too: it may have been somebody
else's. In the world of the whole story, where the ways to this were found.
"""

from __future__ import annotations

from genrm_api.leases import Phase

from tests.unit.operator.machines import Container
from tests.unit.operator.test_whole_story import Everything

STRANGERS = 6 << 30


def scored_by_the_judge(story: Everything) -> Container:
    """A run's model is awake: the container of its only pod, which shares a GPU with the critic."""
    story.a_run_says("p", "judge", Phase.SCORING, None)
    story.time_passes(20.0)
    assert story.is_granted("p")
    judge = next(r for r in story.world.replicas.values() if r.model == "judge")
    assert judge.container is not None
    return judge.container


def test_a_sleep_that_nobody_could_measure_is_measured_later(story: Everything) -> None:
    """The driver, or the network, may be away for just the seconds in which it is asked."""
    scored_by_the_judge(story)
    story.a_run_says("p", "judge", Phase.IDLE, None)
    story.time_passes(0.5)  # it is on its way down
    story.world.measurable = False
    story.time_passes(20.0)
    story.a_run_says("q", "critic", Phase.SCORING, None)
    story.time_passes(45.0)
    assert not story.is_granted("q"), "who may have kept everything has the GPUs"
    story.world.measurable = True
    story.time_passes(45.0)
    assert story.is_granted("q")


def test_an_engine_that_had_fallen_asleep_by_itself_is_not_blamed_for_giving_back_nothing(story: Everything) -> None:
    scored_by_the_judge(story).strays()
    story.a_run_says("p", "judge", Phase.IDLE, None)
    story.a_run_says("q", "critic", Phase.SCORING, None)
    story.time_passes(45.0)
    assert story.is_granted("q")


def test_what_somebody_else_had_while_an_engine_fell_asleep_is_not_held_against_it(story: Everything) -> None:
    """It woke by itself while a trainer had its GPU, and went back to sleep: nobody can tell apart whose memory is
    left, until the trainer has gone."""
    judge = scored_by_the_judge(story)
    story.a_run_ends("p")
    story.time_passes(20.0)
    story.a_trainer_asks(("q", ("one",)))
    story.time_passes(20.0)
    assert story.is_granted("q")
    assert judge.engine.asleep
    judge.strays()
    story.time_passes(45.0)
    assert judge.engine.asleep
    story.a_trainer_gives_back(("q", ("one",)))
    story.a_run_says("p", "critic", Phase.SCORING, None)
    story.time_passes(60.0)
    assert story.is_granted("p")


def test_what_a_stranger_had_is_not_held_against_it_by_the_next_operator_either(story: Everything) -> None:
    """It had fallen asleep by itself, so its door knows nothing of its night, and who judged it has died."""
    scored_by_the_judge(story).strays()
    story.a_stranger_has_memory(STRANGERS)
    story.a_run_ends("p")
    story.time_passes(45.0)
    said = story.world.api.there["RewardModel", "judge"]["status"]["conditions"]
    assert [c["reason"] for c in said if c["type"] == "SleepEffective"] == ["MemoryKept"]
    story.the_operator_is_killed(3.0)
    story.a_stranger_has_memory(0)
    story.a_run_says("q", "critic", Phase.SCORING, None)
    story.time_passes(45.0)
    assert story.is_granted("q")
