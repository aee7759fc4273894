"""A real GRPO run on unmodified verl, judged by a scripted server whose verdicts are known."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from dev.grpo import BATCH, GrpoRun, read_lines, read_training, static_rewards
from tests.e2e.conftest import wait_for
from tests.e2e.verl_runs import models, run_to_end, verl_python
from tests.unit.scoring.scripted_judge import ScriptedJudge, drops_connection, says

__all__ = ["models", "verl_python"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def verdict(question: str) -> bool:
    """What the scripted judge thinks of a question; known to the test."""
    return zlib.crc32(question.encode()) % 2 == 0


def known_verdict(request: dict[str, Any]) -> str:
    return f"Let me see.\n\\boxed{{{verdict(request['messages'][0]['content'])}}}"


async def test_every_sample_is_rewarded_with_its_verdict(verl_python: Path, models: Path, tmp_path: Path) -> None:
    async with ScriptedJudge(drops_connection(), says(known_verdict)) as judge:
        run = GrpoRun(
            python=verl_python,
            models=models,
            work=tmp_path,
            rewards=static_rewards([judge.url], "scripted", tmp_path / "log", "{timeout:60s,sampling:{seed:7}}"),
        )
        code, output = await run_to_end(run)
    assert code == 0, output[-4000:]

    judgements = read_lines(tmp_path / "log", "judgements")
    assert len(judgements) == run.steps * run.samples_per_step
    assert {j["outcome"] for j in judgements} == {"ok"}
    assert len(judge.requests) == len(judgements) + 1, "one request was dropped and asked again"
    assert [f["error"] for j in judgements for f in j["failures"]] == ["Disconnected"]

    expected = sorted(verdict(r["messages"][0]["content"]) for r in judge.requests[1:])
    assert sorted(bool(j["score"]) for j in judgements) == expected
    assert {r["model"] for r in judge.requests} == {"scripted"}

    training = read_training(output)
    assert len(training.rewards) == run.steps
    assert sum(training.rewards) / run.steps == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    assert training.learned, training
    assert len(training.pushes) == run.steps + 1

    steps = read_lines(tmp_path / "log", "steps")
    assert [(line["step"], line["samples"]) for line in steps] == [
        (number, run.samples_per_step) for number in range(1, run.steps + 1)
    ], "one line for each step of the run, from however many workers"
    assert [line["judgements"] for line in steps] == [{"scripted": {"ok": run.samples_per_step}}] * run.steps
    assert f"genrm: step {run.steps}: {run.samples_per_step} scores (ok {run.samples_per_step})" in output

    phases = [p["event"] for p in read_lines(tmp_path / "log", "phases")]
    assert phases == ["start", *["begin step", "begin gen", "end gen", "end step"] * run.steps]


async def test_the_lone_survivor_of_a_group_is_not_trained_on(verl_python: Path, models: Path, tmp_path: Path) -> None:
    """Of one prompt's responses only the first gets a verdict. It would be the step's only reward."""
    chosen: list[str] = []

    def first_only(request: dict[str, Any]) -> str:
        text = request["messages"][0]["content"]
        chosen[:] = chosen or [text]
        if text == chosen[0]:
            return r"\boxed{True}"
        about = text.rindex("<response>")
        return "I cannot tell." if text[:about] == chosen[0][:about] else r"\boxed{False}"

    async with ScriptedJudge(says(first_only)) as judge:
        rewards = static_rewards([judge.url], "scripted", tmp_path / "log", "{timeout:60s}")
        run = GrpoRun(verl_python, models, tmp_path, rewards, steps=1)
        code, output = await run_to_end(run)
    assert code == 0, output[-4000:]
    judgements = read_lines(tmp_path / "log", "judgements")
    assert len(judgements) == run.samples_per_step and max(j["score"] or 0 for j in judgements) == 1.0
    assert sum(j["outcome"] == "parse_failed" for j in judgements) == run.n - 1
    assert read_training(output).rewards == (0.0,)


def larger_checksum(request: dict[str, Any]) -> str:
    """Of two responses the scripted judge prefers the one whose checksum is larger, wherever it stands."""
    text = request["messages"][0]["content"]
    a, b = (
        text[text.rindex(f"<response_{mark}>") + len("<response_a>") : text.rindex(f"</response_{mark}>")]
        for mark in ("a", "b")
    )
    return f"<result>{'A' if zlib.crc32(a.encode()) > zlib.crc32(b.encode()) else 'B'}</result>"


async def test_responses_to_one_prompt_meet_from_all_reward_workers(
    verl_python: Path, models: Path, tmp_path: Path
) -> None:
    """In a tournament, through Ray's own actors; validation has another number of responses to a prompt."""
    async with ScriptedJudge(says(larger_checksum)) as judge:
        run = GrpoRun(
            python=verl_python,
            models=models,
            work=tmp_path,
            rewards=[
                *static_rewards([judge.url], "scripted", tmp_path / "log", "{mode:pairwise,timeout:60s}"),
                "reward_model.patience_s=200",
            ],
            validate_first=True,
            overrides=(
                "actor_rollout_ref.rollout.val_kwargs.n=2",
                "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
            ),
        )
        began = time.monotonic()
        code, output = await run_to_end(run)
        assert time.monotonic() - began < 200, "no group has waited for members that it does not have"
    assert code == 0, output[-4000:]

    scores = read_lines(tmp_path / "log", "scores")
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in scores:
        groups.setdefault(line["uid"], []).append(line)
    sizes = sorted(len(members) for members in groups.values())
    assert sizes == sorted([2] * (len(groups) - run.steps * BATCH) + [run.n] * (run.steps * BATCH))
    assert {line["outcome"] for line in scores} == {"ok"}
    for members in groups.values():
        assert sum(line["score"] for line in members) == pytest.approx(len(members) / 2), (
            "a win rate against the others"
        )
    questions = read_lines(tmp_path / "log", "judgements")
    assert len(questions) == len(judge.requests) and {q["outcome"] for q in questions} == {"ok"}
    assert len({path.name for path in (tmp_path / "log").glob("scores-*")}) == 2, "both coordinators had groups"
    steps = read_lines(tmp_path / "log", "steps")
    assert [line["step"] for line in steps] == list(range(1, run.steps + 1))
    assert sum(line["samples"] for line in steps) == len(scores)
    assert sum(line["judgements"]["scripted"]["ok"] for line in steps) == len(questions)
    assert read_training(output).learned


@pytest.mark.proof
async def test_a_coordinator_or_a_tally_that_dies_is_started_again_and_no_sample_is_lost(
    verl_python: Path, models: Path, tmp_path: Path
) -> None:
    async with ScriptedJudge(says(larger_checksum, after=0.3)) as judge:
        rewards = static_rewards([judge.url], "scripted", tmp_path / "log", "{mode:pairwise,timeout:60s}")
        run = GrpoRun(verl_python, models, tmp_path, rewards, steps=3)
        running = asyncio.create_task(run_to_end(run))
        await judge.asked.wait()  # a group is in the middle of its tournament
        first, *_ = await asyncio.to_thread(began, tmp_path / "log", "judgements")
        (tally,) = await asyncio.to_thread(began, tmp_path / "log", "steps")
        for file in (first, tally):
            os.kill(int(file.stem.rpartition("-")[2]), signal.SIGKILL)
        code, output = await running
    assert code == 0, output[-4000:]
    scored = {(line["uid"], line["session"]) for line in read_lines(tmp_path / "log", "scores")}
    assert len(scored) == run.steps * run.samples_per_step
    assert len({path.name for path in (tmp_path / "log").glob("judgements-*")}) == 3, "two, and who came after the dead"
    steps = read_lines(tmp_path / "log", "steps")
    assert [line["step"] for line in steps] == list(range(1, run.steps + 1)), "who came after it counts on"
    assert steps[-1]["samples"] == run.samples_per_step
    assert read_training(output).learned


def began(log: Path, about: str) -> list[Path]:
    """The files of a log, once there are any."""
    return wait_for(f"{about} in {log}", lambda: list(log.glob(f"{about}-*")), timeout=60)
