"""What frameworks call, in a Python with their own libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.verl_runs import verl_python

__all__ = ["verl_python"]
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
