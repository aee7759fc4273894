"""What the recipes tell people to write does what the systems they come from do, through the gateway.

A scripted judge stands in for the models: what is shown is the way of the numbers, not the judgement.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import pytest
from aiohttp import web
from genrm_api.scoring import Anchor, Scoring
from genrm_gateway.catalog import FileCatalog
from genrm_scoring import spec_file
from genrm_scoring.errors import Unaskable
from genrm_scoring.judges import PAIRWISE, judge_of, pointwise_judge
from genrm_scoring.targets import Means
from genrm_scoring.tournaments.anchor import anchor_text
from genrm_scoring.types import Question
from genrm_verl.samples import sample_of

from dev.bootstrap import ROOT
from tests.unit.gateway.recipes import RECIPES, RULES, documents, sample
from tests.unit.gateway.serving import serving
from tests.unit.scoring.scripted_judge import Reaction, Request, ScriptedJudge, says
from tests.unit.scoring.scripted_judge import status as responds


@asynccontextmanager
async def recipe(page: str, default: str, *script: Reaction) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedJudge]]:
    async with ScriptedJudge(*script or (says(""),)) as judge:
        spec = spec_file.checked(documents(page, judge.url), page)

        async def open_catalog() -> FileCatalog:
            return await FileCatalog.open(spec, Means(module=(RULES, "rw_custom.py")), default)

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


RIDER_REWARD = """
import json

def rm_preprocess(text_prompts, text_responses, tgt_tokenizer):
    filled = [p.replace("{response}", r) for p, r in zip(text_prompts, text_responses)]
    return [tgt_tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in filled]

def rm_postprocess(results):
    return [sum(json.loads(text.split("</think>")[-1]).values()) / 2 for text in results]
"""


class Qwen:
    """As much of its tokenizer as their functions call."""

    def apply_chat_template(self, chat: list[dict[str, str]]) -> str:
        return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat) + "<|im_start|>assistant\n"


def goes_on(text: str, finish_reason: str = "stop") -> Reaction:
    async def react(_: web.Request, __: Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"index": 0, "finish_reason": finish_reason, "text": text}]})

    return react


@pytest.mark.parametrize(
    ("answer", "extra", "status", "score"),
    [
        (goes_on('<think>hm</think> {"a": 1, "b": 0}'), ROW, 200, 0.5),
        (goes_on("I cannot say."), ROW, 422, "rm_postprocess raised JSONDecodeError"),
        (goes_on('{"a": NaN}'), ROW, 422, "rm_postprocess made nan of"),
        (goes_on("{", "length"), ROW, 422, "the answer ended with length"),
        (goes_on("{}"), {"rm_prompt_1": ""}, 422, "extra_info has no text rm_prompt_0; it has rm_prompt_1"),
        (responds(500, "down"), ROW, 500, "down"),
    ],
)
async def test_verl_with_rms_functions_as_they_are(
    tmp_path: Path, answer: Reaction, extra: dict[str, Any], status: int, score: float | str
) -> None:
    """rider_reward.py behind the example's server, which asks the RewardModel through the gateway."""
    (tmp_path / "rider_reward.py").write_text(RIDER_REWARD)
    example = run_path(str(ROOT / "examples" / "verl_with_rms" / "serve_functions.py"))
    functions = example["loaded"](tmp_path / "rider_reward.py")
    async with recipe("verl-with-rms.md", "courier", answer) as (gateway, judge):
        ask = example["asking"](gateway, "rider", {"max_tokens": 64})
        app = example["application"](functions, Qwen(), ask)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://functions") as client:
            reply = await client.post("/get_reward2", json={**sample("Ring."), "extra_info": extra})
    assert reply.status_code == status
    if isinstance(score, str):
        assert score in reply.text and "score" not in reply.json()
        return
    assert reply.json() == {"score": score}
    said = "<|im_start|>user\nIs the reply to the courier consistent? Ring.<|im_end|>\n<|im_start|>assistant\n"
    assert [request["prompt"] for request in judge.requests] == [said], "nothing is written around it"


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
