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
        (RULES, ["--rules", "own.py", "--port", "99999"], "--port: cannot listen at 0.0.0.0, port 99999"),
        (RULES, ["--rules", "own.py", "--host", "192.0.2.1"], "--port: cannot listen at 192.0.2.1, port 6009"),
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
    (module := tmp_path / "own.py").write_text(MODULE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main.main(["--spec", str(spec), "--rules", str(module), "--host", "127.0.0.1", "--port", port]) == 2
    said = capsys.readouterr().err
    assert f"--port: cannot listen at 127.0.0.1, port {port}: " in said and "Address already in use" in said


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


@pytest.mark.parametrize("option", ["--most-at-once", "--most-of-a-client", "--most-bytes", "--rule-processes"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_a_limit_that_nobody_could_keep_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main([f"{option}={value}"])
    assert f"argument {option}: found {value!r}; write a number from 1" in capsys.readouterr().err


def test_a_cluster_that_cannot_be_meant_is_said_before_it_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config := tmp_path / "config").write_text("{}")
    monkeypatch.setenv("KUBECONFIG", str(config))
    assert main.main(["--port", "0"]) == 2
    assert f"genrm-gateway: KUBECONFIG: {config} cannot be used" in capsys.readouterr().err


def has_ipv6() -> bool:
    """Containers often have no address of that kind, not even their own."""
    addresses = Path("/proc/net/if_inet6")
    return addresses.exists() and f"{1:032x}" in addresses.read_text()


@pytest.mark.skipif(not has_ipv6(), reason="no ::1")
@pytest.mark.parametrize(("host", "asked"), [("::1", "[::1]"), ("::", "127.0.0.1")])
def test_it_listens_on_ipv6(tmp_path: Path, host: str, asked: str) -> None:
    (spec := tmp_path / "rules.yaml").write_text(RULES.replace("kind: python, function: compute_score", "kind: exact"))
    with running("--spec", str(spec), "--port", "0", "--host", host) as url:
        reply = httpx.get(f"http://{asked}:{url.rpartition(':')[2]}/healthz", timeout=30, trust_env=False)
        assert url.startswith(f"http://[{host}]:") and reply.text == "ok"
