"""A reward worker's part, with stand-ins for verl's base class and Ray's messages: what it judges itself is counted,
and what cannot be judged ends the run whatever the run is scored by.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError, RunStopped, SampleDropped
from genrm_verl.tally import Reporter, Tally
from genrm_verl.target import Target
from genrm_verl.translate import RunSection
from omegaconf import OmegaConf

from dev.grpo import read_lines
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, says, status

BASE = "verl.experimental.reward_loop.reward_manager.base"
VALUE = {"policy": "value", "value": 0.0}


class Base:
    def __init__(self, config: Any, tokenizer: Any, compute_score: Any) -> None:
        self.config, self.tokenizer = config, tokenizer


Make = Callable[..., Any]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a reward worker of a run on one judge, which reports to `tally`."""
    base: Any = ModuleType(BASE)
    base.RewardManagerBase = Base
    monkeypatch.setitem(sys.modules, BASE, base)
    monkeypatch.delitem(sys.modules, "genrm_verl.reward_manager", raising=False)
    from genrm_verl import reward_manager

    def make(section: RunSection, tally: Tally) -> Any:
        monkeypatch.setattr(reward_manager, "reporter", lambda run: Reporter(tally.take))
        values = {**asdict(section), "endpoints": list(section.endpoints)}
        rollout = {"rollout": {"n": 1, "val_kwargs": {"n": 1}}}
        config = OmegaConf.create({"genrm": values, "actor_rollout_ref": rollout})
        tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: "".join(map(chr, ids)))
        return reward_manager.GenrmRewardManager(config, tokenizer, None)

    return make


def section(url: str, log: Path | None = None, *, settles: bool, **breaker: Any) -> RunSection:
    return RunSection(
        run="run-1",
        discovery="static",
        served_name="judge",
        engine="vllm",
        scoring={"timeout": "5s", **({} if settles else {"onFailure": VALUE})},
        endpoints=(url,),
        judgement_log=None if log is None else str(log),
        breaker=breaker,
        coordinators=1 if settles else 0,
        settles=settles,
    )


def of_fleet(url: str) -> RunSection:
    away = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s"}}
    judge = RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl"}, "spec": away})
    spec = {"terms": [{"name": "good", "rewardModel": {"name": "judge"}}], "onFailure": VALUE}
    fleet = RewardFleet.model_validate({"metadata": {"name": "team", "namespace": "rl"}, "spec": spec})
    return RunSection("run-1", "k8s", target=Target(fleet, (judge,)).text(), coordinators=1)


def rollout(response: str, session: int = 0, step: int | None = 1, **more: Any) -> list[Any]:
    fields = {
        "raw_prompt": [{"role": "user", "content": "p"}],
        "uid": "u",
        "session_id": session,
        "global_steps": step,
        "response_len": len(response),
        **more,
    }
    return [SimpleNamespace(batch={"responses": [ord(c) for c in response]}, non_tensor_batch=fields)]


def by_length(request: Request) -> str:
    text = request["messages"][0]["content"]
    return "I cannot tell." if "bad" in text[text.rindex("<response>") :] else r"\boxed{True}"


@pytest.mark.parametrize("settles", [True, False])
async def test_a_run_on_one_judge_has_its_steps_numbers(worker: Make, tmp_path: Path, settles: bool) -> None:
    """Under policy drop, where the workers judge and only settle at coordinators, and under value, without any."""
    async with ScriptedJudge(says(by_length)) as judge:
        made = section(judge.url, tmp_path, settles=settles)
        tally = Tally(asdict(made))
        one, other = worker(made, tally), worker(made, tally)
        assert (await one.run_single(rollout("good")))["reward_score"] == 1.0
        if settles:
            with pytest.raises(SampleDropped):
                await other.run_single(rollout("bad", 1))
        else:
            assert (await other.run_single(rollout("bad", 1)))["reward_score"] == 0.0
        await tally.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert (line["step"], line["samples"], line["failed"]) == (1, 2, 0.5)
    assert line["outcomes"] == line["judgements"]["judge"] == {"ok": 1, "parse_failed": 1}


@pytest.mark.parametrize("settles", [True, False])
async def test_a_run_on_one_judge_stops_when_most_of_it_fails(worker: Make, settles: bool) -> None:
    async with ScriptedJudge(says(by_length)) as judge:
        made = section(judge.url, settles=settles, maxFailedFraction=0.5, minimumCount=3)
        tally = Tally(asdict(made))
        one = worker(made, tally)
        for number in range(2):
            if settles:
                with pytest.raises(SampleDropped):
                    await one.run_single(rollout("bad", number))
            else:
                await one.run_single(rollout("bad", number))
        with pytest.raises(RunStopped, match="3 of the first 3 scores") as stopped:
            await one.run_single(rollout("bad", 2))
    for number in range(3):
        assert f"prompt u, response {number}: parse_failed" in str(stopped.value)


SCORED_BY: dict[str, Callable[[str], RunSection]] = {
    "one model, by itself": lambda url: section(url, settles=False, maxFailedFraction=1),
    "one model, whose groups are settled": lambda url: section(url, settles=True, maxFailedFraction=1),
    "a group": lambda url: replace(section(url, settles=True), scoring={"mode": "pairwise"}, settles=False),
    "a fleet": of_fleet,
}


@pytest.mark.parametrize("scored_by", SCORED_BY)
async def test_a_row_that_cannot_be_judged_stops_the_run_whatever_it_is_scored_by(worker: Make, scored_by: str) -> None:
    """No policy is asked, and no breaker: leaving a part of it out would score something else."""
    async with ScriptedJudge(says(by_length)) as judge:
        made = SCORED_BY[scored_by](judge.url)
        tally = Tally(asdict(made))
        told = asyncio.create_task(tally.stopped())
        with pytest.raises(ConfigurationError):
            await worker(made, tally).run_single(rollout("good", images=["a picture"]))
        assert "data.images" in await asyncio.wait_for(told, 5)
        assert not judge.requests
    assert (await tally.step_ended()).said is None, "it is no score that failed"


async def test_a_judge_that_cannot_be_asked_stops_the_run(worker: Make) -> None:
    """In a worker that opens it later than the driver did."""
    made = replace(
        section("http://127.0.0.1:9", settles=False), scoring={"template": "{{ x }}", "parse": {"kind": "number"}}
    )
    tally = Tally(asdict(made))
    told = asyncio.create_task(tally.stopped())
    with pytest.raises(ConfigurationError):
        await worker(made, tally).run_single(rollout("good"))
    assert "template" in await asyncio.wait_for(told, 5)


@pytest.mark.parametrize(("policy", "reward"), [({"policy": "value", "value": -1.0}, -1.0), ({"policy": "drop"}, None)])
async def test_a_request_that_the_engine_turns_down_is_a_failed_score_and_stops_no_run_alone(
    worker: Make, policy: dict[str, Any], reward: float | None
) -> None:
    async with ScriptedJudge(status(400)) as judge:
        made = replace(section(judge.url, settles=False), scoring={"timeout": "5s", "onFailure": policy})
        tally = Tally(asdict(made))
        if reward is None:
            with pytest.raises(SampleDropped, match="refused"):
                await worker(made, tally).run_single(rollout("good"))
        else:
            assert (await worker(made, tally).run_single(rollout("good")))["reward_score"] == reward
    end = await tally.step_ended()
    assert (end.said, end.stop) == ("step 1: 1 scores (refused 1), 1 judgements (refused 1)", None)
