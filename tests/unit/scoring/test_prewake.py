"""Who is woken ahead waits for nobody, and sleeps almost as long as with foresight: a bench, in made-up time."""

from __future__ import annotations

import pytest
from genrm_scoring.forecast import Forecast

from tests.bench.prewake import WAKES, Policy, Row, rows


@pytest.fixture(scope="module")
def found() -> dict[tuple[Policy, float], Row]:
    return {(row.policy, row.wake_seconds): row for row in rows(steps=40, runs=6)}


@pytest.mark.parametrize("wake", WAKES)
def test_steps_take_as_long_as_with_models_that_never_sleep(
    found: dict[tuple[Policy, float], Row], wake: float
) -> None:
    ahead, late, never = (found[policy, wake] for policy in (Policy.PREWAKE, Policy.ON_DEMAND, Policy.NEVER))
    assert ahead.added_p95 <= 0.2 and never.added_most == 0
    assert late.added_p95 == pytest.approx(wake), "who is woken when the first response is there fails this"


@pytest.mark.parametrize("wake", WAKES)
def test_the_memory_is_free_almost_as_long_as_it_could_be(found: dict[tuple[Policy, float], Row], wake: float) -> None:
    ahead = found[Policy.PREWAKE, wake]
    assert ahead.given_back >= 0.85 * ahead.possible and found[Policy.NEVER, wake].given_back == 0
    if wake == min(WAKES):
        assert ahead.given_back >= 0.85


def test_a_forecast_is_the_shortest_of_the_last_pauses_and_a_little_less() -> None:
    forecast = Forecast()
    assert forecast.needed_in() is None
    for seconds in (50.0, 100.0, 80.0):
        forecast.learn(seconds)
    assert forecast.needed_in() == pytest.approx(48.5)
    for _ in range(8):
        forecast.learn(100.0)
    assert forecast.needed_in() == pytest.approx(97.0), "what was long ago says nothing"
