"""What is no request: no JSON, of another shape, too large. Every refusal has one form, and is counted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from genrm_gateway.limits import Limits

from tests.unit.gateway.serving import EXACT, external, fleet, of_file

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "sentence"),
    [
        ("/get_reward2", b"", JSON, 422, "body: Field required"),
        (
            "/get_reward2",
            b"{",
            JSON,
            422,
            "body: no JSON: Expecting property name enclosed in double quotes at character",
        ),
        ("/get_reward2", b"[]", JSON, 422, "body: Input should be a valid dictionary"),
        ("/get_reward2", b"null", JSON, 422, "body: "),
        ("/get_reward2", b"{}", {"content-type": "application/x-www-form-urlencoded"}, 422, "send `content-type: "),
        ("/get_reward2", b"{}", {}, 422, "send `content-type: "),
        ("/get_reward2", b'"\xff"', JSON, 400, "parsing the body"),
        ("/get_reward2", b"[" * 100_000, JSON, 400, "parsing the body"),
        ("/get_reward", b"{}", JSON, 422, "query: Field required"),
        ("/slime", b'{"prompt": 1, "response": "4"}', JSON, 422, "prompt"),
        ("/verify", b'{"responses_create_params": {"input": 3}, "response": {}}', JSON, 422, "input"),
        ("/verify", b'{"responses_create_params": {"input": "?"}, "response": {"output": 3}}', JSON, 422, "output"),
        ("/slime", b'{"prompt": [{"content": [{"type": []}]}], "response": "4"}', JSON, 422, "part of type"),
        ("/compare", b'{"conversation_history": [], "response_objs": []}', JSON, 422, "response_objs"),
        ("/compare", b'{"conversation_history": [], "response_objs": [{"output": 3}]}', JSON, 422, "output"),
        ("/compare", b'{"conversation_history": [3], "response_objs": [{}]}', JSON, 422, "conversation_history"),
        ("/v1/score", b'{"samples": 3}', JSON, 422, "samples"),
        ("/nothing", b"{}", JSON, 404, "Not Found"),
    ],
)
async def test_a_body_that_is_none_is_told_so_in_the_gateways_own_form(
    path: str, content: bytes, headers: dict[str, str], status: int, sentence: str
) -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post(path, content=content, headers=headers)
    assert reply.status_code == status and sentence in reply.json()["error"]["message"]


async def test_a_method_that_is_none_is_told_which_is() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.get("/get_reward2")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST") and "error" in reply.json()


async def test_a_task_without_a_prompt_is_verified_by_what_it_has() -> None:
    body = {"responses_create_params": {"input": None}, "response": {"output": "4"}, "label": "4"}
    async with of_file(fleet("sums", EXACT)) as gateway:
        assert (await gateway.post("/verify", json=body)).json()["reward"] == 1.0


async def test_a_fault_of_the_gateway_is_no_score_and_is_counted() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        deep = b'{"solution_str": "4", "ground_truth": ' + b"[" * 900 + b"]" * 900 + b"}"
        reply = await gateway.post("/get_reward2", content=deep, headers=JSON)
        assert reply.status_code == 500 and "its log says why" in reply.json()["error"]["message"]
        assert 'genrm_gateway_refused_total{code="500"} 1' in (await gateway.get("/metrics")).text


async def test_what_json_can_say_and_utf8_cannot_comes_back() -> None:
    body = (
        b'{"responses_create_params": {"input": "2 + 2?"}, "response": {"output": "4"}, "label": "4", '
        b'"half": "\\ud800", "number": NaN, "most": Infinity}'
    )
    async with of_file(fleet("sums", EXACT)) as gateway:
        reply = await gateway.post("/verify", content=body, headers=JSON)
    found = json.loads(reply.content)
    assert (found["reward"], found["half"], found["number"], found["most"]) == (1.0, "\ud800", None, None)


@pytest.mark.parametrize(
    "path", ["/sums/get_reward2", "/sums/v1/score", "/judge/v1/chat/completions", "/judge/classify"]
)
async def test_a_body_without_a_length_is_cut_off_too(path: str) -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    targets = fleet("sums", EXACT), external("judge", "http://localhost:1")
    async with of_file(*targets, limits=Limits(most_bytes=10_000)) as gateway:
        reply = await gateway.post(path, content=chunks())
        assert (reply.status_code, reply.json()["error"]["message"]) == (413, "the body has more than 10000 bytes")
        page = (await gateway.get("/metrics")).text
    assert re.findall(r'refused_total{code="(\d+)"}', page) == ["413"], "once, and as nothing else"
