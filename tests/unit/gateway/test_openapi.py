"""The OpenAPI page: what it says is what the gateway takes and answers."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from genrm_gateway.openapi import ANSWERS

from tests.unit.gateway.serving import EXACT, external, fleet, of_file
from tests.unit.scoring.scripted_judge import ScriptedJudge, status

SUMS = {"solution_str": "2 + 2?4", "prompt_str": "2 + 2?", "ground_truth": "4"}
REQUESTS: dict[str, Any] = {
    "/get_reward2": SUMS,
    "/get_reward": {"query": ["2 + 2?4"], "prompts": ["2 + 2?"], "labels": ["4"]},
    "/slime": {"prompt": "2 + 2?", "response": "4", "label": "4"},
    "/verify": {"responses_create_params": {"input": "2 + 2?"}, "response": {"output": "4"}, "label": "4"},
    "/v1/score": {"samples": [{"prompt": "2 + 2?", "response": "4", "ground_truth": "4"}]},
}


async def page_of(gateway: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.get("/openapi.json")).json()
    return found


async def test_every_parameter_of_a_path_is_declared_and_every_operation_has_a_name_of_its_own() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        paths = (await page_of(gateway))["paths"]
    names = []
    for path, methods in paths.items():
        for operation in methods.values():
            names.append(operation["operationId"])
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path" and p["required"]}
            assert declared == set(re.findall("{(.+?)}", path)), path
    assert len(set(names)) == len(names)


async def test_a_reference_on_the_page_leads_somewhere() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        page = await gateway.get("/openapi.json")
    schemas = page.json()["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', page.text)) == set(schemas)


@pytest.mark.parametrize("path", REQUESTS)
async def test_an_answer_looks_like_its_example(path: str) -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        example = (await page_of(gateway))["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
        answer = (await gateway.post(path, json=REQUESTS[path])).json()
    assert example["example"] == ({k: v for k, v in answer.items() if k != "label"} if path == "/verify" else answer)


async def test_models_look_like_their_example() -> None:
    async with of_file(external("judge", "http://localhost:1")) as gateway:
        assert (await gateway.get("/v1/models")).json() == ANSWERS["/v1/models"]


@pytest.mark.parametrize("path", ["/sums/get_reward2", "/none/get_reward2", "/judge/get_reward2", "/get_reward2"])
async def test_an_error_looks_as_the_page_says(path: str) -> None:
    async with ScriptedJudge(status(503)) as judge:
        targets = fleet("sums", EXACT), external("judge", judge.url, timeout="1s")
        async with of_file(*targets) as gateway:
            page = await page_of(gateway)
            reply = await gateway.post(path, json={"solution_str": "4"})
    said = page["paths"]["/{target}/get_reward2"]["post"]["responses"]
    fields = page["components"]["schemas"]["Error"]["properties"]["error"]["properties"]
    error = reply.json()["error"]
    assert str(reply.status_code) in said and "message" in error
    assert error.get("outcome", "asleep") in fields["outcome"]["enum"] and {"outcome", "field"} & set(error)


async def test_the_parameters_of_groups_are_those_that_are_read() -> None:
    async with of_file(fleet("sums", EXACT)) as gateway:
        paths = (await page_of(gateway))["paths"]
        for route in ("/get_reward2", "/get_reward", "/slime", "/verify"):
            reply = await gateway.post(f"{route}?group_size=0", json=REQUESTS[route])
            assert reply.status_code == 422 and "group_size" in reply.text
            assert [p["name"] for p in paths[route]["post"]["parameters"]] == ["group_size", "group"]
