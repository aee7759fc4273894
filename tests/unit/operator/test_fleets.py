"""What is said about a RewardFleet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from genrm_api.rewardfleet import RewardFleetStatus
from genrm_api.status import Reason
from genrm_operator.cache import Cache
from genrm_operator.errors import Forbidden, KindAbsent
from genrm_operator.fleets import Fleets, fleet_status
from genrm_operator.kube import Kube

from tests.unit.operator.conftest import Server, absent

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
RULE = {"name": "right", "rule": {"kind": "exact"}}


def term(model: str, name: str = "") -> dict[str, Any]:
    return {"name": name or model, "rewardModel": {"name": model}}


def fleet(*terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "mix", "namespace": "rl", "generation": 3}, "spec": {"terms": list(terms)}, **more}


def model(ready: str | None = "True", degraded: str = "False") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}, {"type": "Degraded", "status": degraded}]
    return {"status": {"conditions": conditions}} if ready is not None else {}


@pytest.mark.parametrize(
    ("found", "models", "phase", "reason", "counts", "sentence"),
    [
        (fleet(RULE), {}, "Ready", Reason.AS_EXPECTED, (0, 0), "no term names"),
        (fleet(RULE, term("a"), term("b")), {"a": model(), "b": model()}, "Ready", Reason.AS_EXPECTED, (2, 2), "all 2"),
        (fleet(term("a", "x"), term("a", "y")), {"a": model()}, "Ready", Reason.AS_EXPECTED, (1, 1), "all 1"),
        (fleet(term("a"), term("b")), {"a": model()}, "Degraded", Reason.MODEL_MISSING, (2, 1), "no RewardModel b"),
        (fleet(term("a")), {"a": model("False", "True")}, "Degraded", Reason.MODEL_DEGRADED, (1, 0), "describe rm a"),
        (fleet(term("a")), {"a": model("False")}, "Waiting", Reason.MODEL_NOT_READY, (1, 0), "a is not Ready"),
        (fleet(term("a")), {"a": model(None)}, "Waiting", Reason.MODEL_NOT_READY, (1, 0), "a is not Ready"),
        (fleet({"name": "a"}), {}, "Degraded", Reason.UNREADABLE, (0, 0), "names none or several"),
    ],
)
def test_a_fleet_is_as_ready_as_its_models(
    found: Any, models: Any, phase: str, reason: Reason, counts: tuple[int, int], sentence: str
) -> None:
    status = fleet_status(found, models, NOW)
    RewardFleetStatus.model_validate(status)
    (condition,) = status["conditions"]
    assert (status["phase"], condition["reason"], (status["models"], status["ready"])) == (phase, reason, counts)
    assert condition["status"] == str(phase == "Ready") and sentence in condition["message"]
    assert status["observedGeneration"] == condition["observedGeneration"] == 3


def test_the_time_is_that_of_the_last_change() -> None:
    first = fleet_status(fleet(RULE), {}, NOW)
    later = fleet_status(fleet(RULE, status=first), {}, NOW.replace(hour=13))
    assert later == first
    worse = fleet_status(fleet(term("a"), status=first), {}, NOW.replace(hour=14))
    assert worse["conditions"][0]["lastTransitionTime"] == "2026-11-22T14:00:00Z"


async def test_only_what_differs_is_written(server: tuple[Server, Kube]) -> None:
    api, kube = server
    cache, written = Cache(), []
    stored = fleet(RULE, term("a"))

    def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"items": [stored]})
        written.append(request.path)
        return web.json_response(stored)

    api.answer = answer
    cache.reward_models["rl", "a"] = model()
    cache.reward_models["other", "b"] = model()
    fleets = Fleets(kube, cache, ())
    await fleets.look()
    assert written == ["/apis/genrm.dev/v1alpha1/namespaces/rl/rewardfleets/mix/status"]
    stored["status"] = fleet_status(stored, {"a": model()}, NOW)
    await fleets.look()
    assert len(written) == 1


async def test_each_namespace_that_is_watched_is_looked_at(server: tuple[Server, Kube]) -> None:
    api, kube = server
    api.answer = lambda _: web.Response(body=json.dumps({"items": []}), content_type="application/json")
    await Fleets(kube, Cache(), ("a", "b")).look()
    assert api.asked == [f"/apis/genrm.dev/v1alpha1/namespaces/{name}/rewardfleets" for name in "ab"]


async def test_a_cluster_without_the_resource_is_no_bug(server: tuple[Server, Kube]) -> None:
    api, kube = server
    api.answer = absent
    with pytest.raises(KindAbsent):
        await Fleets(kube, Cache(), ()).look()
    api.answer = lambda _: web.json_response({"kind": "Status", "message": "no"}, status=403)
    with pytest.raises(Forbidden):
        await Fleets(kube, Cache(), ()).look()


async def test_a_fleet_that_cannot_be_written_keeps_nothing_from_the_others(server: tuple[Server, Kube]) -> None:
    """The API server holds a status to all rules of the object, also of one that was made under older ones."""
    api, kube = server
    stored = [fleet(RULE), fleet(RULE)]
    for name, obj in zip("ab", stored, strict=True):
        obj["metadata"] |= {"name": name}

    def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"items": stored})
        return web.json_response({"kind": "Status", "message": "invalid"}, status=422 if "/a/" in request.path else 200)

    api.answer = answer
    await Fleets(kube, Cache(), ()).look()
    assert [path.split("/")[-2] for path in api.asked[1:]] == ["a", "b"]
