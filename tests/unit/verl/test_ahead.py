"""A step's first question: who tells of it, and what the Lease says before it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from genrm_api.leases import Phase
from genrm_scoring.forecast import SPARE_SHARE
from genrm_verl.ahead import ALIKE_SECONDS, Ahead, FirstQuestion, RayHerald


class Asked:
    """The first questions, asked when a test says so."""

    def __init__(self) -> None:
        self.rounds: list[Callable[[float], None]] = []

    def await_first(self, asked: Callable[[float], None]) -> None:
        self.rounds.append(asked)


def made() -> tuple[Ahead, Asked, list[tuple[Phase, float | None]]]:
    said: list[tuple[Phase, float | None]] = []
    questions = Asked()
    return Ahead(lambda phase, needed_in: said.append((phase, needed_in)), questions), questions, said


def step(ahead: Ahead, questions: Asked, seconds: float | None) -> None:
    ahead.publish(Phase.SCORING)
    if seconds is not None:
        questions.rounds[-1](seconds)
    ahead.publish(Phase.IDLE)


def test_the_first_step_needs_its_model_at_once_and_later_ones_say_when() -> None:
    ahead, questions, said = made()
    step(ahead, questions, 20.0)
    step(ahead, questions, 30.0)
    ahead.publish(Phase.SCORING)
    due = 20.0 * (1 - SPARE_SHARE)
    assert said == [
        (Phase.SCORING, None),
        (Phase.SCORING, None),  # the question came; the Lease says so already
        (Phase.IDLE, None),
        (Phase.PREWAKE, due),
        (Phase.SCORING, None),
        (Phase.IDLE, None),
        (Phase.PREWAKE, due),
    ]


def test_a_question_that_comes_early_wakes_the_model_at_once_and_is_learned_from() -> None:
    ahead, questions, said = made()
    step(ahead, questions, 20.0)
    ahead.publish(Phase.SCORING)
    questions.rounds[-1](5.0)
    assert said[-1] == (Phase.SCORING, None)
    ahead.publish(Phase.IDLE)
    ahead.publish(Phase.SCORING)
    assert said[-1] == (Phase.PREWAKE, 5.0 * (1 - SPARE_SHARE))


def test_a_step_without_a_question_teaches_nothing() -> None:
    ahead, questions, said = made()
    step(ahead, questions, None)
    step(ahead, questions, None)
    assert {phase for phase, _ in said} == {Phase.SCORING, Phase.IDLE}


def test_what_is_told_too_late_changes_no_phase() -> None:
    ahead, questions, said = made()
    step(ahead, questions, None)
    questions.rounds[0](7.0)
    assert said[-1] == (Phase.IDLE, None)
    ahead.publish(Phase.SCORING)
    assert said[-1] == (Phase.PREWAKE, 7.0 * (1 - SPARE_SHARE))


async def test_of_many_workers_the_first_one_counts() -> None:
    now = 100.0
    actor = FirstQuestion(lambda: now)
    await actor.asked()  # before any round
    first = asyncio.create_task(actor.await_first())
    await asyncio.sleep(0)
    now = 103.0
    await actor.asked()
    now = 109.0
    await actor.asked()
    assert await first == 3.0


async def test_a_round_without_a_question_ends_when_the_next_begins() -> None:
    actor = FirstQuestion()
    first = asyncio.create_task(actor.await_first())
    await asyncio.sleep(0)
    second = asyncio.create_task(actor.await_first())
    assert await first is None
    await actor.asked()
    assert isinstance(await second, float)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([(0.0, 1), (0.1, 1), (9.0, 1), (9.1, 2), (9.2, 2)], [True, False, False, True, False]),
        ([(0.0, None), (0.5, None), (ALIKE_SECONDS, None)], [True, False, True]),
    ],
)
def test_a_worker_tells_of_each_step_once(steps: list[tuple[float, int | None]], told: list[bool]) -> None:
    now = 0.0
    herald = RayHerald("run", lambda: now)
    found = []
    for at, number in steps:
        now = at
        found.append(herald.is_news(number))
    assert found == told


async def test_without_ray_a_judgement_goes_on() -> None:
    await RayHerald("run").asking(1)
