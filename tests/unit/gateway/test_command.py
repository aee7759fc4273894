"""The command itself, as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from genrm_gateway import main

RULES = """
kind: RewardFleet
metadata: {name: sums}
spec:
  terms:
    - name: own
      rule: {kind: python, function: compute_score}
    - name: equal
      rule: {kind: math}
      combine: none
"""
MODULE = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str.strip() == ground_truth), "format": 1}
"""


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """The URL of a gateway that listens."""
    command = [sys.executable, "-m", "genrm_gateway.main", "--host", "127.0.0.1", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"listens at (\S+)", line):
                yield found[1]
                break
        else:
            raise AssertionError(f"it ended with {process.wait(10)}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def test_a_rule_server_needs_neither_a_cluster_nor_a_model(tmp_path: Path) -> None:
    (spec := tmp_path / "rules.yaml").write_text(RULES.replace("compute_score", "own.compute_score"))
    (module := tmp_path / "own.py").write_text(MODULE)
    (other := tmp_path / "other.py").write_text(MODULE.replace("format", "other"))
    with running("--spec", str(spec), f"--rules={module}", f"--rules={other}", "--port", "0") as url:
        body = {"solution_str": "What is 2 + 2? 4", "prompt_str": "What is 2 + 2?", "ground_truth": "4"}
        reply = httpx.post(f"{url}/get_reward2", json=body, timeout=120, trust_env=False)
        assert reply.json() == {"own": 1.0, "equal": 1.0, "score": 1.0}


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        (RULES, [], "no Python file was given"),
        (RULES.replace("math", "maths"), ["--rules", "own.py"], "RewardFleet sums: spec.terms.1.rule.kind"),
        (RULES.replace("compute_score", "f"), ["--rules", "own.py"], "own rule.function: own.py has no function f"),
        (RULES, ["--rules", "own.py", "other.py"], "compute_score may be of several files; write one of own.compute"),
        (RULES, ["--rules", "/none.py"], "--rules: /none.py cannot be read"),
        (RULES, ["--rules", "own.py", "--default", "x"], "--default: x is not there; there are sums"),
        (RULES, ["--rules", "own.py", "--keys", "/none"], "--keys: /none cannot be read"),
    ],
)
def test_what_cannot_work_is_said_before_it_listens(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.py", "other.py"):
        (tmp_path / name).write_text(MODULE)
    (spec := tmp_path / "rules.yaml").write_text(text)
    assert main.main(["--spec", str(spec), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_cluster_without_credentials_and_a_port_that_is_taken_are_said_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main.main(["--namespace", "rl"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("genrm-gateway: KUBECONFIG: ")
    (spec := tmp_path / "rules.yaml").write_text(RULES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main.main(["--spec", str(spec), "--rules", __file__, "--host", "127.0.0.1", "--port", port]) == 2
    assert f"nobody can listen at 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "needs", "extra"), [("genrm_gateway", "uvicorn", "gateway"), ("genrm_cli", "rich", "cli")]
)
def test_a_command_whose_extra_is_not_installed_says_which(
    tmp_path: Path, package: str, needs: str, extra: str
) -> None:
    (tmp_path / f"{needs}.py").write_text(f"raise ModuleNotFoundError('as if it was not there', name='{needs}')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-m", package], capture_output=True, text=True, timeout=60, env=environment)
    assert (ended.returncode, f"no module {needs}" in ended.stderr, f"[{extra}]" in ended.stderr) == (2, True, True)
    assert len(ended.stderr.splitlines()) == 1
