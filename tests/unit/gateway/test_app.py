"""The gateway over HTTP, with what a file says: rules, and a scripted judge behind OpenAI's format."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from genrm_gateway.limits import Limits
from genrm_scoring.modules import Module

from tests.unit.gateway.serving import EXACT, external, fleet, of_file
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, garbage, hangs, says

RIGHT = {"prompt": "2 + 2?", "response": "4", "ground_truth": "4"}
WRONG = {**RIGHT, "response": "5"}
SOLUTION = {"data_source": "sums", "solution_str": "2 + 2?4", "prompt_str": "2 + 2?", "ground_truth": "4"}
JUDGE = {"name": "judged", "rewardModel": {"name": "judge"}}


def longer(request: Request) -> str:
    """Of two responses the longer one."""
    text = request["messages"][0]["content"].partition("<response_a>")[2]
    return f"<result>{'A' if text.index('a long answer') < text.index('short') else 'B'}</result>"


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/get_reward2", SOLUTION, {"right": 1.0, "score": 1.0}),
        ("/get_reward2", {**SOLUTION, "solution_str": "2 + 2?5"}, {"right": 0.0, "score": 0.0}),
        ("/get_reward", SOLUTION, {"right": 1.0, "score": 1.0}),
        (
            "/get_reward",
            {"query": ["p4", "q5"], "prompts": ["p", "q"], "labels": ["4", "4"]},
            {"rewards": [1.0, 0.0], "scores": [1.0, 0.0], "extra_logs": {"right": [1.0, 0.0]}},
        ),
        ("/get_reward", {"query": [], "prompts": [], "labels": []}, {"rewards": [], "scores": [], "extra_logs": {}}),
        ("/slime", {"prompt": [{"role": "user", "content": "p"}], "response": "4", "label": "4"}, 1.0),
    ],
)
async def test_each_framework_is_answered_in_its_own_format(path: str, body: Any, answer: Any) -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        for prefix in ("", "/sums"):
            reply = await gateway.post(f"{prefix}{path}", json=body)
            assert (reply.status_code, reply.json()) == (200, answer)


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward2", {**SOLUTION, "images": ["x"]}),
        ("/get_reward", {"query": ["4"], "prompts": [""], "labels": ["4"], "images": ["x"]}),
        ("/slime", {"prompt": IMAGE, "response": "4", "label": "4"}),
        ("/verify", {"responses_create_params": {"input": IMAGE}, "response": {"output": "4"}, "label": "4"}),
        ("/compare", {"conversation_history": IMAGE, "response_objs": [{"output": "4"}], "principle": "4"}),
        ("/v1/score", {"samples": [{**RIGHT, "prompt": IMAGE}]}),
    ],
)
async def test_an_image_is_not_left_out_of_the_question(path: str, body: Any) -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post(path, json=body)
    error = reply.json()["error"]
    assert reply.status_code == 422 and "multimodal judges are out of scope" in error["message"]
    assert "input" not in reply.text.replace("responses_create_params.input", ""), "an image is not sent back"


async def test_an_unreadable_request_is_told_the_field_in_the_gateways_own_form() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post("/v1/score", json={"samples": [{"prompt": "p"}]})
        assert reply.json()["error"] == {"field": "samples.0.response", "message": "samples.0.response: Field required"}
        assert reply.status_code == 422
        assert 'genrm_gateway_refused_total{code="422"} 1' in (await gateway.get("/metrics")).text


async def test_several_ground_truths_reach_the_rule() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        assert (await gateway.post("/get_reward2", json={**SOLUTION, "ground_truth": ["four", "4"]})).json()[
            "score"
        ] == 1
        reply = await gateway.post("/get_reward2", json={**SOLUTION, "ground_truth": {"target": 4}})
    assert reply.status_code == 422 and "an object with target" in reply.json()["error"]["message"]


async def test_ours_says_every_term_and_outcome() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post("/v1/score", json={"samples": [RIGHT, WRONG]})
        first, second = reply.json()["scores"]
        assert (first["value"], first["outcome"], second["value"]) == (1.0, "ok", 0.0)
        assert first["terms"]["right"] == {"value": 1.0, "raw": 1.0, "outcome": "ok", "source": "rule"}


async def test_a_stream_brings_each_group_as_it_ends() -> None:
    samples = [RIGHT, WRONG, {**RIGHT, "prompt": "other"}]
    async with of_file(fleet("sums", EXACT)) as gateway:
        headers = {"accept": "application/x-ndjson"}
        reply = await gateway.post("/v1/score", json={"samples": samples}, headers=headers)
        assert 'genrm_gateway_requests_total{code="200",format="score"} 1.0' in (await gateway.get("/metrics")).text
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert {line["index"]: line["value"] for line in lines} == {0: 1.0, 1: 0.0, 2: 1.0}


async def test_who_hangs_up_on_a_stream_of_scores_is_not_judged_for_any_longer() -> None:
    gone = asyncio.Event()

    async def hangs_until_gone(http: Any, request: Request) -> Any:
        try:
            return await hangs()(http, request)
        finally:
            gone.set()

    samples, headers = [RIGHT, {**RIGHT, "prompt": "other"}], {"accept": "application/x-ndjson"}
    judge = ScriptedJudge(says(r"\boxed{True}"), hangs_until_gone)
    async with judge, of_file(external("judge", judge.url, timeout="60s")) as gateway:
        async with gateway.stream("POST", "/v1/score", json={"samples": samples}, headers=headers) as reply:
            assert json.loads(await anext(reply.aiter_lines()))["value"] == 1.0
            assert not gone.is_set()
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward2", {"solution_str": "4"}),
        ("/get_reward", {"query": ["4"], "prompts": [""]}),
        ("/slime", {"prompt": "p", "response": "4"}),
    ],
)
async def test_no_score_is_an_error_and_never_a_number(path: str, body: Any) -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post(path, json=body)
    error = reply.json()["error"]
    assert reply.status_code == 422 and error["outcome"] == "refused" and "ground truth" in error["message"]
    assert "score" not in reply.json() and "rewards" not in reply.json()


async def test_a_judge_that_is_away_is_a_503_with_its_outcome() -> None:
    async with ScriptedJudge(garbage()) as judge, of_file(external("judge", judge.url, timeout="1s")) as gateway:
        reply = await gateway.post("/get_reward2", json=SOLUTION)
    assert reply.status_code == 503 and reply.json()["error"]["outcome"] == "transport"
    assert reply.headers["retry-after"] == "1"


async def test_nemo_gym_is_told_that_the_judge_failed() -> None:
    body = {"responses_create_params": {"input": "p"}, "response": {"output": "4"}}
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post("/verify", json=body)
    assert reply.json()["_ng_failure_class"] == "judge_failed" and "refused" in reply.json()["_ng_failure_judge_error"]


async def test_a_number_that_a_policy_wrote_says_so() -> None:
    policy = {"policy": "value", "value": -1}
    async with of_file(fleet("sums", EXACT, onFailure=policy)) as gateway:
        reply = await gateway.post("/get_reward2", json={"solution_str": "4"})
    assert reply.json() == {"score": -1.0} and reply.headers["genrm-source"] == "policy"
    assert reply.headers["genrm-outcome"] == "refused"


async def test_policy_raise_is_an_error() -> None:
    async with of_file(fleet("sums", EXACT, onFailure={"policy": "raise"})) as gateway:
        reply = await gateway.post("/get_reward2", json={"solution_str": "4"})
    assert reply.status_code == 503 and "under policy raise" in reply.json()["error"]["message"]


async def test_a_breaker_that_cannot_count_steps_is_said_to_be_none(caplog: pytest.LogCaptureFixture) -> None:
    written = fleet("stops", EXACT, breaker={"maxFailedFraction": 0.5})
    async with of_file(written, fleet("sums", EXACT)) as gateway:
        await gateway.post("/get_reward2", json={})
    (said,) = [message for message in caplog.messages if "breaker" in message]
    assert said.startswith("RewardFleet stops spec.breaker: stops verl runs only")


async def test_responses_that_come_one_by_one_meet_in_a_tournament() -> None:
    async with ScriptedJudge(says(longer)) as judge, of_file(external("judge", judge.url, mode="pairwise")) as gateway:

        async def score(response: str) -> float:
            body = {"solution_str": response, "prompt_str": "p", "response_str": response}
            return float((await gateway.post("/get_reward2?group_size=2", json=body)).json()["score"])

        assert await asyncio.gather(score("short"), score("a long answer")) == [0.0, 1.0]
        alone = await gateway.post("/get_reward2", json=SOLUTION)
        assert alone.status_code == 422 and "nobody to compare" in alone.json()["error"]["message"]


async def member(gateway: httpx.AsyncClient, path: str, response: str, size: int) -> float:
    body = {"solution_str": response, "prompt_str": "p", "response_str": response, "ground_truth": "a long answer"}
    return float((await gateway.post(f"{path}?group_size={size}", json=body)).json()["score"])


@pytest.mark.parametrize("target", ["judge", "team"])
async def test_a_model_that_looks_at_each_alone_is_asked_while_siblings_are_still_missing(target: str) -> None:
    def grade(request: Request) -> str:
        return r"\boxed{True}" if "a long answer" in request["messages"][0]["content"] else r"\boxed{False}"

    normalised = {**JUDGE, "normalise": {"kind": "minmax"}}
    async with ScriptedJudge(says(grade)) as judge:
        targets = external("judge", judge.url, normalise="minmax"), fleet("team", normalised)
        async with of_file(*targets) as gateway:
            first = asyncio.create_task(member(gateway, f"/{target}/get_reward2", "a long answer", 2))
            await asyncio.wait_for(judge.asked.wait(), 10)
            assert not first.done()
            assert [await member(gateway, f"/{target}/get_reward2", "short", 2), await first] == [-1.0, 1.0]
    assert len(judge.requests) == 2


@pytest.mark.parametrize("target", ["judge", "team"])
async def test_a_pair_is_asked_about_while_siblings_are_still_missing(target: str) -> None:
    async with ScriptedJudge(says(longer)) as judge:
        targets = external("judge", judge.url, mode="pairwise"), fleet("team", EXACT, JUDGE)
        async with of_file(*targets) as gateway:
            path = f"/{target}/get_reward2"
            early = [asyncio.create_task(member(gateway, path, r, 3)) for r in ("short", "a long answer")]
            await asyncio.wait_for(judge.asked.wait(), 10)
            assert not any(task.done() for task in early)
            third = await member(gateway, path, "a long answer", 3)
            extra = float(target == "team")
            assert [*await asyncio.gather(*early), third] == [0.0, 0.75 + extra, 0.75 + extra]
    assert len(judge.requests) == 2, "equal texts tie"


async def test_a_gate_saves_the_judgement() -> None:
    gated = {**JUDGE, "gate": {"term": "right"}}
    judge = ScriptedJudge(says(r"\boxed{True}"))
    async with judge, of_file(external("judge", judge.url), fleet("both", EXACT, gated)) as gateway:
        reply = await gateway.post("/v1/score", json={"samples": [RIGHT, WRONG]})
        assert [score["value"] for score in reply.json()["scores"]] == [2.0, 0.0]
        models = (await gateway.get("/judge/v1/models")).json()["data"]
        assert [model["id"] for model in models] == ["judge"]
    assert len(judge.requests) == 1


async def test_what_openai_clients_ask_is_passed_on_with_their_own_words() -> None:
    async with ScriptedJudge(says("hello")) as judge, of_file(external("judge", judge.url)) as gateway:
        body = {"model": "judge", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "top_k": 1}
        reply = await gateway.post("/v1/chat/completions", json=body)
        assert reply.json()["choices"][0]["message"]["content"] == "hello" and judge.requests == [body]


async def test_openai_clients_find_every_model_that_they_can_ask() -> None:
    server = external("server", "http://localhost:1")
    server["spec"]["external"]["format"] = "slime"
    models = [external(name, "http://localhost:1") for name in ("judge", "critic")]
    for default in (None, "team"):
        async with of_file(*models, server, fleet("team", EXACT), default=default) as gateway:
            expected = {"/v1/models": ["critic", "judge"], "/judge/v1/models": ["judge"], "/team/v1/models": []}
            for path, names in expected.items():
                found = (await gateway.get(path)).json()
                assert found["object"] == "list" and [model["id"] for model in found["data"]] == names
                assert all(model["object"] == "model" for model in found["data"])
            assert (await gateway.get("/none/v1/models")).status_code == 404


async def test_an_engine_is_asked_for_the_model_by_the_name_it_knows() -> None:
    async with ScriptedJudge(says("hello")) as judge:
        known_otherwise = external("judge", judge.url)
        known_otherwise["spec"]["external"]["model"] = "qwen3-32b"
        async with of_file(known_otherwise) as gateway:
            for named in ("judge", "qwen3-32b"):
                body = {"model": named, "messages": [{"role": "user", "content": "hi"}]}
                await gateway.post("/judge/v1/chat/completions", json=body)
    assert [request["model"] for request in judge.requests] == ["qwen3-32b"] * 2


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/none/get_reward2", SOLUTION, 404, "none is not there; there are sums, other"),
        ("/get_reward2", SOLUTION, 404, "this gateway has no default"),
        ("/sums/get_reward2?group_size=x", SOLUTION, 422, "group_size"),
        ("/sums/get_reward2", {"solution": "x"}, 422, "solution_str"),
        ("/sums/get_reward", {"x": 1}, 422, "query"),
        ("/sums/get_reward", {"query": ["a"], "prompts": []}, 422, "send as many of each"),
        ("/sums/v1/score", {"samples": []}, 422, "samples"),
        ("/sums/v1/score", {"samples": [RIGHT], "more": 1}, 422, "more"),
        ("/sums/v1/chat/completions", {"model": "x"}, 404, "RewardFleet"),
        ("/v1/chat/completions", {"model": "x"}, 404, "x is not there"),
        ("/v1/chat/completions", [], 404, "no default"),
    ],
)
async def test_a_request_that_cannot_be_answered_is_told_why(path: str, body: Any, status: int, sentence: str) -> None:
    async with of_file(fleet("sums", EXACT), fleet("other", EXACT)) as gateway:
        reply = await gateway.post(path, json=body)
    assert reply.status_code == status and sentence in reply.text


async def test_a_rule_that_does_not_start_is_no_score_and_no_secret() -> None:
    term = {"name": "own", "rule": {"kind": "python", "function": "missing"}}
    text = "import nothing_of_the_kind\ndef missing(): pass\n"
    async with of_file(fleet("sums", term), modules={"rules": Module(text, "rules.py")}) as gateway:
        reply = await gateway.post("/get_reward2", json=SOLUTION)
    assert reply.status_code == 501 and "rules.py does not run: ModuleNotFound" in reply.json()["error"]["message"]


async def test_too_much_is_answered_with_429_and_never_a_score() -> None:
    limits = Limits(most_at_once=2, most_bytes=10_000)
    async with (
        ScriptedJudge(hangs()) as judge,
        of_file(external("judge", judge.url, timeout="1s"), limits=limits) as gateway,
    ):
        replies = await asyncio.gather(*(gateway.post("/get_reward2", json=SOLUTION) for _ in range(8)))
        assert sorted(reply.status_code for reply in replies) == [429] * 6 + [503] * 2
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert (await gateway.get("/healthz")).text == "ok"
        assert 'genrm_gateway_refused_total{code="429"} 6' in (await gateway.get("/metrics")).text
        assert (await gateway.post("/get_reward2", json={"solution_str": "x" * 20_000})).status_code == 413


async def test_keys_are_asked_for_where_there_are_any() -> None:
    limits = Limits(keys={"s3cret": "trainer"})
    async with of_file(fleet("sums", EXACT), limits=limits) as gateway:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cre"}):
            assert (await gateway.post("/get_reward2", json=SOLUTION, headers=headers)).status_code == 401
        headers = {"authorization": "Bearer s3cret"}
        assert (await gateway.post("/get_reward2", json=SOLUTION, headers=headers)).json()["score"] == 1.0
        assert (await gateway.get("/metrics")).status_code == 200


async def test_what_was_asked_is_counted_and_the_routes_are_documented() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        await gateway.post("/get_reward2", json=SOLUTION)
        await gateway.post("/get_reward2", json={"solution_str": "4"})
        page = (await gateway.get("/metrics")).text
        routes = (await gateway.get("/openapi.json")).json()["paths"]
    line = 'genrm_gateway_samples_total{format="get-reward2",outcome="%s",source="%s",target="sums"} 1.0'
    assert line % ("ok", "mix") in page and line % ("refused", "dropped") in page
    assert 'genrm_gateway_refused_total{code="422"} 1.0' in page
    assert {"/get_reward2", "/{target}/verify", "/v1/score"} <= routes.keys()
