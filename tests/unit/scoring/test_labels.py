"""Labels that a model takes apart are refused before it is asked: by its status, or by its own word."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.labels import refuse_labels_that_it_splits
from genrm_scoring.targets import Reached, scorer_of
from genrm_scoring.transport import AiohttpTransport

FIELD = "reward_model.scoring.parse.values"


class Engine:
    """Its tokenizer knows letters only. `status` and `said` are what it answers instead."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.said: Any = None
        self.asked: list[dict[str, Any]] = []

    async def tokenize(self, http: web.Request) -> web.Response:
        request = json.loads(await http.read())
        self.asked.append(request)
        said = {"tokens": list(map(ord, request["prompt"]))} if self.said is None else self.said
        return web.json_response(said, status=self.status)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine, app = Engine(), web.Application()
    app.router.add_post("/tokenize", engine.tokenize)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    engine.url = f"http://{host}:{port}"
    try:
        yield engine
    finally:
        await runner.cleanup()


def scoring(*labels: str) -> Scoring:
    parse = {"kind": "logprob", **({"values": {label: i for i, label in enumerate(labels)}} if labels else {})}
    return Scoring.model_validate({"template": "{{ response }}", "parse": parse})


async def refusal(how: Scoring, *urls: str) -> str | None:
    transport = AiohttpTransport()
    try:
        await refuse_labels_that_it_splits(how, "judge", StaticEndpoints(urls), transport, FIELD)
    except ConfigurationError as e:
        return str(e)
    finally:
        await transport.close()
    return None


@pytest.mark.parametrize("behind", ["", "/v1"])
async def test_an_endpoint_that_tells_is_asked_and_the_labels_are_named(engine: Engine, behind: str) -> None:
    said = await refusal(scoring("A", "good"), engine.url + behind)
    assert said is not None and said.startswith(f"{FIELD}: 'good' is more than one token")
    assert engine.asked[0] == {"model": "judge", "prompt": "\n", "add_special_tokens": False}
    assert await refusal(scoring(), engine.url + behind) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, None), (500, None), (200, {}), (200, {"tokens": ["a"]}), (200, {"tokens": []}), (200, [])],
)
async def test_one_that_does_not_tell_is_believed(engine: Engine, status: int, said: Any) -> None:
    engine.status, engine.said = status, said
    assert await refusal(scoring("A", "good"), engine.url) is None


async def test_nobody_is_asked_who_reads_no_labels_or_is_not_there(engine: Engine) -> None:
    assert await refusal(Scoring(), engine.url) is None and not engine.asked
    assert await refusal(scoring("A", "good")) is await refusal(scoring("A", "good"), "http://127.0.0.1:1") is None


def model(*labels: str, found_in: int | None = 3) -> RewardModel:
    condition = {
        "type": "ScoringValid", "status": "False", "reason": "LabelNotOneToken", "observedGeneration": found_in,
        "message": "spec.scoring.parse.values: 'good' is more than one token to this model",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }  # fmt: skip
    return RewardModel.model_validate(
        {
            "metadata": {"name": "judge", "namespace": "rl", "generation": 3},
            "spec": {"model": {"uri": "hf://a/b"}, "scoring": scoring(*labels).model_dump(exclude_unset=True)},
            "status": {"conditions": [condition]},
        }
    )


@pytest.mark.parametrize(("found_in", "refused"), [(3, True), (2, False), (None, False)])
def test_what_the_operator_has_found_of_this_spec_is_refused(found_in: int | None, refused: bool) -> None:
    rm, way = model("A", "good", found_in=found_in), Reached(StaticEndpoints([]), AiohttpTransport())
    if not refused:
        scorer_of(rm, way)  # the operator has not seen the spec of now
        return
    with pytest.raises(ConfigurationError, match=r"RewardModel judge: spec\.scoring\.parse\.values: 'good' is more"):
        scorer_of(rm, way)
