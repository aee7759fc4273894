"""NeMo-Gym's `/compare`: all responses to a prompt in one request."""

from __future__ import annotations

from typing import Any

import pytest

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
    async with of_file(own, module=(function, "rules.py")) as gateway:
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
