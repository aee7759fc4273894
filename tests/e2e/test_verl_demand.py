"""A real GRPO run (verl's old trainer) that finds its reward model by the Kubernetes API and says when it needs it.

The API is a stub and the operator is three lines of this test: endpoints serve exactly while the run's Lease says
`scoring`. What real pods do in between is shown by the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dev.grpo import GrpoRun, cluster_rewards, read_lines, read_training
from tests.e2e.verl_runs import models, run_to_end, verl_python
from tests.unit.scoring.scripted_judge import ScriptedJudge, says
from tests.unit.scoring.stub_api import StubApi, endpoint_slice, reward_model

__all__ = ["models", "verl_python"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROMPTS = 16


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubApi]:
    async with StubApi() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield api


def lease_phases(api: StubApi) -> list[tuple[str, str]]:
    """(RewardModel, phase) of each Lease."""
    leases = [o["metadata"] for (plural, _, _), o in api.objects.items() if plural == "leases"]
    return [(str(m["labels"]["genrm.dev/reward-model"]), str(m["annotations"]["genrm.dev/phase"])) for m in leases]


async def operate(api: StubApi, judge: ScriptedJudge, story: dict[str, list[str]]) -> None:
    """Serve while a model's Lease asks for it, and from the moment it says so ahead; note each change of its phase."""
    port = int(judge.url.rpartition(":")[2])
    while True:
        await api.patched.wait()
        api.patched.clear()
        for model, phase in lease_phases(api):
            if story[model][-1:] != [phase]:
                story[model].append(phase)
                pods = [] if phase == "idle" else [f"{model}-1"]
                api.put(
                    "endpointslices", "rl", f"{model}-pods-a", **endpoint_slice(*pods, port=port, address="127.0.0.{}")
                )


@pytest.mark.proof
async def test_a_run_asks_for_its_reward_model_while_it_rolls_out_and_validates(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring={"timeout": "60s"}))
    api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice())
    story: dict[str, list[str]] = {"judge": []}
    verdicts = iter(["True", "False"] * 1000)

    def alternating(_: dict[str, Any]) -> str:
        return f"\\boxed{{{next(verdicts)}}}"

    async with ScriptedJudge(says(alternating)) as judge:
        operator = asyncio.create_task(operate(api, judge, story))
        run = GrpoRun(
            python=verl_python,
            models=models,
            work=tmp_path,
            rewards=cluster_rewards("judge", "rl", tmp_path / "log"),
            validate_first=True,
            old_trainer=True,
        )
        code, output = await run_to_end(run)
        operator.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await operator
    assert code == 0, output[-4000:]

    judgements = read_lines(tmp_path / "log", "judgements")
    assert len(judgements) == PROMPTS + run.steps * run.samples_per_step
    assert {j["outcome"] for j in judgements} == {"ok"}
    assert {j["pod"] for j in judgements} == {"judge-1"}
    assert {j["boot_id"] for j in judgements} == {"b1"}
    assert read_training(output).learned

    assert story["judge"] == ["idle", *["scoring", "idle"] * run.steps], "the first step follows the validation at once"
    assert lease_phases(api) == [], "the run released its Lease"
    assert output.count("genrm: looking for") == 1
    assert output.count("holds Lease rl/genrm-judge-") == 1
    assert "genrm/ok/mean@1" in output


@pytest.mark.proof
@pytest.mark.parametrize("old_trainer", [False, True])
async def test_a_run_that_knows_when_its_first_question_comes_says_so_ahead(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi, old_trainer: bool
) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring={"timeout": "60s"}))
    api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice())
    story: dict[str, list[str]] = {"judge": []}
    async with ScriptedJudge(says(r"\boxed{True}")) as judge:
        operator = asyncio.create_task(operate(api, judge, story))
        rewards = [*cluster_rewards("judge", "rl", tmp_path / "log"), "reward_model.prewake=true"]
        run = GrpoRun(verl_python, models, tmp_path, rewards, steps=3, old_trainer=old_trainer)
        code, output = await run_to_end(run)
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)
    assert code == 0, output[-4000:]
    judgements = read_lines(tmp_path / "log", "judgements")
    assert [j["outcome"] for j in judgements] == ["ok"] * (run.steps * run.samples_per_step)
    # Where the last question follows the first at once, the Lease may hear of both as one.
    assert re.fullmatch(rf"idle scoring idle( prewake( scoring)? idle){{{run.steps - 1}}}", " ".join(story["judge"]))


TEAM = {
    "terms": [
        {"name": "brief", "rule": {"kind": "length", "maximum": 10_000}},
        {"name": "judged", "rewardModel": {"name": "judge"}, "weight": 2, "gate": {"term": "brief"}},
        {"name": "compared", "rewardModel": {"name": "critic"}, "normalise": {"kind": "zscore"}},
    ],
    "breaker": {"maxFailedFraction": 0.2, "minimumCount": 4},
}


def put_team(api: StubApi) -> dict[str, list[str]]:
    scoring = {"timeout": "60s"}
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring=scoring))
    api.put("rewardmodels", "rl", "critic", **reward_model(scoring={**scoring, "mode": "pairwise"}))
    api.put("rewardfleets", "rl", "team", kind="RewardFleet", apiVersion="genrm.dev/v1alpha1", spec=TEAM)
    for model in ("judge", "critic"):
        api.put("endpointslices", "rl", f"{model}-pods-a", **endpoint_slice())
    return {"judge": [], "critic": []}


def by_the_text(request: dict[str, Any]) -> str:
    text = request["messages"][0]["content"]
    if request["model"] == "judge":
        return f"\\boxed{{{bool(zlib.crc32(text.encode()) % 2)}}}"
    return f"<result>{'A' if zlib.crc32(text.encode()) % 2 else 'B'}</result>"


@pytest.mark.proof
@pytest.mark.parametrize("old_trainer", [False, True])
async def test_a_run_on_a_fleet_wakes_its_models_and_trains_on_their_mixture(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi, old_trainer: bool
) -> None:
    story = put_team(api)
    async with ScriptedJudge(says(by_the_text)) as judge:
        operator = asyncio.create_task(operate(api, judge, story))
        rewards = cluster_rewards("team", "rl", tmp_path / "log")
        run = GrpoRun(verl_python, models, tmp_path, rewards, old_trainer=old_trainer)
        code, output = await run_to_end(run)
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)
    assert code == 0, output[-4000:]
    scores = read_lines(tmp_path / "log", "scores")
    assert [s["outcome"] for s in scores] == ["ok"] * (run.steps * run.samples_per_step)
    for score in scores:
        terms = {name: term["value"] for name, term in score["terms"].items()}
        assert score["score"] == pytest.approx(terms["brief"] + 2 * terms["judged"] + terms["compared"])
    assert story == {name: ["idle", *["scoring", "idle"] * run.steps] for name in ("judge", "critic")}
    assert read_training(output).learned
    assert lease_phases(api) == []


REMEMBERS = {
    "terms": [
        {"name": "graded", "rewardModel": {"name": "judge"}, "normalise": {"kind": "zscore", "scope": "running"}},
    ],
}


def grade(request: dict[str, Any]) -> str:
    """By the text; of a prompt that is asked of again with other responses, another."""
    return f"<score>{1 + zlib.crc32(request['messages'][0]['content'].encode()) % 9001 / 1000}</score>"


@pytest.mark.proof
async def test_a_run_that_goes_on_from_a_checkpoint_normalises_by_what_was_known_there(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    """Its third step again, with a validation before it, after a first try has learned from another one."""
    scoring = {"timeout": "60s", "judge": "pointwise-1-10"}
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring=scoring))
    api.put("rewardfleets", "rl", "team", kind="RewardFleet", apiVersion="genrm.dev/v1alpha1", spec=REMEMBERS)
    api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice())
    checkpoints = tmp_path / "checkpoints"
    both = (f"trainer.default_local_dir={checkpoints}", "trainer.save_freq=1")
    resume = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoints / 'global_step_2'}")
    async with ScriptedJudge(says(grade)) as judge:
        operator = asyncio.create_task(operate(api, judge, {"judge": []}))
        scores = []
        for work, overrides, first in (("first", both, False), ("second", (*both, *resume), True)):
            folder = tmp_path / work
            folder.mkdir()
            rewards = cluster_rewards("team", "rl", folder / "log")
            run = GrpoRun(verl_python, models, folder, rewards, steps=3, validate_first=first, overrides=overrides)
            code, output = await run_to_end(run)
            assert code == 0, output[-4000:]
            scores.append(read_lines(folder / "log", "scores"))
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)

    def raws(lines: list[dict[str, Any]], *steps: int) -> list[float]:
        return [line["terms"]["graded"]["raw"] for line in lines if line["step"] in steps]

    one, two = scores
    assert [len(raws(one, step)) for step in (1, 2, 3)] == [run.samples_per_step] * 3
    assert [len(raws(two, step)) for step in (1, 2, 3)] == [0, PROMPTS, run.samples_per_step], "validation, then step 3"
    known = raws(one, 1, 2)
    mean, deviation = statistics.fmean(known), statistics.pstdev(known)
    for line in [*two, *(line for line in one if line["step"] == 3)]:
        term = line["terms"]["graded"]
        assert term["value"] == pytest.approx((term["raw"] - mean) / deviation)


@pytest.mark.proof
async def test_a_run_whose_scores_mostly_fail_is_stopped_and_told_why(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    """The old trainer stops at the first sample without a score anyway."""
    story = put_team(api)
    async with ScriptedJudge(says("I would rather not say.")) as judge:
        operator = asyncio.create_task(operate(api, judge, story))
        run = GrpoRun(verl_python, models, tmp_path, cluster_rewards("team", "rl", tmp_path / "log"))
        code, output = await run_to_end(run)
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)
    assert code != 0
    assert "breaker.maxFailedFraction 0.2 allows" in output and "parse_failed" in output
    assert lease_phases(api) == []


async def test_a_run_that_cannot_work_ends_before_ray_starts(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    run = GrpoRun(verl_python, models, tmp_path, cluster_rewards("judge", "rl", tmp_path / "log"))
    code, output = await run_to_end(run)
    assert code == 1
    ours = [line for line in output.splitlines() if line.startswith("genrm: ")]
    assert len(ours) == 2, ours
    assert ours[1].startswith("genrm: there is no RewardModel or RewardFleet judge in namespace rl")
    assert "Traceback" not in output
    assert "ray init kwargs" not in output
