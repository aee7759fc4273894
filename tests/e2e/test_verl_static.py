"""A real GRPO run on unmodified verl, judged by a scripted server whose verdicts are known."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from dev.grpo import GrpoRun, read_lines, read_training, static_rewards
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

    phases = [p["event"] for p in read_lines(tmp_path / "log", "phases")]
    assert phases == ["start", *["begin step", "begin gen", "end gen", "end step"] * run.steps]
