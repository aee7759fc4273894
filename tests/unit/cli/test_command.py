"""`genrm eval judge`, from the arguments to the table."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from genrm_cli import main

from tests.unit.gateway.serving import external
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, garbage, says

PAIRS = [{"x": f"{i} + {i}?", "chosen": f"it is {2 * i}, right", "rejected": f"it is {i}, wrong"} for i in range(20)]


def grade(request: Request) -> str:
    return rf"\boxed{{{'True' if ', right' in request['messages'][0]['content'] else 'False'}}}"


def first(_: Request) -> str:
    return "<result>A</result>"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (path := tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    return path


def spec(tmp_path: Path, *documents: dict[str, Any]) -> str:
    (path := tmp_path / "judges.yaml").write_text(yaml.safe_dump_all(documents))
    return str(path)


async def test_judges_are_shown_side_by_side(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    async with ScriptedJudge(says(grade)) as good, ScriptedJudge(says(first)) as biased:
        judges = external("good", good.url), external("biased", biased.url, mode="pairwise")
        arguments = ["eval", "judge", "--data", str(data), "--spec", spec(tmp_path, *judges), "--out", str(tmp_path)]
        assert await asyncio.to_thread(main.main, arguments) == 0
    shown = capsys.readouterr().out
    assert "good" in shown and "biased" in shown and "100.0% ±" in shown and "+0.500" in shown
    one, other = json.loads((tmp_path / "report.json").read_text())
    assert (one["accuracy"], one["consistency"], one["calls"]) == (1.0, None, 40)
    assert (other["accuracy"], other["ties"], other["consistency"], other["first"]) == (0.5, 1.0, 0.0, 0.5)
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def prefers_the_right(request: Request) -> str:
    said = request["messages"][0]["content"]
    return f"<ranking>{'1, 2' if said.index(', right') < said.index(', wrong') else '2, 1'}</ranking>"


@pytest.mark.parametrize(
    ("judge", "scoring", "expected"),
    [
        (prefers_the_right, {}, (1.0, 1.0, 0.0, 40)),
        (lambda _: "<ranking>1, 2</ranking>", {}, (0.5, 0.0, 0.5, 40)),
        (prefers_the_right, {"votes": {"count": 3}, "sampling": {"temperature": 1}}, (1.0, 1.0, 0.0, 80)),
        (prefers_the_right, {"votes": {"count": 3}, "sampling": {"temperature": 0}}, (1.0, 1.0, 0.0, 40)),
    ],
)
async def test_a_judge_of_lists_is_asked_about_both_in_both_orders(
    tmp_path: Path, data: Path, judge: Any, scoring: dict[str, Any], expected: tuple[float, ...]
) -> None:
    async with ScriptedJudge(says(judge)) as server:
        judges = spec(tmp_path, external("judge", server.url, mode="listwise", **scoring))
        arguments = ["eval", "judge", "--data", str(data), "--spec", judges, "--out", str(tmp_path)]
        assert await asyncio.to_thread(main.main, arguments) == 0
        shown = {request["messages"][0]["content"] for request in server.requests}
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert (report["accuracy"], report["consistency"], report["first"], report["calls"]) == expected
    assert len(shown) == 2 * len(PAIRS)


async def test_a_judge_may_ask_and_read_by_functions(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rules := tmp_path / "mine.py").write_text(
        "def ask(question, response):\n    return f'{question} {response}'\n"
        "def read(result):\n    return float('True' in result)\n"
    )
    async with ScriptedJudge(says(grade)) as judge:
        functions = {"preprocess": {"function": "ask"}, "postprocess": {"function": "read"}}
        judges = spec(tmp_path, external("judge", judge.url, **{"timeout": "60s", **functions}))
        arguments = ["eval", "judge", "--data", str(data), "--spec", judges, "--limit", "2"]
        assert await asyncio.to_thread(main.main, arguments) == 2
        assert "ask is wanted, and no Python file was given" in " ".join(capsys.readouterr().err.split())
        assert await asyncio.to_thread(main.main, [*arguments, "--rules", str(rules), "judge"]) == 0
    assert judge.requests[0]["messages"][0]["content"].startswith("0 + 0? it is 0")


async def test_a_judge_that_answers_nothing_is_no_success_and_it_is_said_why(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ScriptedJudge(garbage()) as judge:
        judges = spec(tmp_path, external("judge", judge.url, timeout="1s"))
        arguments = ["eval", "judge", "--data", str(data), "--spec", judges, "--limit", "2", "--out", str(tmp_path)]
        assert await asyncio.to_thread(main.main, arguments) == 1
    assert "judge: 4 transport, like: 200 with something that is no chat completion" in capsys.readouterr().err
    assert (tmp_path / "calibration.png").exists(), "of nothing there is a picture too"


async def test_labels_that_an_endpoint_takes_apart_are_said_before_anything_is_asked(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def tokenize(http: web.Request) -> web.Response:
        return web.json_response({"tokens": list(map(ord, (await http.json())["prompt"]))})

    app = web.Application()
    app.router.add_post("/tokenize", tokenize)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        parse = {"kind": "logprob", "values": {"good": 1, "bad": 0}}
        judge = external("judge", f"http://127.0.0.1:{runner.addresses[0][1]}", template="{{ response }}", parse=parse)
        arguments = ["eval", "judge", "--data", str(data), "--spec", spec(tmp_path, judge)]
        assert await asyncio.to_thread(main.main, arguments) == 2
    finally:
        await runner.cleanup()
    said = "RewardModel judge spec.scoring.parse.values: 'bad', 'good' are more than one token"
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["other"], "NAME: other is no RewardModel there; there are judge"),
        (["--secrets", "/none"], "credentialsSecretRef: /none/keys/api-key cannot be read"),
    ],
)
def test_what_cannot_work_is_said(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    judge = external("judge", "https://127.0.0.1:1")
    judge["spec"]["external"]["credentialsSecretRef"] = {"name": "keys"}
    arguments = ["eval", "judge", "--data", str(data), "--spec", spec(tmp_path, judge), *arguments]
    assert main.main(arguments) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
