"""The recipes on a real vLLM: each system's own requests, over HTTP, to the gateway and from there to the engine.

The model is tiny and of random weights: it cannot judge, and is held to the form that its judge reads. What is shown is
that every question reaches the engine, that its answers are read, and that the numbers are made of them as each recipe
says; `tests/unit/gateway/test_recipes.py` shows with scripted verdicts that the right answer gets the right score.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from genrm_gateway.catalog import FileCatalog
from genrm_scoring import spec_file
from genrm_scoring.targets import Means

from tests.e2e.contract import servers
from tests.e2e.contract.dialects import MODEL
from tests.e2e.contract.engines import Engine
from tests.unit.gateway.recipes import MODULES, documents, sample
from tests.unit.gateway.serving import serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

VERDICT = {"structured": {"choice": [f"<result>{word}</result>" for word in ("A", "B", "tie")]}}
FORM: Mapping[str, Mapping[str, Any]] = {
    "genrm-demo": {"structured": {"choice": [r"\boxed{True}", r"\boxed{False}"]}},
    # Greedy, such a model writes white space between two words of JSON until it is cut off.
    "five-criteria": {"structured": {"jsonObject": True}, "maxTokens": 512, "temperature": 1, "seed": 7},
    "rider": {"structured": {"jsonObject": True}, "maxTokens": 256},
    "consistency": {"structured": {"jsonObject": True}, "maxTokens": 256},
    "by-column": {"structured": {"jsonObject": True}, "maxTokens": 256},
    "alignment": VERDICT,
    "alignment-with-reference": VERDICT,
    "alignment-as-there": VERDICT,
    "alignment-by-function": VERDICT,
}
"""What a model that cannot judge is held to."""


@pytest.fixture(scope="module")
def real_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with servers.running("vllm", tmp_path_factory.mktemp("vllm"), key=None) as up:
        up.serve()
        yield up


@asynccontextmanager
async def recipe(page: str, default: str, engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    url = str(engine.http.base_url).rstrip("/")
    spec = spec_file.checked(documents(page, url, MODEL, FORM), page)

    async def open_catalog() -> FileCatalog:
        return await FileCatalog.open(spec, Means(modules=MODULES.get(page, {})), default)

    async with serving(open_catalog) as client:
        client.timeout = httpx.Timeout(120)
        yield client


def answered(engine: Engine) -> int:
    """How many questions the engine has answered, as its door counts them."""
    return int(engine.document()["served"])


async def test_genrm_remote(real_vllm: Engine) -> None:
    async with recipe("genrm-remote.md", "genrm-demo", real_vllm) as client:
        before = answered(real_vllm)
        reply = await client.post("/get_reward2", json=sample(r"\boxed{4}"))
        assert reply.json()["score"] in (0.0, 1.0), reply.text
        assert answered(real_vllm) == before + 1
        # Its reward function, with BASE_URL set to the gateway.
        question = {"model": "genrm-demo", "messages": [{"role": "user", "content": "Is 2 + 2 = 4?"}], "max_tokens": 8}
        said = (await client.post("/v1/chat/completions", json=question)).json()
        assert said["choices"][0]["message"]["content"] and answered(real_vllm) == before + 2


async def test_reward_api(real_vllm: Engine) -> None:
    """A fifth of the five criteria, each at most 0.2, and four fifths of the result."""
    async with recipe("reward-api.md", "five-criteria", real_vllm) as client:
        for response, least, most in ((r"\boxed{4}", 0.8, 1.0), (r"\boxed{5}", 0.0, 0.2)):
            reply = await client.post("/get_reward2", json=sample(response))
            assert reply.status_code == 200 and least <= reply.json()["score"] <= most, reply.text


async def test_verl_with_rms(real_vllm: Engine) -> None:
    """rule + 0.3 x rider + 0.5 x consistency; where the rule fails nobody is asked."""
    async with recipe("verl-with-rms.md", "courier", real_vllm) as client:
        before = answered(real_vllm)
        right = (await client.post("/get_reward2", json=sample(r"\boxed{4}"))).json()
        assert answered(real_vllm) == before + 2
        assert any(right["rider"] == pytest.approx(n / 3) for n in range(4)) and right["consistency"] in (0.0, 1.0)
        assert right["score"] == pytest.approx(1 + 0.3 * right["rider"] + 0.5 * right["consistency"])
        wrong = (await client.post("/get_reward2", json=sample(r"\boxed{5}"))).json()
        assert wrong["score"] == 0.0 and answered(real_vllm) == before + 2


@pytest.mark.parametrize("name", ["alignment", "alignment-as-there", "alignment-by-function"])
async def test_rm_gallery(real_vllm: Engine, name: str) -> None:
    async with recipe("rm-gallery.md", name, real_vllm) as client:
        before = answered(real_vllm)
        samples = [{"prompt": "Say hello.", "response": said} for said in ("Hello!", "Go away.", "Good day.", "Hm.")]
        scores = (await client.post("/v1/score", json={"samples": samples})).json()["scores"]
    assert answered(real_vllm) == before + 6, "every pair once"
    assert all(-1 <= score["value"] <= 1 and score["outcome"] == "ok" for score in scores), scores
