"""Targets of a cluster: found by name, woken by a Lease while somebody asks, opened anew when they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from genrm_api.names import ANNOTATION_PHASE
from genrm_gateway.catalog import ClusterCatalog, UnknownTarget
from genrm_scoring.cluster import ENDPOINT_SLICES, LEASES, REWARD_FLEETS, REWARD_MODELS
from genrm_scoring.errors import ClusterUnreachable
from genrm_scoring.targets import Means

from tests.unit.gateway.serving import EXACT, serving
from tests.unit.scoring.fake_cluster import FakeCluster
from tests.unit.scoring.scripted_judge import ScriptedJudge, says, streams
from tests.unit.scoring.stub_api import endpoint_slice

SOLUTION = {"solution_str": "2 + 2?4", "prompt_str": "2 + 2?", "ground_truth": "4"}


def judge_model(generation: int = 1, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "judge", "namespace": "rl", "uid": "u1", "generation": generation}
    return {"metadata": metadata, "spec": {"type": "Generative", "model": {"uri": "hf://a/b"}, **spec}}


def mixed(*terms: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    metadata = {"name": "mix", "namespace": "rl", "uid": "u2", "generation": generation}
    return {"metadata": metadata, "spec": {"terms": list(terms)}}


async def serve(cluster: FakeCluster, judge: ScriptedJudge) -> None:
    """The judge is a pod that serves."""
    slices = endpoint_slice("judge-1", port=urlsplit(judge.url).port or 0, address="127.0.0.{}")
    await cluster.put(ENDPOINT_SLICES, {"metadata": {"name": "s", "namespace": "rl"}, **slices})


def phases(cluster: FakeCluster) -> list[str]:
    leases = [o for (r, _, _), o in cluster.objects.items() if r == str(LEASES)]
    return [lease["metadata"]["annotations"][ANNOTATION_PHASE] for lease in leases]


@asynccontextmanager
async def gateway_of(
    cluster: FakeCluster, default: str | None = "judge", refresh: float = 30.0
) -> AsyncIterator[httpx.AsyncClient]:
    async def open_catalog() -> ClusterCatalog:
        return ClusterCatalog(cluster, "rl", Means(), "gateway-test", default, refresh=refresh, linger=0.05)

    async with serving(open_catalog) as client:
        yield client


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def test_a_request_waits_for_the_wake_that_it_asks_for(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_MODELS, judge_model())
    async with ScriptedJudge(says(r"\boxed{True}")) as judge, gateway_of(cluster) as gateway:
        asked = asyncio.create_task(gateway.post("/get_reward2", json=SOLUTION))
        await cluster.until(lambda: phases(cluster) == ["scoring"], 30)
        assert not judge.requests and not asked.done()
        await serve(cluster, judge)
        assert (await asked).json() == {"score": 1.0}
        await cluster.until(lambda: phases(cluster) == [], 30)  # released when nobody has asked for a while
        again = await gateway.post("/judge/v1/chat/completions", json={"model": "judge", "messages": []})
        assert again.status_code == 200 and len(judge.requests) == 2
    assert phases(cluster) == []


async def test_a_model_whose_labels_are_no_tokens_answers_those_who_pass_its_judge_by(cluster: FakeCluster) -> None:
    labels = {"kind": "logprob", "values": {"good": 1, "bad": 0}}
    found = {
        "type": "ScoringValid", "status": "False", "reason": "LabelNotOneToken", "observedGeneration": 1,
        "message": "spec.scoring.parse.values: 'good' is more than one token",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }  # fmt: skip
    model = judge_model(scoring={"template": "{{ response }}", "parse": labels})
    await cluster.put(REWARD_MODELS, model | {"status": {"conditions": [found]}})
    async with ScriptedJudge(says("good")) as judge, gateway_of(cluster) as gateway:
        await serve(cluster, judge)
        for asked in ({"json": SOLUTION}, {"json": SOLUTION | {"group_size": 1}}):
            refused = await gateway.post("/get_reward2", **asked)
            assert (refused.status_code, "'good' is more than one token" in refused.text) == (501, True), refused.text
        assert not judge.requests
        passed = await gateway.post("/judge/v1/chat/completions", json={"model": "judge", "messages": []})
        assert passed.status_code == 200 and len(judge.requests) == 1


STREAM = {"model": "judge", "messages": [], "stream": True}


async def test_a_stream_waits_for_the_wake_and_keeps_awake_until_it_ends(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_MODELS, judge_model())
    more = asyncio.Event()
    async with (
        ScriptedJudge(streams(b"data: {}\n\n", more, b"data: [DONE]\n\n")) as judge,
        gateway_of(cluster) as gateway,
    ):
        asked = asyncio.create_task(gateway.post("/v1/chat/completions", json=STREAM))
        await cluster.until(lambda: phases(cluster) == ["scoring"], 30)
        assert not judge.requests and not asked.done()
        await serve(cluster, judge)
        await asyncio.wait_for(judge.asked.wait(), 30)
        await groups_waiting(gateway, 0)
        assert phases(cluster) == ["scoring"] and not asked.done()
        more.set()
        assert (await asked).text == "data: {}\n\ndata: [DONE]\n\n"
        await cluster.until(lambda: phases(cluster) == [], 30)


@pytest.mark.parametrize("stream", [True, False])
async def test_who_waits_for_a_wake_that_does_not_come_is_told_so_at_the_deadline(
    cluster: FakeCluster, stream: bool
) -> None:
    await cluster.put(REWARD_MODELS, judge_model(scoring={"timeout": "1s"}))
    async with gateway_of(cluster) as gateway:
        reply = await gateway.post("/v1/chat/completions", json={**STREAM, "stream": stream})
        score = await gateway.post("/get_reward2", json=SOLUTION)
    for answer in (reply, score):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["outcome"] == "asleep"


async def groups_waiting(gateway: httpx.AsyncClient, number: int) -> None:
    async with asyncio.timeout(30):
        while f"genrm_gateway_groups_waiting {number}.0" not in (await gateway.get("/metrics")).text:
            pass


@pytest.mark.parametrize("scoring", [{}, {"mode": "pairwise"}, {"mode": "listwise"}])
async def test_the_wake_begins_with_the_first_member_of_a_group(cluster: FakeCluster, scoring: dict[str, Any]) -> None:
    await cluster.put(REWARD_MODELS, judge_model(scoring=scoring))
    said = says(r"\boxed{True} <result>tie</result> <ranking>1, 2</ranking>")
    async with ScriptedJudge(said) as judge, gateway_of(cluster) as gateway:
        first = asyncio.create_task(gateway.post("/get_reward2?group_size=2", json=SOLUTION))
        await cluster.until(lambda: phases(cluster) == ["scoring"], 30)
        await groups_waiting(gateway, 1)
        await serve(cluster, judge)
        second = await gateway.post("/get_reward2?group_size=2", json={**SOLUTION, "solution_str": "2 + 2?5"})
        assert (await first).status_code == second.status_code == 200
        await groups_waiting(gateway, 0)
        await cluster.until(lambda: phases(cluster) == [], 30)


async def test_a_group_ends_with_the_target_it_began_with(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_MODELS, judge_model())
    term = {"name": "judged", "rewardModel": {"name": "judge"}, "normalise": {"kind": "maxabs"}}
    await cluster.put(REWARD_FLEETS, mixed(term))
    said = says(r"\boxed{True}")
    async with ScriptedJudge(said) as judge, gateway_of(cluster, "mix", refresh=0.0) as gateway:
        first = asyncio.create_task(gateway.post("/get_reward2?group_size=2", json=SOLUTION))
        await groups_waiting(gateway, 1)
        await cluster.put(REWARD_FLEETS, mixed({**term, "weight": 3}, generation=2))
        await serve(cluster, judge)
        alone = await gateway.post("/get_reward2", json=SOLUTION)
        second = await gateway.post("/get_reward2?group_size=2", json=SOLUTION)
        found = [reply.json()["score"] for reply in (await first, second, alone)]
    assert found == [1.0, 1.0, 3.0]


async def test_a_fleet_asks_its_models_and_wakes_each(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_MODELS, judge_model())
    term = {"name": "judged", "rewardModel": {"name": "judge"}, "weight": 0.5}
    await cluster.put(REWARD_FLEETS, mixed(EXACT, term))
    async with ScriptedJudge(says(r"\boxed{True}")) as judge, gateway_of(cluster, "mix") as gateway:
        await serve(cluster, judge)
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 1.5
        assert any(verb == "create" for verb, _ in cluster.calls)


async def test_nobody_is_woken_for_a_fleet_of_rules(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_FLEETS, mixed(EXACT))
    async with gateway_of(cluster, "mix") as gateway:
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 1.0
    assert not [verb for verb, _ in cluster.calls if verb == "create"]


async def test_what_changes_is_opened_anew(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_FLEETS, mixed(EXACT))
    async with gateway_of(cluster, "mix", refresh=0.0) as gateway:
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 1.0
        await cluster.put(REWARD_FLEETS, mixed({**EXACT, "weight": 3}, generation=2))
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 3.0
        await cluster.remove(REWARD_FLEETS, "rl", "mix")
        assert (await gateway.post("/get_reward2", json=SOLUTION)).status_code == 404


async def test_what_is_known_is_not_asked_for_again(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_FLEETS, mixed(EXACT))
    async with gateway_of(cluster, "mix") as gateway:
        for _ in range(3):
            await gateway.post("/get_reward2", json=SOLUTION)
    assert cluster.calls == [("get", "mix")] * 2, "as a model, then as a fleet, once"


@pytest.mark.parametrize(
    ("resources", "name", "status", "sentence"),
    [
        ([], "judge", 404, "there is no RewardModel or RewardFleet judge in namespace rl"),
        ([(REWARD_MODELS, judge_model())], "judg", 404, "did you mean judge?"),
        ([(REWARD_FLEETS, mixed({"name": "j", "rewardModel": {"name": "judge"}}))], "mix", 404, "no RewardModel judge"),
        ([(REWARD_MODELS, judge_model(lifecycle={"state": "Off"}))], "judge", 501, "set it to Auto"),
        (
            [(REWARD_FLEETS, mixed({**EXACT, "normalise": {"kind": "zscore", "scope": "running"}}))],
            "mix",
            501,
            "write group",
        ),
    ],
)
async def test_what_cannot_be_asked_is_said(
    cluster: FakeCluster, resources: list[Any], name: str, status: int, sentence: str
) -> None:
    for resource, obj in resources:
        await cluster.put(resource, obj)
    async with gateway_of(cluster) as gateway:
        reply = await gateway.post(f"/{name}/get_reward2", json=SOLUTION)
    assert reply.status_code == status and sentence in reply.text


async def test_openai_clients_find_the_models_of_the_namespace(cluster: FakeCluster) -> None:
    for name, namespace, spec in [
        ("judge", "rl", {}),
        ("critic", "rl", {}),
        ("off", "rl", {"lifecycle": {"state": "Off"}}),
        ("unreadable", "rl", {"type": "Oracle"}),
        ("foreign", "other", {}),
    ]:
        found = judge_model(**spec)
        found["metadata"] |= {"name": name, "namespace": namespace}
        await cluster.put(REWARD_MODELS, found)
    async with gateway_of(cluster, None) as gateway:
        models = (await gateway.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["critic", "judge"]


async def test_a_cluster_that_is_away_is_a_503(cluster: FakeCluster) -> None:
    cluster.fail = ClusterUnreachable("https://fake:6443", "connection refused")
    async with gateway_of(cluster) as gateway:
        for reply in (await gateway.post("/get_reward2", json=SOLUTION), await gateway.get("/v1/models")):
            assert reply.status_code == 503 and "connection refused" in reply.text


async def test_what_was_known_is_asked_while_the_cluster_is_away(cluster: FakeCluster) -> None:
    await cluster.put(REWARD_FLEETS, mixed(EXACT))
    async with gateway_of(cluster, "mix", refresh=0.0) as gateway:
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 1.0
        cluster.fail = ClusterUnreachable("https://fake:6443", "connection refused")
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 1.0
        assert (await gateway.post("/other/get_reward2", json=SOLUTION)).status_code == 503
        cluster.fail = None
        await cluster.put(REWARD_FLEETS, mixed({**EXACT, "weight": 3}, generation=2))
        assert (await gateway.post("/get_reward2", json=SOLUTION)).json()["score"] == 3.0


async def test_names_that_are_none_leave_nothing_behind(cluster: FakeCluster) -> None:
    catalog = ClusterCatalog(cluster, "rl", Means(), "gateway-test")
    for number in range(3):
        with pytest.raises(UnknownTarget):
            await catalog.find(f"guess-{number}")
    assert not catalog._asking
    await catalog.close()
