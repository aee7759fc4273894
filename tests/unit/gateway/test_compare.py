"""NeMo-Gym's `/compare`: all responses to a prompt in one request."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_scoring.modules import Module

from tests.unit.gateway.serving import EXACT, external, fleet, of_file
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, says

PAIR = {
    "mode": "pairwise",
    "template": "{% if principle %}By: {{ principle }}. {% endif %}"
    "{{ question }} A: {{ response_a }} B: {{ response_b }}",
    "parse": {"kind": "tag", "tag": "result", "values": {"A": 1, "B": 0, "tie": 0.5}},
}
JUDGED = {"name": "judged", "rewardModel": {"name": "judge"}}


def asked(request: Request) -> str:
    text: str = request["messages"][0]["content"]
    return text


def longer(request: Request) -> str:
    a, _, b = asked(request).partition(" A: ")[2].partition(" B: ")
    return f"<result>{'tie' if len(a) == len(b) else 'A' if len(a) > len(b) else 'B'}</result>"


def body(*responses: str, **more: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": "Why?"}]
    return {"conversation_history": history, "response_objs": [{"output": text} for text in responses], **more}


@pytest.mark.parametrize("path", ["/judge/compare", "/mix/compare"])
async def test_the_principle_is_told_to_the_judge_and_is_no_right_answer(path: str) -> None:
    mix = fleet("mix", JUDGED)
    async with ScriptedJudge(says(longer)) as judge, of_file(external("judge", judge.url, **PAIR), mix) as gateway:
        reply = await gateway.post(path, json=body("short", "a long answer", principle="Be kind"))
        assert reply.json()["rewards"] == [0.0, 1.0]
        assert asked(judge.requests[0]).startswith("By: Be kind. Why? A: ")
        await gateway.post(path, json=body("short", "a long answer"))
        assert asked(judge.requests[1]).startswith("Why? A: ")


async def test_a_rule_does_not_compare_with_the_principle() -> None:
    function = "def scored(solution_str, ground_truth, extra_info):\n    return float(ground_truth is None)\n"
    own = fleet("own", {"name": "own", "rule": {"kind": "python", "function": "scored"}})
    async with of_file(own, modules={"rules": Module(function, "rules.py")}) as gateway:
        reply = await gateway.post("/compare", json=body("4", "5", principle="4"))
    assert reply.json()["rewards"] == [1.0, 1.0]


@pytest.mark.parametrize("target", ["sums", "plain", "mix"])
async def test_a_principle_that_nobody_is_told_is_refused(target: str) -> None:
    async with ScriptedJudge(says("<result>A</result>")) as judge:
        plain, mix = (
            external("plain", judge.url, mode="pairwise"),
            fleet("mix", {**JUDGED, "rewardModel": {"name": "plain"}}),
        )
        async with of_file(fleet("sums", EXACT), plain, mix) as gateway:
            reply = await gateway.post(f"/{target}/compare", json=body("a", "b", principle="Be kind"))
        assert not judge.requests
    error = reply.json()["error"]
    assert reply.status_code == 422 and error["field"] == "principle"
    assert f"nobody behind {target} is told it" in error["message"] and "{{ principle }}" in error["message"]


def result(i: int, j: int, score_1: float, score_2: float, ranking: float) -> dict[str, float]:
    of = {"response_i": i, "response_j": j, "judge_idx": 0}
    return {**of, "score_1": score_1, "score_2": score_2, "ranking": ranking}


async def test_the_verdicts_are_told_on_the_scales_of_their_judge() -> None:
    scoring = {**PAIR, "order": "given"}
    async with ScriptedJudge(says(longer)) as judge, of_file(external("judge", judge.url, **scoring)) as gateway:
        reply = (await gateway.post("/compare", json=body("ab", "a", "cd", "ab"))).json()
    assert reply["rewards"] == pytest.approx([2 / 3, 0, 2 / 3, 2 / 3])
    assert reply["comparison_results"] == [
        result(0, 1, 5, 1, 1),
        result(0, 2, 3, 3, 3.5),
        result(1, 2, 1, 5, 6),
        result(1, 3, 1, 5, 6),
        result(2, 3, 3, 3, 3.5),
    ], "about equal texts nobody is asked"
    assert reply["metrics"] == {"questions": 5, "rounds": 1, "failed": 0, "ties": 2, "circular_triads": 0}
    assert "failures" not in reply


async def test_each_vote_of_a_ranking_says_something_of_its_own() -> None:
    def ranked(request: Request) -> str:
        texts = asked(request).split("<response_")[1:]
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        return f"<ranking>{', '.join(str(place + 1) for place in order)}</ranking>"

    scoring = {"mode": "listwise", "votes": {"count": 4}}
    async with ScriptedJudge(says(ranked)) as judge, of_file(external("judge", judge.url, **scoring)) as gateway:
        reply = (await gateway.post("/compare", json=body("ab", "abcd"))).json()
    assert len(judge.requests) == 4 and reply["metrics"]["questions"] == 4 and reply["rewards"] == [0.0, 1.0]
    found = sorted((r["response_i"], r["judge_idx"], r["ranking"]) for r in reply["comparison_results"])
    assert found == [(0, 0, 6), (0, 1, 6), (1, 0, 1), (1, 1, 1)]


async def test_a_response_without_a_score_does_not_cost_the_others_theirs() -> None:
    def grade(request: Request) -> str:
        return "no idea" if "unreadable" in asked(request) else r"\boxed{True}"

    async with ScriptedJudge(says(grade)) as judge, of_file(external("judge", judge.url)) as gateway:
        reply = await gateway.post("/compare", json=body("a", "unreadable", "b", "c"))
        assert reply.status_code == 200 and reply.json()["rewards"] == [1.0, None, 1.0, 1.0]
        (failure,) = reply.json()["failures"]
        assert failure["response"] == 1 and failure["_ng_failure_class"] == "judge_failed"
        assert failure["_ng_failure_judge_error"].startswith("parse_failed: ")
        assert reply.json()["comparison_results"] == [], "it compares nobody"
        nobody = await gateway.post("/compare", json=body("unreadable", "unreadable too"))
        assert nobody.status_code == 422 and nobody.json()["error"]["outcome"] == "parse_failed"
