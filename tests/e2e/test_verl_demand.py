"""A real GRPO run (verl's old trainer) that finds its reward model by the Kubernetes API and says when it needs it.

The API is a stub and the operator is three lines of this test: endpoints serve exactly while the run's Lease says
`scoring`. What real pods do in between is shown by the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
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


def lease_phases(api: StubApi) -> list[str]:
    leases = [o for (plural, _, _), o in api.objects.items() if plural == "leases"]
    return [str(lease["metadata"]["annotations"]["genrm.dev/phase"]) for lease in leases]


async def operate(api: StubApi, judge: ScriptedJudge, story: list[str]) -> None:
    """Serve while the Lease asks for it, and from the moment it says so ahead; note each change of its phase."""
    port = int(judge.url.rpartition(":")[2])
    serving = endpoint_slice("judge-1", port=port, address="127.0.0.{}")
    asleep = endpoint_slice(port=port)
    while True:
        await api.patched.wait()
        api.patched.clear()
        for phase in lease_phases(api):
            if story[-1:] != [phase]:
                story.append(phase)
                api.put("endpointslices", "rl", "judge-pods-a", **(asleep if phase == "idle" else serving))


@pytest.mark.proof
async def test_a_run_asks_for_its_reward_model_while_it_rolls_out_and_validates(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring={"timeout": "60s"}))
    api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice())
    story: list[str] = []
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

    assert story == ["idle", *["scoring", "idle"] * run.steps], "the first step follows the validation at once"
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
    story: list[str] = []
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
    assert story == ["idle", "scoring", "idle", *["prewake", "scoring", "idle"] * (run.steps - 1)]


async def test_a_run_that_cannot_work_ends_before_ray_starts(
    verl_python: Path, models: Path, tmp_path: Path, api: StubApi
) -> None:
    run = GrpoRun(verl_python, models, tmp_path, cluster_rewards("judge", "rl", tmp_path / "log"))
    code, output = await run_to_end(run)
    assert code == 1
    ours = [line for line in output.splitlines() if line.startswith("genrm: ")]
    assert len(ours) == 2, ours
    assert ours[1].startswith("genrm: there is no RewardModel judge in namespace rl")
    assert "Traceback" not in output
    assert "ray init kwargs" not in output
