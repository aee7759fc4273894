"""Engines that compute something else than before, behind the real door: they do not serve, and it is said why."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytest
from genrm_api.judging import CanaryPair
from genrm_api.names import golden_configmap_name
from genrm_api.rewardmodel import EngineName, RewardModel
from genrm_api.status import Reason
from genrm_operator import golden
from genrm_operator.canary import Ask, Canary, Recordings, canary_of, judge_scores
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.errors import ApiError, EngineError, NotFound, ScoresDiffer, WorsePreferred
from genrm_operator.golden import TEXTS
from genrm_operator.kube import Kube
from genrm_operator.observed import Transition
from genrm_operator.transitions import Target
from genrm_operator.transitions import run as run_transition

from tests.simulator import client
from tests.simulator.client import Simulator
from tests.unit.operator.test_transitions import KINDS, TOKEN, truth
from tests.unit.operator.test_transitions import target as bare_target

ADDRESS = "127.77.3.4"  # of this test alone, because doors listen on a fixed port
GENERATIVE = ["vllm", "sglang"]
SCORES_AT = {"vllm": "/v1/completions", "vllm-pooling": "/classify", "sglang": "/generate"}
PAIR = CanaryPair(prompt="How much is 3 + 3?", better="It is 6.", worse="It is 7.")
"""As every simulated engine has it, while it is not corrupt."""
WRONG = CanaryPair(prompt=PAIR.prompt, better=PAIR.worse, worse=PAIR.better)


def model(**spec: Any) -> RewardModel:
    whole = {"model": {"uri": "hf://a/b"}, **spec}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": whole})


RM, VERIFIED = model(), model(lifecycle={"wake": {"verify": True}})


class Maps:
    """The API server, as far as ConfigMaps go."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.down = False

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.there:
            raise NotFound(f"GET {kind} {name}", 404, "not found")
        return self.there[name]

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.down:
            raise ApiError("PATCH ConfigMap", 503, "down")
        self.there[manifest["metadata"]["name"]] = json.loads(json.dumps(manifest))
        return self.there[manifest["metadata"]["name"]]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--host", ADDRESS, port=8000) as simulator:
        yield simulator


@pytest.fixture
def maps() -> Maps:
    return Maps()


async def started(
    simulator: Simulator,
    kind: str,
    maps: Maps,
    known: Recordings | None = None,
    *,
    name: str = "judge-0",
    pairs: Sequence[CanaryPair] = (),
    rows: bool = True,
) -> Target:
    """A pod whose engine has just started, as the reconciler sees it after its look."""
    made = bare_target(simulator, kind, address=ADDRESS)
    async with Doors() as doors:
        door = await doors.look(made.pod, TOKEN)
    pod = dataclasses.replace(made.pod, name=name, uid=name, door=door)
    canary = Canary(cast("Kube", maps), made.rm, made.adapter, known or Recordings(), "rev", rows, pairs)
    return dataclasses.replace(made, pod=pod, canary=canary)


async def run(transition: Transition, target: Target, doors: Doors) -> None:
    """As the reconciler begins it: with what the door says now."""
    door = await doors.look(target.pod, TOKEN)
    await run_transition(transition, dataclasses.replace(target, pod=dataclasses.replace(target.pod, door=door)), doors)


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
        second = await started(simulator, kind, maps, name="judge-1")  # and nothing remembered
        simulator.put(ADDRESS, faults={"corrupt": True})
        with pytest.raises(ScoresDiffer, match="No third pod has decided which of the two is right"):
            await run(Transition.VERIFY, second, doors)
        simulator.put(ADDRESS, faults={})
        await run(Transition.VERIFY, second, doors)
        (recorded,) = maps.there[golden_configmap_name("judge")]["data"].values()
        assert [one["agreed"] for one in json.loads(recorded)] == [True], "and what it said before is taken back"


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
        await run_transition(Transition.VERIFY, other, doors)
    assert len(maps.there[golden_configmap_name("judge")]["data"]) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_corrupt_first_engine_is_outvoted_by_two_others_and_asked_again(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    known = Recordings()
    async with Doors() as doors:
        first = await started(simulator, kind, maps, known)
        simulator.put(ADDRESS, faults={"corrupt": True})
        await run(Transition.VERIFY, first, doors)
        assert judge_scores(VERIFIED, [first.pod], known) == [first.pod]
        second = await started(simulator, kind, maps, known, name="judge-1")
        with pytest.raises(ScoresDiffer):
            await run(Transition.VERIFY, second, doors)
        check = known.checks["judge-0"]
        assert (check.fine, check.reason) == (True, Reason.SCORES_DISPUTED)
        assert "pod judge-1 computed something else" in check.message
        third = await started(simulator, kind, maps, known, name="judge-2")
        await run(Transition.VERIFY, third, doors)
        check = known.checks["judge-0"]
        assert not check.fine and "than pod judge-1 did" in check.message
        (judged,) = judge_scores(VERIFIED, [first.pod], known)
        assert judged.outvoted
        assert not judge_scores(VERIFIED, [third.pod], known)[0].outvoted
        simulator.put(ADDRESS, faults={"corrupt": True})  # the simulator plays the first one again
        with pytest.raises(ScoresDiffer, match=r"than pod judge-1 did at .*, and another pod since"):
            await run(Transition.WAKE, first, doors)
        # Another operator process knows it from what was written down.
        again = Recordings(by_key=golden.read(maps.there[golden_configmap_name("judge")]))
        assert judge_scores(VERIFIED, [first.pod], again)[0].outvoted
        assert not judge_scores(RM, [first.pod], again)[0].outvoted, "nobody wants them compared any more"


async def test_two_pods_that_start_together_record_once(simulator: Simulator, maps: Maps) -> None:
    known = Recordings()
    async with Doors() as doors:
        first = await started(simulator, "vllm", maps, known)
        second = dataclasses.replace(first, pod=dataclasses.replace(first.pod, uid="second", name="second"))
        await asyncio.gather(run(Transition.VERIFY, first, doors), run(Transition.VERIFY, second, doors))
    messages = sorted(check.message for check in known.checks.values())
    assert "answers as pod" in messages[0] and "computes what another pod has computed since" in messages[1]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_that_woke_by_itself_is_compared_before_it_serves(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    target = await started(simulator, kind, maps)
    async with Doors() as doors:
        await run(Transition.VERIFY, target, doors)
        await run(Transition.WAKE, target, doors)
        await run(Transition.SLEEP, target, doors)
        for call in target.adapter.wake(target.rm):
            await doors.call_engine(target.pod, TOKEN, call)
        simulator.put(ADDRESS, faults={"corrupt": True})
        with pytest.raises(ScoresDiffer):
            await run(Transition.WAKE, target, doors)


async def test_what_one_pod_alone_says_is_not_called_confirmed(simulator: Simulator, maps: Maps) -> None:
    known = Recordings()
    async with Doors() as doors:
        first = await started(simulator, "vllm", maps, known)
        await run(Transition.VERIFY, first, doors)
        assert (check := known.checks["judge-0"]).reason is Reason.NOT_CONFIRMED
        assert "no other pod was there to confirm it" in check.message
        await run(Transition.SLEEP, first, doors)
        await run(Transition.WAKE, first, doors)
        assert (check := known.checks["judge-0"]).reason is Reason.NOT_CONFIRMED, "it is the same voice"
        assert "which no other pod has confirmed yet" in check.message
        again = await started(simulator, "vllm", maps, known)
        await run(Transition.VERIFY, again, doors)
        assert known.checks["judge-0"].reason is Reason.NOT_CONFIRMED, "and its container's next start is no other one"
        await run(Transition.VERIFY, await started(simulator, "vllm", maps, known, name="judge-1"), doors)
    assert {check.reason for check in known.checks.values()} == {Reason.AS_RECORDED}


async def test_what_could_not_be_written_down_is_found_out_anew(simulator: Simulator, maps: Maps) -> None:
    known = Recordings()
    async with Doors() as doors:
        first = await started(simulator, "vllm", maps, known)
        second = await started(simulator, "vllm", maps, known, name="judge-1")
        for target, agreed in ((first, False), (second, True)):
            maps.down = True
            with pytest.raises(ApiError):
                await run(Transition.VERIFY, target, doors)
            maps.down = False
            await run(Transition.VERIFY, target, doors)
            assert known.by_key == golden.read(maps.there[golden_configmap_name("judge")])
            assert [one.agreed for recordings in (known.by_key or {}).values() for one in recordings] == [agreed]


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
    assert check.reason is Reason.NOT_COMPARED and "answered 400" in check.message
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


@pytest.mark.parametrize("kind", KINDS)
async def test_pairs_are_asked_after_a_start_and_after_each_wake(simulator: Simulator, kind: str, maps: Maps) -> None:
    target = await started(simulator, kind, maps, pairs=[PAIR], rows=False)
    assert target.canary is not None
    async with Doors() as doors:
        await run(Transition.VERIFY, target, doors)
        await run(Transition.WAKE, target, doors)
        (check,) = target.canary.known.checks.values()
        assert (check.reason, check.message) == (
            Reason.BETTER_PREFERRED,
            "prefers the better response of each of 1 pairs",
        )
        assert not maps.there, "no rows are asked for, and none are recorded"
        await run(Transition.SLEEP, target, doors)
        simulator.put(ADDRESS, faults={"corrupt": True})
        with pytest.raises(WorsePreferred, match=r"spec\.scoring\.canary\.pairs\[0\]: .* -?\d\.\d+, .* -?\d\.\d+"):
            await run(Transition.WAKE, target, doors)
        assert truth(simulator, ADDRESS)["state"] == "closed"
        (check,) = target.canary.known.checks.values()
        assert check.reason is Reason.WORSE_PREFERRED
        simulator.put(ADDRESS, faults={})
        await run(Transition.WAKE, target, doors)
        assert truth(simulator, ADDRESS)["state"] == "serving"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pair_that_its_user_wrote_the_wrong_way_round_is_named(
    simulator: Simulator, kind: str, maps: Maps
) -> None:
    target = await started(simulator, kind, maps, pairs=[PAIR, WRONG])
    async with Doors() as doors:
        with pytest.raises(WorsePreferred, match=r"spec\.scoring\.canary\.pairs\[1\]"):
            await run(Transition.VERIFY, target, doors)
    assert maps.there, "its rows were recorded before: they are the same whatever a pair says"


async def test_rows_and_pairs_are_both_told(simulator: Simulator, maps: Maps) -> None:
    target = await started(simulator, "vllm", maps, pairs=[PAIR])
    assert target.canary is not None
    async with Doors() as doors:
        await run(Transition.VERIFY, target, doors)
    (check,) = target.canary.known.checks.values()
    assert check.reason is Reason.NOT_CONFIRMED
    assert "no other pod was there to confirm it; prefers the better response" in check.message


@pytest.mark.parametrize("route", ["/tokenize", "rows"])
@pytest.mark.parametrize("kind", SCORES_AT)
async def test_an_engine_that_cannot_be_asked_a_pair_serves_and_it_is_said(
    simulator: Simulator, kind: str, route: str, maps: Maps
) -> None:
    target = await started(simulator, kind, maps, pairs=[PAIR], rows=False)
    assert target.canary is not None
    async with Doors() as doors:
        simulator.put(ADDRESS, faults={"status": {SCORES_AT[kind] if route == "rows" else route: 500}})
        with pytest.raises(EngineError, match="answered 500"):
            await target.canary.ask(target.pod, target_ask(target, doors), None, woken=False)
        simulator.put(ADDRESS, faults={"status": {SCORES_AT[kind] if route == "rows" else route: 400}})
        await target.canary.ask(target.pod, target_ask(target, doors), None, woken=False)
    (check,) = target.canary.known.checks.values()
    assert check.reason is Reason.NOT_COMPARED and "answered 400" in check.message
    assert check.message.startswith("cannot be asked spec.scoring.canary.pairs[0], and serves: ")


def target_ask(target: Target, doors: Doors) -> Ask:
    return partial(doors.call_engine, target.pod, TOKEN, timeout=5.0)


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        ({}, None),
        ({"lifecycle": {"wake": {"verify": True}}}, (True, 0)),
        ({"scoring": {"canary": {"pairs": [PAIR.model_dump()]}}}, (False, 1)),
        ({"lifecycle": {"wake": {"verify": True}}, "scoring": {"canary": {"pairs": [PAIR.model_dump()]}}}, (True, 1)),
    ],
)
def test_what_is_asked_is_what_the_spec_says(spec: dict[str, Any], asks: tuple[bool, int] | None, maps: Maps) -> None:
    canary = canary_of(cast("Kube", maps), model(**spec), adapter_for(EngineName.VLLM), Recordings(), None, ())
    assert (canary and (canary.rows, len(canary.pairs))) == asks
    custom = canary_of(cast("Kube", maps), model(**spec), adapter_for(EngineName.CUSTOM), Recordings(), None, ())
    assert custom is None
