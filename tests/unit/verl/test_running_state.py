"""A run that goes on from a checkpoint normalises as if it had never broken off."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import asdict
from pathlib import Path

import pytest
from genrm_api.rewardfleet import RewardFleet
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.types import Sample
from genrm_verl.target import Target
from genrm_verl.translate import RunSection

from tests.unit.verl.local_run import LocalRun

SPEC = {
    "terms": [
        {
            "name": "size",
            "rule": {"kind": "python", "function": "size"},
            "normalise": {"kind": "zscore", "scope": "running"},
        }
    ]
}


@pytest.fixture
def section(tmp_path: Path) -> RunSection:
    rules = tmp_path / "rules.py"
    rules.write_text("def size(response, ground_truth):\n    return float(len(response))\n")
    fleet = RewardFleet.model_validate({"metadata": {"name": "team", "namespace": "rl"}, "spec": SPEC})
    text, state = Target(fleet, ()).text(), str(tmp_path / "state")
    return RunSection("run-1", "k8s", target=text, rules=(str(rules),), coordinators=1, state=state)


async def step(run: LocalRun, number: int, *lengths: int, learn: bool = True) -> list[float]:
    samples = [Sample("p", "x" * length, step=number) for length in lengths]
    found = await asyncio.gather(*(run.score(f"{number} {learn}", len(samples), s, learn) for s in samples))
    if learn:
        await run.step_ended()
    return [score.value for score in found if score.value is not None]


async def test_a_run_goes_on_with_what_was_known_at_its_checkpoint(section: RunSection) -> None:
    whole = LocalRun(asdict(section))
    await step(whole, 1, 1, 3)
    assert await step(whole, 2, 2, 4) == [0.0, 2.0], "by the mean and deviation of step 1 alone"
    third = await step(whole, 3, 5, 6)
    await step(whole, 4, 100, 200)  # what a run that breaks off has learned since its checkpoint
    await whole.close()

    again = LocalRun(asdict(section))
    assert await step(again, 3, 5, 6) == third
    assert await step(again, 4, 7) != third
    await again.close()


async def test_a_validation_before_the_first_step_is_on_the_scale_of_the_checkpoint(section: RunSection) -> None:
    whole = LocalRun(asdict(section))
    await step(whole, 1, 1, 3)
    then = await step(whole, 1, 2, 4, learn=False)
    await step(whole, 2, 100, 200)
    await whole.close()

    again = LocalRun(asdict(section))
    assert await step(again, 1, 2, 4, learn=False) == then == [0.0, 2.0]
    assert await step(again, 2, 2, 4) == then
    await again.close()


async def test_a_run_goes_on_with_a_checkpoint_of_another_folder(
    section: RunSection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = LocalRun(asdict(section))
    await step(whole, 1, 1, 3)
    await whole.close()
    elsewhere = dataclasses.replace(section, state=str(tmp_path / "elsewhere"))

    again = LocalRun(asdict(dataclasses.replace(elsewhere, resumed_state=section.state)))
    assert await step(again, 2, 2, 4) == [0.0, 2.0]
    await again.close()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["step-2.json"]
    assert not caplog.messages

    lost = LocalRun(asdict(dataclasses.replace(section, state=str(tmp_path / "nowhere"))))
    assert await step(lost, 2, 2, 4) == [-1.0, 1.0]
    await lost.close()
    assert [f"there is no {tmp_path / 'nowhere' / 'step-1.json'}: it begins anew" in m for m in caplog.messages] == [
        True
    ]


async def test_a_coordinator_that_is_started_again_goes_on_with_its_own_run(
    section: RunSection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = LocalRun(asdict(section))
    for number in range(1, 4):
        await step(before, number, 1, 3)
    await before.close()
    resumed = dataclasses.replace(section, run="run-2", state=str(tmp_path / "own"), resumed_state=section.state)
    await step(first := LocalRun(asdict(resumed)), 2, 11, 13)
    await first.close()

    again = LocalRun(asdict(resumed))
    assert await step(again, 3, 7) == [0.0], "the mean of 1, 3, 11 and 13, and not of what the other run had in step 2"
    await again.close()
    other = LocalRun(asdict(dataclasses.replace(resumed, run="run-3")))
    assert await step(other, 3, 2) == [0.0], "a new run goes on with what it was told to"
    await other.close()
    assert not caplog.messages


async def test_validation_moves_nothing_and_is_on_the_scale_of_training(section: RunSection) -> None:
    run = LocalRun(asdict(section))
    await step(run, 1, 1, 3)
    assert await step(run, 1, 2, 4, learn=False) == [0.0, 2.0]
    await step(run, 1, 1000, learn=False)
    assert await step(run, 2, 2, 4) == [0.0, 2.0]
    await run.close()


async def test_a_new_run_in_an_old_folder_begins_anew(section: RunSection) -> None:
    for _ in range(2):
        run = LocalRun(asdict(section))
        assert await step(run, 1, 1, 3) == [-1.0, 1.0]
        await step(run, 2, 5, 6)
        await run.close()


@pytest.fixture
def broken(section: RunSection) -> None:
    folder = Path(str(section.state))
    folder.mkdir()
    (folder / "step-1.json").write_text('{"size": {"settled": 7}}')


@pytest.mark.usefixtures("broken")
async def test_a_state_that_is_none_stops_the_run(section: RunSection) -> None:
    run = LocalRun(asdict(section))
    with pytest.raises(ConfigurationError, match="running normalisation: the checkpoint holds"):
        await step(run, 2, 1)
    assert "running normalisation" in await asyncio.wait_for(run.stopped(), 5)
    await run.close()
