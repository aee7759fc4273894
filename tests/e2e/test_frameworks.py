"""What frameworks call, in a Python with their own libraries: the examples as they stand.

TRL and verifiers are the packages of PyPI, and train and score on this machine. OpenRLHF and slime want GPUs: of the
first the way in which it loads a file is repeated, with torch; the second's contract is kept by unit tests.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from dev.bootstrap import ensure_layer
from dev.models import Layout
from tests.e2e.verl_runs import models, verl_python
from tests.unit.gateway.serving import external, of_file
from tests.unit.scoring.scripted_judge import ScriptedJudge, streams

__all__ = ["models", "verl_python"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPEC = """
apiVersion: genrm.dev/v1alpha1
kind: RewardFleet
metadata: {name: answers}
spec:
  terms:
    - {name: right, rule: {kind: exact}, weight: 2}
    - {name: scaled, rule: {kind: exact}, normalise: {kind: minmax}, combine: none}
"""
OPENRLHF = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("reward_func", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
found = module.reward_func(["2 + 2? 4", "2 + 2? 5"], ["2 + 2? "] * 2, ["4", "4"])
assert torch.equal(found["rewards"], torch.tensor([2.0, 0.0])), found
assert torch.equal(found["scores"], torch.tensor([1.0, 0.0])), found
assert found["extra_logs"]["scaled"].tolist() == [1.0, -1.0], found
"""


def test_openrlhf_loads_the_example_by_its_path_and_gets_tensors(verl_python: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(SPEC)
    example = Path("examples/frameworks/openrlhf_reward.py").absolute()
    environment = {"PATH": "/usr/bin:/bin", "GENRM_SPEC": str(tmp_path / "rules.yaml")}
    command = [str(verl_python), "-c", OPENRLHF, str(example)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def frameworks_python() -> Path:
    """Python of an environment with TRL, verifiers and our wheel."""
    return ensure_layer("frameworks")


def run(python: Path, cwd: Path, *arguments: str, **environment: str) -> str:
    own = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "HF_HUB_OFFLINE": "1", **environment}
    command = [str(python), *arguments]
    done = subprocess.run(command, env=own, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


BY_LENGTH = """
apiVersion: genrm.dev/v1alpha1
kind: RewardFleet
metadata: {name: short}
spec: {terms: [{name: length, rule: {kind: length, unit: characters, maximum: 20, margin: 60}}]}
"""


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_trl_trains_on_our_rewards(frameworks_python: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(BY_LENGTH)
    rows = [{"prompt": f"Say {word}.", "ground_truth": word} for word in ("one", "two", "three", "four")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    example = str(Path("examples/frameworks/trl_grpo.py").absolute())
    spec = {"GENRM_SPEC": str(tmp_path / "rules.yaml"), "STEPS": "2", "TOKENS": "16", "OUT": str(tmp_path / "out")}
    said = run(frameworks_python, tmp_path, example, str(Layout(models).policy), "data.jsonl", **spec)
    logged = [json.loads(line.replace("'", '"')) for line in re.findall(r"\{'loss.*?\}", said)]
    assert len(logged) == 2, said[-3000:]
    for step in logged:
        assert 0 < float(step["reward"]) <= 1 and float(step["reward_std"]) > 0 and float(step["grad_norm"]) > 0


VERIFIERS = """
import asyncio, sys
import verifiers as vf
sys.path.insert(0, sys.argv[1])
from verifiers_environment import load_environment

environment = load_environment("data.jsonl", spec="rules.yaml")
states = [
    {"prompt": [{"role": "user", "content": "2 + 2?"}], "completion": [{"role": "assistant", "content": said}],
     "answer": "4", "task": "default", "info": {}, "example_id": 0, "timing": {}, "trajectory": []}
    for said in ("4", "5")
]
asyncio.run(environment.rubric.score_group(states))
print([state["reward"] for state in states])
"""


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_verifiers_scores_a_group_by_our_rubric(frameworks_python: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(SPEC)
    row = {"prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    folder = str(Path("examples/frameworks").absolute())
    assert "[2.0, 0.0]" in run(frameworks_python, tmp_path, "-c", VERIFIERS, folder)


OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
asked = {"model": "judge", "messages": [{"role": "user", "content": "hi"}], "stream": True}
for _ in range(2):
    try:
        for event in client.chat.completions.create(**asked):
            print(event.choices[0].delta.content, flush=True)
        print("whole", flush=True)
    except openai.APIError as e:
        print(type(e).__name__, e.code, e.message, flush=True)
"""


def delta(text: str) -> bytes:
    said = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "judge"}
    said["choices"] = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@pytest.mark.proof
async def test_openais_client_reads_a_stream_as_it_comes_and_raises_where_it_breaks_off(
    frameworks_python: Path,
) -> None:
    more = asyncio.Event()
    whole, broken = streams(delta("Hel"), more, delta("lo"), b"data: [DONE]\n\n"), streams(delta("Hel"), breaks=True)
    async with ScriptedJudge(whole, broken) as judge, of_file(external("judge", judge.url)) as gateway:
        url = str(gateway.base_url.join("/judge/v1"))
        client = await asyncio.create_subprocess_exec(
            frameworks_python, "-c", OPENAI, url, stdout=asyncio.subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}
        )
        assert client.stdout is not None
        async with asyncio.timeout(120):
            assert await client.stdout.readline() == b"Hel\n", "before the rest is there"
            more.set()
            said = (await client.stdout.read()).decode().splitlines()
        assert await client.wait() == 0
    assert said[:3] == ["lo", "whole", "Hel"]
    assert said[3].startswith("APIError transport the answer broke off: ") and len(said) == 4
