"""Terms that ask more than one judge about one response: a critic and a classifier, an embedding model, SGLang's two
routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.targets import Means, opened_fleet, reached, source_of
from genrm_scoring.types import Outcome, Sample

SAMPLE = Sample("What is 2 + 2?", "It is 4.", reference="4")


class Server:
    """Counts words: what a critic says of a response, a classifier's number, an embedding."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.critique = "<think>hm</think>Right, and too short."

    async def answer(self, http: web.Request) -> web.Response:
        request = json.loads(await http.read())
        self.asked.append((http.path, request))
        match http.path:
            case "/v1/chat/completions":
                choice = {"finish_reason": "stop", "message": {"content": self.critique}}
                return web.json_response({"choices": [choice]})
            case "/classify" if "messages" in request:
                return web.json_response({"data": [{"probs": [len(request["messages"][-1]["content"].split())]}]})
            case "/classify":
                return web.json_response({"embedding": [len(request["input_ids"])]})
            case "/tokenize":
                return web.json_response({"tokens": [len(m["content"]) for m in request["messages"]]})
            case "/v1/embeddings" if isinstance(request["input"][0], str):
                rows = [{"index": i, "embedding": [len(text), 1]} for i, text in enumerate(request["input"])]
                return web.json_response({"data": rows[::-1]})
            case "/v1/embeddings":
                return web.json_response({"data": [{"index": 0, "embedding": [sum(request["input"])]}]})
            case "/get_bge_sim":
                return web.json_response({"sim": 0.1 if request["sent1"] != request["sent2"] else 1})
        return web.Response(status=404)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def external(name: str, url: str, wire_format: str) -> RewardModel:
    spec = {"type": "External", "external": {"url": url, "format": wire_format}, "scoring": {"timeout": "5s"}}
    return RewardModel.model_validate({"metadata": {"name": name, "namespace": "rl"}, "spec": spec})


def fleet_of(**term: Any) -> RewardFleet:
    spec = {"terms": [{"name": "term", **term}]}
    return RewardFleet.model_validate({"metadata": {"name": "mix", "namespace": "rl"}, "spec": spec})


def means(server: Server) -> Means:
    formats = {"critic": ("/v1", "openai-chat"), "rm": ("/classify", "vllm-classify")}

    def model(name: str) -> RewardModel:
        route, wire_format = formats[name]
        return external(name, server.url + route, wire_format)

    return Means(model=model)


CRITIQUED = {"rewardModel": {"name": "rm"}, "critic": {"name": "critic"}}


async def test_a_classifier_reads_the_critique_behind_the_response(server: Server) -> None:
    async with opened_fleet(fleet_of(**CRITIQUED), means(server)) as fleet:
        (score,) = await fleet.scores([SAMPLE])
    (_, to_critic), (_, to_classifier) = server.asked
    assert SAMPLE.response in to_critic["messages"][0]["content"]
    said = "It is 4.\n\n<critique>\nRight, and too short.\n</critique>"
    assert [m["content"] for m in to_classifier["messages"]] == [SAMPLE.question, said]
    assert score.value == len(said.split())


async def test_without_a_critique_there_is_no_number(server: Server) -> None:
    server.critique = "<think>hm"
    async with opened_fleet(fleet_of(**CRITIQUED), means(server)) as fleet:
        (score,) = await fleet.scores([SAMPLE])
    assert [path for path, _ in server.asked] == ["/v1/chat/completions"], "no classifier is asked without"
    (term,) = score.terms
    assert (term.value, term.outcome) == (None, Outcome.PARSE_FAILED)
    assert term.detail.startswith("no critique: the critique is empty")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("rm", "rm"), "spec.terms term critic: rm does not answer in words"),
        (("critic", "critic"), "spec.terms term rewardModel: critic is asked in words"),
    ],
)
async def test_a_critic_speaks_and_a_classifier_reads(server: Server, names: tuple[str, str], sentence: str) -> None:
    rm, critic = names
    with pytest.raises(ConfigurationError, match=sentence):
        async with opened_fleet(fleet_of(rewardModel={"name": rm}, critic={"name": critic}), means(server)):
            pass


def test_a_fleet_names_its_critics_too() -> None:
    assert fleet_of(**CRITIQUED).models == ["rm", "critic"]


@pytest.mark.parametrize(
    ("api", "response", "value"),
    [
        ({"url": "/v1/embeddings", "format": "openai-embeddings", "model": "bge"}, "4", 1.0),
        ({"url": "/v1/embeddings", "format": "openai-embeddings", "model": "bge"}, "four", 5 / (2 * 17) ** 0.5),
        ({"url": "/get_bge_sim", "format": "get-bge-sim"}, "4", 1.0),
        ({"url": "/get_bge_sim", "format": "get-bge-sim"}, "four", 0.1),
    ],
)
async def test_how_like_its_reference_a_response_is(
    server: Server, api: dict[str, str], response: str, value: float
) -> None:
    term = {"api": api | {"url": server.url + api["url"]}}
    async with opened_fleet(fleet_of(**term), Means()) as fleet:
        (like,) = await fleet.scores([Sample("q", response, reference="4")])
        (without,) = await fleet.scores([Sample("q", response)])
    assert like.value == pytest.approx(value)
    assert without.value is None and "no reference" in without.terms[0].detail


@pytest.mark.parametrize(
    ("route", "wire_format", "number"),
    [("/classify", "sglang-classify", 2.0), ("/v1/embeddings", "openai-embeddings", 14.0 + 8.0)],
)
async def test_an_sglang_of_somebody_else_s_writes_the_chat_itself(
    server: Server, route: str, wire_format: str, number: float
) -> None:
    rm = external("rm", server.url + route, wire_format)
    async with reached(rm, Means()) as way:
        (score,) = await source_of(rm, way).scores([SAMPLE])
    assert [path for path, _ in server.asked] == ["/tokenize", route]
    assert score.value == number
