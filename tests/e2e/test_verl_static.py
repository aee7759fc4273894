"""A real GRPO run on unmodified verl, judged by a scripted server whose verdicts are known."""

from __future__ import annotations

import asyncio
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from dev.bootstrap import ensure_layer
from dev.grpo import GrpoRun, command, read_lines, read_training, static_rewards
from tests.unit.scoring.scripted_judge import ScriptedJudge, drops_connection, says

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
RUN_SECONDS = 600


def verdict(question: str) -> bool:
    """What the scripted judge thinks of a question; known to the test."""
    return zlib.crc32(question.encode()) % 2 == 0


def known_verdict(request: dict[str, Any]) -> str:
    return f"Let me see.\n\\boxed{{{verdict(request['messages'][0]['content'])}}}"


@pytest.fixture(scope="session")
def verl_python() -> Path:
    """Python of an environment with verl 0.9.1, our wheel and the CPU shim."""
    given = os.environ.get("GENRM_VERL_PYTHON")
    return Path(given) if given else ensure_layer("verl-cpu")


@pytest.fixture(scope="session")
def models(verl_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import subprocess

    root = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([verl_python, "-m", "dev.models", root], check=True, timeout=300)
    return root


async def run_to_end(run: GrpoRun) -> tuple[int, str]:
    arguments, environment = command(run, os.environ)
    run.work.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=run.work, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    (run.work / "output.log").write_bytes(output)
    return process.returncode or 0, output.decode(errors="replace")


@pytest.mark.parametrize("old_trainer", [False, True], ids=["v1", "v0"])
async def test_every_sample_is_rewarded_with_its_verdict(
    verl_python: Path, models: Path, tmp_path: Path, old_trainer: bool
) -> None:
    async with ScriptedJudge(drops_connection(), says(known_verdict)) as judge:
        run = GrpoRun(
            python=verl_python,
            models=models,
            work=tmp_path,
            rewards=static_rewards([judge.url], "scripted", tmp_path / "log", "{timeout:60s,sampling:{seed:7}}"),
            old_trainer=old_trainer,
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
