"""Rules in a process of their own: what they get, what they may not, and that the next response finds another one."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from genrm_api.answer_rules import AnswerRule
from genrm_scoring.errors import ConfigurationError, GroundTruthUnusable, RuleAnswered, RuleDied, RuleTimedOut
from genrm_scoring.rules import score_of_rule
from genrm_scoring.rules.functions import approve, loaded, verdict_of
from genrm_scoring.rules.worker import RuleWorker
from genrm_scoring.types import Outcome

SOURCE = """
import os, sys
print("a rule may print")
sys.stdout.write("anything")
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if solution_str == "for ever":
        while True: pass
    if solution_str == "die":
        os._exit(7)
    if solution_str == "eat":
        return len(bytearray(3 << 30))
    if solution_str == "deep":
        return compute_score(data_source, solution_str, ground_truth)
    if solution_str == "raise":
        return 1 / 0
    if solution_str == "words":
        return "good"
    if solution_str == "pid":
        return os.getpid()
    return {"score": float(solution_str == ground_truth) + len(extra_info or {}), "why": data_source}
"""


@contextmanager
def worker(spec: dict[str, Any], source: str = "", seconds: float = 30.0) -> Iterator[RuleWorker]:
    made = RuleWorker(AnswerRule.model_validate(spec), seconds=seconds, source=source, filename="rules.py")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def scored() -> Iterator[RuleWorker]:
    with worker({"kind": "python", "function": "compute_score"}, SOURCE) as made:
        yield made


def test_a_function_gets_the_sample_and_its_number_comes_back(scored: RuleWorker) -> None:
    assert scored("4", "4").value == 1
    assert scored("5", "4", prompt="2+2?", data_source="gsm8k", extra={"index": 3}).value == 1


def test_a_function_gets_the_ground_truth_as_the_data_set_has_it() -> None:
    source = "def count(response, ground_truth):\n    return ground_truth['target'] - len(ground_truth['numbers'])\n"
    with worker({"kind": "python", "function": "count"}, source) as made:
        assert made("r", {"target": 98, "numbers": [44, 19, 35]}).value == 95


def test_a_function_may_ask_for_all_that_was_said() -> None:
    source = (
        "def f(solution_str, response_str, query, messages):\n"
        "    assert solution_str == response_str and messages[-1] == {'role': 'user', 'content': '2 + 2?'}\n"
        "    return float(query == '2 + 2?4') + len(messages)\n"
    )
    with worker({"kind": "python", "function": "f"}, source) as made:
        assert made("4", None, prompt="2 + 2?").value == 2
        said = (("system", "Be short."), ("user", "2 + 2?"))
        assert made("4", None, prompt="2 + 2?", messages=said).value == 3


def test_a_response_longer_than_a_pipe_holds_arrives_whole(scored: RuleWorker) -> None:
    long = "é\n" * 500_000
    assert scored(long, long).value == 1


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        ("die", RuleDied, "ended with status 7"),
        ("eat", RuleDied, "more memory than it may have"),
        ("deep", RuleDied, "called itself too often"),
        ("raise", RuleAnswered, "raised ZeroDivisionError: division by zero"),
        ("words", RuleAnswered, "compute_score returned 'good'"),
    ],
)
def test_a_rule_that_goes_wrong_costs_its_response_the_score_and_nobody_else(
    scored: RuleWorker, response: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        scored(response, "4")
    assert scored("4", "4").value == 1


def test_a_rule_that_runs_for_ever_is_ended_at_its_deadline() -> None:
    with worker({"kind": "python", "function": "compute_score"}, SOURCE, seconds=1.0) as made:
        first = made("pid", None).value
        began = time.monotonic()
        with pytest.raises(RuleTimedOut, match="longer than 1 s"):
            made("for ever", "4")
        assert time.monotonic() - began < 20
        assert made("pid", None).value != first


def test_a_worker_that_somebody_killed_is_replaced(scored: RuleWorker) -> None:
    os.kill(int(scored("pid", None).value), signal.SIGKILL)
    with pytest.raises(RuleDied, match="status -9"):
        scored("4", "4")
    assert scored("4", "4").value == 1


def test_what_a_rule_has_started_itself_ends_with_it(tmp_path: Path) -> None:
    source = (
        "import subprocess, time\n"
        "def f(response):\n"
        "    with open(response, 'w') as file:\n"
        "        file.write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "    time.sleep(600)\n"
    )
    with worker({"kind": "python", "function": "f"}, source, seconds=2.0) as made, pytest.raises(RuleTimedOut):
        made(str(tmp_path / "pid"), None)
    started = Path("/proc") / (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 10
    while started.exists() and " Z " not in (started / "stat").read_text() and time.monotonic() < deadline:
        os.sched_yield()
    assert not started.exists() or " Z " in (started / "stat").read_text()


def test_a_process_with_more_than_a_thousand_connections_can_have_rules() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this machine lets nobody have so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        with ExitStack() as connections:
            while connections.enter_context(Path(os.devnull).open()).fileno() < 1100:
                pass
            with worker({"kind": "python", "function": "compute_score"}, SOURCE) as made:
                assert made("4", "4").value == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_math_has_its_limits_from_the_worker_and_says_the_same() -> None:
    with worker({"kind": "math", "extract": "boxed"}) as made:
        assert made(r"\boxed{\frac{2}{4}}", "0.5").value == 1
        with pytest.raises(GroundTruthUnusable, match="this prompt has none"):
            made("1", None)
        score = score_of_rule(made, "no box", "0.5")
        assert (score.value, score.outcome, score.detail) == (0, Outcome.OK, "no answer")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def other(): pass", "rules.py has no function compute_score"),
        ("def compute_score(:", "rules.py does not run: SyntaxError"),
        ("import nothing_of_the_kind", "rules.py does not run: ModuleNotFoundError"),
        ("def compute_score(solution_str, tokenizer): pass", "asks for tokenizer; a rule is given data_source"),
        ("def compute_score(a, /): pass", "asks for a; a rule is given"),
    ],
)
def test_a_module_that_cannot_be_a_rule_is_refused_at_the_start(source: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        loaded(source, "rules.py", "compute_score")
    assert refused.value.field == "spec.terms.rule.function"


def test_a_worker_says_at_its_first_call_what_is_wrong_with_its_module() -> None:
    with worker({"kind": "python", "function": "f"}, "g = 1") as made, pytest.raises(ConfigurationError) as refused:
        made("4", "4")
    assert str(refused.value) == "spec.terms.rule.function: rules.py has no function f"


@pytest.mark.parametrize(
    "signature",
    ["solution_str", "**everything", "response_str, prompt_str", "*, response, prompt", "data_source, x=1"],
)
def test_a_function_is_called_with_what_it_asks_for(signature: str) -> None:
    rule = loaded(f"def f({signature}): return 0.25", "rules.py", "f")
    assert rule({"response": "a"}).value == 0.25


@pytest.mark.parametrize("answer", [None, "1", float("nan"), float("inf"), {}, {"score": None}, [1], 10**400])
def test_what_is_no_number_is_no_score(answer: Any) -> None:
    with pytest.raises(RuleAnswered, match="a rule returns a number"):
        verdict_of(answer, "f")


@pytest.mark.parametrize(("answer", "value"), [(1, 1), (True, 1), ({"score": -0.5, "x": []}, -0.5)])
def test_numbers_and_mappings_with_a_score_are_scores(answer: Any, value: float) -> None:
    assert verdict_of(answer, "f").value == value


def test_code_of_the_cluster_runs_only_if_the_run_allows_just_that_text() -> None:
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    approve("ConfigMap rl/rules", SOURCE, digest)
    approve("ConfigMap rl/rules", SOURCE, digest.upper())
    for allowed in (None, "", digest[:-1], "0" * 64):
        with pytest.raises(ConfigurationError, match=f"ConfigMap rl/rules holds Python code with SHA-256 {digest}"):
            approve("ConfigMap rl/rules", SOURCE, allowed)
    with pytest.raises(ConfigurationError):
        approve("ConfigMap rl/rules", SOURCE + " ", digest)
