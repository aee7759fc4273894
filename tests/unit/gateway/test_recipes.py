"""What the recipes tell people to write does what the systems they come from do, through the gateway.

A scripted judge stands in for the models: what is shown is the way of the numbers, not the judgement.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from genrm_api.comparing import Anchor
from genrm_api.scoring import Scoring
from genrm_gateway.catalog import FileCatalog
from genrm_scoring import spec_file
from genrm_scoring.errors import Unaskable
from genrm_scoring.judges import PAIRWISE, judge_of, pointwise_judge
from genrm_scoring.targets import Means
from genrm_scoring.tournaments.anchor import anchor_text
from genrm_scoring.types import Question
from genrm_verl.samples import sample_of

from tests.unit.gateway.recipes import MODULES, RECIPES, documents, sample
from tests.unit.gateway.serving import serving
from tests.unit.scoring.scripted_judge import Reaction, ScriptedJudge, says


@asynccontextmanager
async def recipe(page: str, default: str, *script: Reaction) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedJudge]]:
    async with ScriptedJudge(*script or (says(""),)) as judge:
        spec = spec_file.checked(documents(page, judge.url), page)

        async def open_catalog() -> FileCatalog:
            return await FileCatalog.open(spec, Means(modules=MODULES.get(page, {})), default)

        async with serving(open_catalog) as client:
            yield client, judge


@pytest.mark.parametrize(
    ("said", "status", "score"),
    [(r"\boxed{True}", 200, 1.0), (r"\boxed{False}", 200, 0.0), ("I cannot say.", 422, None)],
)
async def test_genrm_remote(said: str, status: int, score: float | None) -> None:
    async with recipe("genrm-remote.md", "genrm-demo", says(said)) as (client, _):
        reply = await client.post("/get_reward2", json=sample("4"))
        assert (reply.status_code, reply.json().get("score")) == (status, score)


@pytest.mark.parametrize(("response", "score"), [("It is 4", 1.0), ("It is 5", 0.0)])
async def test_reward_api_rule(response: str, score: float) -> None:
    async with recipe("reward-api.md", "rules") as (client, judge):
        reply = await client.post("/get_reward2", json=sample(response))
        assert reply.json() == {"custom": score, "score": score} and not judge.requests


@pytest.mark.parametrize(
    ("response", "criteria", "score"),
    [(r"\boxed{4}", 0.2, 1.0), (r"\boxed{4}", 0.1, 0.9), (r"\boxed{5}", 0.2, 0.2), (r"\boxed{5}", 0.0, 0.0)],
)
async def test_reward_api_judge(response: str, criteria: float, score: float) -> None:
    """0.2 x the criteria + 0.8 x the result."""
    names = ("logic", "completeness", "accuracy", "relevance", "clarity")
    said = json.dumps({"scores": dict.fromkeys(names, criteria)})
    async with recipe("reward-api.md", "five-criteria", says(said)) as (client, _):
        reply = await client.post("/get_reward2", json=sample(response))
        assert reply.json()["score"] == pytest.approx(score)


async def test_verl_with_rms() -> None:
    """rule + 0.3 x rider + 0.5 x consistency, where the rule is 1; elsewhere the rule, and nobody is asked."""

    def answer(request: dict[str, Any]) -> str:
        if "consistent" in request["messages"][0]["content"]:
            return '{"consistent": 1}'
        return 'Well. {"understanding": 1, "rules": 1, "action": 0}'

    async with recipe("verl-with-rms.md", "courier", says(answer)) as (client, judge):
        right = (await client.post("/get_reward2", json=sample(r"\boxed{4}"))).json()
        assert right["score"] == pytest.approx(1 + 0.3 * 2 / 3 + 0.5) and len(judge.requests) == 2
        wrong = (await client.post("/get_reward2", json=sample(r"\boxed{5}"))).json()
        assert wrong["score"] == 0.0 and len(judge.requests) == 2


ROW = {
    "data_source": "rider",
    "prompt": [{"role": "system", "content": "You help couriers."}, {"role": "user", "content": "Nobody answers."}],
    "rm_prompt_0": "Is the reply to the courier consistent? {response}",
    "rm_prompt_1": "",
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"split": "train", "index": 7},
}


async def test_verl_with_rms_by_the_column_of_its_own_data() -> None:
    """A row as process_rider.py writes it, as verl hands it to the reward worker."""
    fields = {**ROW, "raw_prompt": ROW["prompt"], "uid": "u"}
    verls = sample_of(fields, "Ring the bell.<|im_end|>")
    (document,) = [d for d in documents("verl-with-rms.md", "http://judge") if d["metadata"]["name"] == "by-column"]
    judge = pointwise_judge(Scoring.model_validate(document["spec"]["scoring"]))
    (message,) = judge.messages(Question.about(verls))
    assert message == {
        "role": "user",
        "content": "Is the reply to the courier consistent? Ring the bell.< |im_end|>",
    }
    async with recipe("verl-with-rms.md", "by-column", says('So. {"consistent": 1}')) as (client, asked):
        body = sample("Ring the bell.")
        reply = await client.post("/get_reward2", json={**body, "extra_info": verls.extra})
        assert reply.json()["score"] == 1.0
        assert asked.requests[0]["messages"][0]["content"].endswith("consistent? Ring the bell.")
        lacking = await client.post("/get_reward2", json=body)
        assert lacking.status_code == 422 and len(asked.requests) == 1
        assert "extra.rm_prompt_0; extra has split" in lacking.json()["error"]["message"]


RIDER_ROW = {
    "rm_prompt_0": "Is the reply to the courier polite? {response}",
    "rm_prompt_1": "Is it consistent?",
}


async def test_verl_with_rms_functions_as_they_are() -> None:
    """rule + 0.3 x rider + 0.5 x consistency, by the two functions of each of two files."""

    def answer(request: dict[str, Any]) -> str:
        asked = request["messages"][0]["content"]
        return "consistent" if asked.startswith("Consistent?") else '<think>{}</think> Well. {"a": 1, "b": 0}'

    async with recipe("verl-with-rms.md", "courier-by-functions", says(answer)) as (client, judge):
        reply = r'Hm. {"Response": "Ring the bell. \\boxed{4}"}'
        scored = await client.post("/get_reward2", json={**sample(reply), "extra_info": RIDER_ROW})
        assert scored.json()["score"] == pytest.approx(1 + 0.3 * 0.5 + 0.5), scored.text
    asked = {request["messages"][0]["content"]: request for request in judge.requests}
    said = r"Is the reply to the courier polite? Ring the bell. \boxed{4}"
    assert set(asked) == {said, f"Consistent? Is it consistent? {reply}"}
    assert [message["role"] for message in asked[said]["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("reply", "answer", "extra", "outcome", "detail"),
    [
        ('{"Reply": "Ring."}', "{}", RIDER_ROW, "refused", "rm_preprocess raised KeyError: 'Response'"),
        ('{"Response": "Ring."}', "{}", {}, "refused", "promptKey: extra has no text rm_prompt_0; it has nothing"),
        ('{"Response": "Ring."}', "No.", RIDER_ROW, "parse_failed", "rm_postprocess raised IndexError"),
        ('{"Response": "Ring."}', '{"a": NaN}', RIDER_ROW, "parse_failed", "rm_postprocess returned nan"),
    ],
)
async def test_verl_with_rms_functions_that_fail_are_no_zero(
    reply: str, answer: str, extra: dict[str, Any], outcome: str, detail: str
) -> None:
    async with recipe("verl-with-rms.md", "courier-by-functions", says(answer)) as (client, _):
        one = {"prompt": "Hm?", "response": rf"{reply[:-1]}, " + r'"Result": "\\boxed{4}"}', "ground_truth": "4"}
        scored = (await client.post("/v1/score", json={"samples": [{**one, "extra": extra}]})).json()["scores"][0]
    terms = scored["terms"]
    assert scored["value"] is None and terms["rider"]["outcome"] == outcome
    assert detail in terms["rider"]["detail"]


async def test_rm_gallery_by_its_own_prompt_function() -> None:
    def longer(request: dict[str, Any]) -> str:
        a, _, b = request["messages"][0]["content"].partition("A: ")[2].partition(" B: ")
        return f"<result>{'A' if len(a) > len(b) else 'B'}</result>"

    async with recipe("rm-gallery.md", "alignment-by-function", says(longer)) as (client, judge):
        samples = [{"prompt": "Say words.", "response": "word " * n} for n in (3, 1, 2)]
        reply = await client.post("/v1/score", json={"samples": samples})
        assert [score["value"] for score in reply.json()["scores"]] == pytest.approx([1, -1, 0])
    assert all(r["messages"][0]["content"].startswith("Query: Say words. A: word") for r in judge.requests)


async def test_rm_gallery() -> None:
    def longer(request: dict[str, Any]) -> str:
        text = request["messages"][0]["content"]
        places = sorted(range(1, 5), key=lambda n: text.find("word " * n + "end"))
        a, b = (n for n in places if "word " * n + "end" in text.replace("word " * (n + 1) + "end", ""))
        return f"<result>{'A' if a > b else 'B'}</result>"

    async with recipe("rm-gallery.md", "alignment", says(longer)) as (client, judge):
        samples = [{"prompt": "Say words.", "response": "word " * n + "end"} for n in (3, 1, 4, 2)]
        reply = await client.post("/v1/score", json={"samples": samples})
        values = [score["value"] for score in reply.json()["scores"]]
    assert values == pytest.approx([1 / 3, -1, 1, -1 / 3]) and len(judge.requests) == 6


async def test_rm_gallery_with_its_own_numbers() -> None:
    """A judge who likes A likes who was sampled earlier, and a tie is no win for anybody."""

    def first_but_not_the_last(request: dict[str, Any]) -> str:
        return f"<result>{'tie' if 'wordless' in request['messages'][0]['content'] else 'A'}</result>"

    async with recipe("rm-gallery.md", "alignment-as-there", says(first_but_not_the_last)) as (client, judge):
        samples = [{"prompt": "Say words.", "response": text} for text in ("one", "two", "wordless")]
        reply = await client.post("/v1/score", json={"samples": samples})
        values = [score["value"] for score in reply.json()["scores"]]
    assert values == pytest.approx([1, -1, -1]) and len(judge.requests) == 3


ASKED = [{"role": "user", "content": "Say hello."}]
PAIR = {
    "chosen": [*ASKED, {"role": "assistant", "content": "Hello there!"}],
    "rejected": [*ASKED, {"role": "assistant", "content": "Go away."}],
}


async def test_rm_gallery_with_its_own_rows() -> None:
    """The judge is shown the chosen answer, which also plays along; never the rejected one."""

    def nicer(request: dict[str, Any]) -> str:
        text = request["messages"][0]["content"]
        assert "<reference>\nHello there!\n</reference>" in text and "Go away." not in text
        first, second = text.partition("<response_a>")[2].split("<response_b>")
        return f"<result>{'A' if len(first) > len(second) else 'B'}</result>"

    async with recipe("rm-gallery.md", "alignment-with-reference", says(nicer)) as (client, judge):
        truth = {**PAIR, "source": "s"}
        samples = [{"prompt": ASKED, "response": text, "ground_truth": truth} for text in ("Hi.", "Hello to you all!")]
        reply = await client.post("/v1/score", json={"samples": samples})
        low, high = (score["value"] for score in reply.json()["scores"])
    assert low < high and len(judge.requests) == 3


async def test_rm_gallery_rows_in_verl_are_asked_about_with_their_columns() -> None:
    raw = sample_of({"raw_prompt": ASKED, "x": ASKED, **PAIR, "source": "s", "unique_id": "1"}, "Hi.")
    assert anchor_text(Anchor.CHOSEN, raw) == "Hello there!"
    as_truth = sample_of({"raw_prompt": ASKED, "reward_model": {"ground_truth": {**PAIR, "source": "s"}}}, "Hi.")
    assert anchor_text(Anchor.CHOSEN, as_truth) == "Hello there!"
    (document,) = [d for d in documents("rm-gallery.md", "http://judge") if "reference" in d["metadata"]["name"]]
    judge = judge_of(Scoring.model_validate(document["spec"]["scoring"]))
    assert "Hello there!" in judge.messages(Question.about(as_truth, as_truth))[0]["content"]
    with pytest.raises(Unaskable, match="an object with chosen, rejected, source"):
        PAIRWISE["pairwise-abtie"].messages(Question.about(as_truth, as_truth))


def test_every_recipe_is_tried_here() -> None:
    assert {path.name for path in RECIPES.glob("*.md")} == {
        "genrm-remote.md", "reward-api.md", "rm-gallery.md", "verl-with-rms.md"
    }  # fmt: skip
