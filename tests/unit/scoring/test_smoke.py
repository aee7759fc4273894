"""What `helm test` runs: one sample, the whole way of a training run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import web
from genrm_api.leases import DemandLease, Phase
from genrm_scoring.cluster import ENDPOINT_SLICES, REWARD_MODELS
from genrm_scoring.errors import LabelsSplit, NoSuchRewardModel
from genrm_scoring.smoke import OTHER, SAMPLE, main, outcome, smoke
from genrm_scoring.types import Outcome

from tests.unit.scoring.fake_cluster import FakeCluster
from tests.unit.scoring.scripted_judge import ScriptedJudge, says
from tests.unit.scoring.stub_api import endpoint_slice, reward_model


async def fleet(**spec: Any) -> FakeCluster:
    cluster = FakeCluster()
    meta = {"name": "judge", "namespace": "rl", "uid": "u1"}
    model = reward_model()
    await cluster.put(REWARD_MODELS, {**model, "metadata": meta, "spec": {**model["spec"], **spec}})
    return cluster


def held(cluster: FakeCluster) -> list[DemandLease]:
    return [DemandLease.from_object(o) for (kind, _, _), o in cluster.objects.items() if kind.startswith("leases.")]


async def test_a_model_that_sleeps_is_woken_by_a_lease_and_scores_one_sample() -> None:
    said: list[str] = []
    cluster = await fleet()
    async with ScriptedJudge(says(r"\boxed{True}")) as judge, asyncio.timeout(10):
        asked = asyncio.create_task(smoke(cluster, "judge", "rl", 10, said.append))
        await cluster.until(lambda: [lease.phase for lease in held(cluster)] == [Phase.SCORING])
        await cluster.until(lambda: ("watch", "1") in cluster.calls)
        port = int(judge.url.rpartition(":")[2])
        slice_ = {"metadata": {"name": "a", "namespace": "rl"}}
        slice_ |= endpoint_slice("judge-1", port=port, address="127.0.0.{}")
        await cluster.put(ENDPOINT_SLICES, slice_)
        judgement = await asked
    assert judgement is not None and judgement.outcome is Outcome.OK
    assert "ok by http://127.0.0.1:" in outcome(judgement) and outcome(judgement).endswith("True is worth 1")
    assert SAMPLE.response in str(judge.requests[0])
    assert not held(cluster), "the Lease is given back"


async def test_a_model_that_never_serves_is_a_failure_with_the_next_command() -> None:
    said: list[str] = []
    cluster = await fleet()
    assert await smoke(cluster, "judge", "rl", 0.05, said.append) is None
    assert said[-1] == "nothing serves; kubectl -n rl describe rm judge says why"
    assert not held(cluster)


async def test_a_model_that_is_not_there_is_named_before_any_lease_is_made() -> None:
    cluster = await fleet()
    with pytest.raises(NoSuchRewardModel):
        await smoke(cluster, "jugde", "rl", 1, lambda _: None)
    assert not held(cluster)


async def test_an_answer_that_is_no_verdict_is_told_in_the_engines_words() -> None:
    cluster = await fleet()
    async with ScriptedJudge(says("I cannot say.")) as judge:
        port = int(judge.url.rpartition(":")[2])
        slice_ = {"metadata": {"name": "a", "namespace": "rl"}}
        await cluster.put(ENDPOINT_SLICES, slice_ | endpoint_slice("judge-1", port=port, address="127.0.0.{}"))
        judgement = await smoke(cluster, "judge", "rl", 10, lambda _: None)
    assert judgement is not None and judgement.outcome is Outcome.PARSE_FAILED
    assert "I cannot say." in outcome(judgement)


@pytest.mark.parametrize(
    ("scoring", "said"),
    [
        ({"mode": "pairwise"}, "<result>A</result>"),
        ({"mode": "pairwise", "judge": "pairwise-abtie"}, "<result>tie</result>"),
        ({"mode": "listwise", "judge": "listwise-ranking"}, "<ranking>1, 2</ranking>"),
    ],
    ids=str,
)
async def test_a_model_that_compares_is_asked_about_two(scoring: dict[str, str], said: str) -> None:
    cluster = await fleet(scoring=scoring)
    async with ScriptedJudge(says(said)) as judge:
        port = int(judge.url.rpartition(":")[2])
        slice_ = {"metadata": {"name": "a", "namespace": "rl"}}
        await cluster.put(ENDPOINT_SLICES, slice_ | endpoint_slice("judge-1", port=port, address="127.0.0.{}"))
        judgement = await smoke(cluster, "judge", "rl", 10, lambda _: None)
    assert judgement is not None and judgement.outcome is Outcome.OK, judgement
    assert all(text in str(judge.requests[0]) for text in (SAMPLE.response, OTHER))


@pytest.mark.parametrize(("engine", "asked"), [("vllm", ["/classify"]), ("sglang", ["/tokenize", "/classify"])])
async def test_a_classifier_is_asked_for_its_number(engine: str, asked: list[str]) -> None:
    cluster = await fleet(type="Classifier", engine={"name": engine})
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.json_response({"data": [{"probs": [2.5]}], "embedding": [2.5], "tokens": [1]})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        slice_ = endpoint_slice("judge-1", port=runner.addresses[0][1], address="127.0.0.{}")
        await cluster.put(ENDPOINT_SLICES, {"metadata": {"name": "a", "namespace": "rl"}} | slice_)
        judgement = await smoke(cluster, "judge", "rl", 10, lambda _: None)
    finally:
        await runner.cleanup()
    assert judgement is not None and judgement.verdict is not None, judgement
    assert (judgement.verdict.value, paths) == (2.5, asked)


def test_it_needs_no_more_than_the_operators_image_has() -> None:
    """Which is what the chart runs it in."""
    absent = "import sys; sys.modules.update(dict.fromkeys(('numpy', 'fastapi', 'hydra', 'math_verify')))"
    subprocess.run([sys.executable, "-c", f"{absent}; import genrm_scoring.smoke"], check=True)


async def test_labels_that_are_no_tokens_are_told_instead_of_being_asked_about() -> None:
    cluster = await fleet(scoring={"template": "{{ response }}", "parse": {"kind": "logprob"}})
    (key,) = (key for key in cluster.objects if key[0] == str(REWARD_MODELS))
    found = {
        "type": "ScoringValid", "status": "False", "reason": "LabelNotOneToken", "message": "'9' is two tokens",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }  # fmt: skip
    await cluster.put(REWARD_MODELS, cluster.objects[key] | {"status": {"conditions": [found]}})
    await cluster.put(ENDPOINT_SLICES, {"metadata": {"name": "a", "namespace": "rl"}} | endpoint_slice("judge-1"))
    with pytest.raises(LabelsSplit, match="'9' is two tokens"):
        await smoke(cluster, "judge", "rl", 10, lambda _: None)


@pytest.mark.parametrize("target", ["judge", "rl/", "/judge"])
def test_a_target_without_a_namespace_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([target])
    assert "is no NAMESPACE/NAME" in capsys.readouterr().err
