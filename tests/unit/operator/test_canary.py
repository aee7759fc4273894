"""Engines that compute something else than before, behind the real door: they do not serve, and it is said why."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from genrm_api.names import golden_configmap_name
from genrm_operator.canary import Canary, Recordings
from genrm_operator.doors import Doors
from genrm_operator.errors import EngineError, NotFound, ScoresDiffer
from genrm_operator.golden import TEXTS
from genrm_operator.kube import Kube
from genrm_operator.observed import Transition
from genrm_operator.transitions import Target, run

from tests.simulator import client
from tests.simulator.client import Simulator
from tests.unit.operator.test_transitions import KINDS, TOKEN, truth
from tests.unit.operator.test_transitions import target as bare_target

ADDRESS = "127.77.3.4"  # of this test alone, because doors listen on a fixed port
GENERATIVE = ["vllm", "sglang"]


class Maps:
    """The API server, as far as ConfigMaps go."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise NotFound(f"GET {kind} {name}", 404, "not found")
        return self.there[name]

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.there[manifest["metadata"]["name"]] = json.loads(json.dumps(manifest))
        return self.there[manifest["metadata"]["name"]]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--host", ADDRESS, port=8000) as simulator:
        yield simulator


@pytest.fixture
def maps() -> Maps:
    return Maps()


async def started(simulator: Simulator, kind: str, maps: Maps, known: Recordings | None = None) -> Target:
    """A pod whose engine has just started, as the reconciler sees it after its look."""
    made = bare_target(simulator, kind, address=ADDRESS)
    async with Doors() as doors:
        pod = dataclasses.replace(made.pod, door=await doors.look(made.pod, TOKEN))
    canary = Canary(cast("Kube", maps), made.rm, made.adapter, known or Recordings(), "rev")
    return dataclasses.replace(made, pod=pod, canary=canary)


def asked(simulator: Simulator) -> int:
    """How often it computed."""
    return sum(call["scoring"] for call in truth(simulator, ADDRESS)["calls"])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_that_wakes_corrupt_does_not_serve_until_it_is_well_again(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    target = await started(simulator, kind, maps)
    assert target.canary is not None
    async with Doors() as doors:
        await run(Transition.VERIFY, target, doors)
        await run(Transition.WAKE, target, doors)
        await run(Transition.SLEEP, target, doors)
        simulator.put(ADDRESS, faults={"corrupt": True})
        for _ in range(2):  # it is asked again, also by a wake that finds it awake
            with pytest.raises(ScoresDiffer, match=r"computes other scores than pod .* are allowed"):
                await run(Transition.WAKE, target, doors)
            assert (truth(simulator, ADDRESS)["state"], truth(simulator, ADDRESS)["asleep"]) == ("closed", False)
        (check,) = target.canary.known.checks.values()
        assert not check.fine and "delete ConfigMap judge-golden-rows" in check.message
        simulator.put(ADDRESS, faults={})
        await run(Transition.WAKE, target, doors)
        assert truth(simulator, ADDRESS)["state"] == "serving"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_start_is_compared_with_the_first_also_by_another_operator_process(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    async with Doors() as doors:
        first = await started(simulator, kind, maps)
        await run(Transition.VERIFY, first, doors)
        second = await started(simulator, kind, maps)  # another boot, and nothing remembered
        simulator.put(ADDRESS, faults={"corrupt": True})
        with pytest.raises(ScoresDiffer, match="which no other engine has confirmed"):
            await run(Transition.VERIFY, second, doors)
        simulator.put(ADDRESS, faults={})
        await run(Transition.VERIFY, second, doors)
        (recorded,) = maps.there[golden_configmap_name("judge")]["data"].values()
        assert json.loads(recorded)["agreed"], "two starts have computed the same"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_asks_all_rows_and_a_generative_models_wake_one(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    known = Recordings()
    async with Doors() as doors:
        await run(Transition.VERIFY, await started(simulator, kind, maps, known), doors)
        target = await started(simulator, kind, maps, known)
        before = asked(simulator)
        warm_up = kind.startswith("sglang")
        await run(Transition.VERIFY, target, doors)
        assert asked(simulator) - before == len(TEXTS) + warm_up
        await run(Transition.WAKE, target, doors)
        assert asked(simulator) - before == len(TEXTS) + warm_up * 2, "it has not slept: it is not asked again"
        await run(Transition.SLEEP, target, doors)
        before = asked(simulator)
        await run(Transition.WAKE, target, doors)
        assert asked(simulator) - before == (1 if kind in GENERATIVE else len(TEXTS))


async def test_engines_of_another_kind_record_their_own(simulator: Simulator, maps: Maps) -> None:
    known = Recordings()
    async with Doors() as doors:
        target = await started(simulator, "vllm", maps, known)
        await run(Transition.VERIFY, target, doors)
        simulator.put(ADDRESS, faults={"corrupt": True})
        door = dataclasses.replace(target.pod.door, device="another GPU") if target.pod.door else None
        other = dataclasses.replace(target, pod=dataclasses.replace(target.pod, uid="other", door=door))
        await run(Transition.VERIFY, other, doors)
    assert len(maps.there[golden_configmap_name("judge")]["data"]) == 2


async def test_two_pods_that_start_together_record_once(simulator: Simulator, maps: Maps) -> None:
    known = Recordings()
    async with Doors() as doors:
        first = await started(simulator, "vllm", maps, known)
        second = dataclasses.replace(first, pod=dataclasses.replace(first.pod, uid="second", name="second"))
        await asyncio.gather(run(Transition.VERIFY, first, doors), run(Transition.VERIFY, second, doors))
    messages = sorted(check.message for check in known.checks.values())
    assert "answers as pod" in messages[0] and "nobody was there to compare with" in messages[1]


async def test_recordings_that_somebody_changed_are_made_anew(simulator: Simulator, maps: Maps) -> None:
    async with Doors() as doors:
        await run(Transition.VERIFY, await started(simulator, "vllm", maps), doors)
        data = maps.there[golden_configmap_name("judge")]["data"]
        for key in data:
            data[key] = data[key].replace("-", "+")
        await run(Transition.VERIFY, await started(simulator, "vllm", maps), doors)
    assert not any("+" in text for text in maps.there[golden_configmap_name("judge")]["data"].values())


async def test_an_engine_without_such_answers_serves_and_it_is_said(simulator: Simulator, maps: Maps) -> None:
    target = await started(simulator, "vllm", maps)
    assert target.canary is not None
    simulator.put(ADDRESS, faults={"status": {"/v1/completions": 400}})
    async with Doors() as doors:
        await run(Transition.VERIFY, target, doors)
        await run(Transition.WAKE, target, doors)
    (check,) = target.canary.known.checks.values()
    assert check.fine and not check.compared and "answered 400" in check.message
    assert not maps.there


async def test_an_engine_that_fails_to_answer_is_not_taken_for_one_that_cannot(
    simulator: Simulator, maps: Maps
) -> None:
    target = await started(simulator, "vllm", maps)
    simulator.put(ADDRESS, faults={"status": {"/v1/completions": 500}})
    async with Doors() as doors:
        with pytest.raises(EngineError, match="answered 500"):
            await run(Transition.VERIFY, target, doors)
    assert not maps.there
