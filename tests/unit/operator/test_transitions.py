"""Verify, sleep and wake, carried out on every simulated engine behind the real door."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from genrm_api.rewardmodel import Lifecycle, RewardModel
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.engines.adapter import Call
from genrm_operator.engines.vllm import Vllm
from genrm_operator.errors import Deposed, DoorUnreachable, DrainTimeout, EngineError, EngineHangs, NotVerified
from genrm_operator.observed import DoorState, Transition
from genrm_operator.transitions import LAG_SECONDS, Target, run

from tests.e2e.contract.dialects import DIALECTS
from tests.simulator import client
from tests.simulator.client import Simulator
from tests.unit.operator.test_lifecycle import make_pod

TOKEN = "operator"
ADDRESS = "127.77.3.1"  # of this test alone, because doors listen on a fixed port
KINDS = {
    "vllm": ("vllm", "Generative"),
    "vllm-pooling": ("vllm", "Classifier"),
    "sglang": ("sglang", "Generative"),
    "sglang-embedding": ("sglang", "Classifier"),
}
SGLANG = [kind for kind, (engine, _) in KINDS.items() if engine == "sglang"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--host", ADDRESS, port=8000) as simulator:
        yield simulator


def target(simulator: Simulator, kind: str, spec_type: str | None = None, address: str = ADDRESS) -> Target:
    """A pod that has just started."""
    settings = {
        "tokenSha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "engine": kind,
        "revision": uuid.uuid4().hex,
    }
    simulator.put(address, settings=settings, faults={})
    engine, fits = KINDS[kind]
    spec = {"type": spec_type or fits, "model": {"uri": "hf://a/b"}, "engine": {"name": engine}}
    rm = RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})
    return Target(rm, make_pod(ip=address), adapter_for(rm.spec.engine.name), TOKEN)


def truth(simulator: Simulator, address: str = ADDRESS) -> dict[str, Any]:
    pod = simulator.pod(address)
    assert pod["diedOf"] is None
    assert pod["violations"] == []
    return pod


@pytest.mark.parametrize("kind", KINDS)
async def test_three_nights(simulator: Simulator, kind: str) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.VERIFY, pod, doors)
        assert truth(simulator)["state"] == "closed"
        for _ in range(3):
            await run(Transition.WAKE, pod, doors)
            assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("serving", False)
            await run(Transition.SLEEP, pod, doors)
            assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("asleep", True)
        await run(Transition.SLEEP, pod, doors)
        assert truth(simulator)["asleep"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transition", [Transition.WAKE, Transition.SLEEP])
async def test_that_a_later_leader_has_been_there_is_no_failure_of_the_pod(
    simulator: Simulator, kind: str, transition: Transition
) -> None:
    pod = target(simulator, kind)
    async with Doors(epoch=lambda: 7) as leader, Doors(epoch=lambda: 6) as deposed:
        await run(Transition.WAKE, pod, leader)
        if transition is Transition.WAKE:
            await run(Transition.SLEEP, pod, leader)
        before = truth(simulator)["calls"]
        with pytest.raises(Deposed, match="pod judge-0 takes orders of epoch 7, and this one was 6"):
            await run(transition, pod, deposed)
        changing = [call["path"] for call in truth(simulator)["calls"][len(before) :] if call["method"] == "POST"]
        assert not changing
        await run(transition, pod, leader)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_sleep_gave_back_is_measured(simulator: Simulator, kind: str) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        await run(Transition.SLEEP, pod, doors)
        (good,) = pod.nights.values()
        assert good.before is not None and good.after is not None
        assert (good.before >> 30, good.after >> 30, good.effective) == (72, 2, True)
        await run(Transition.SLEEP, pod, doors)
        assert list(pod.nights.values()) == [good], "who sleeps has nothing to give"
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"keeps": 0.85})
        await run(Transition.SLEEP, pod, doors)
        (bad,) = pod.nights.values()
        assert bad.after is not None and (bad.after >> 30, bad.effective) == (61, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measured", [False, True])
async def test_what_a_sleep_kept_is_known_to_the_operator_that_comes_after_the_order(
    simulator: Simulator, kind: str, measured: bool
) -> None:
    """Its predecessor died when the engine slept, before or after it had measured that."""
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"keeps": 0.85})
        await doors.set_state(pod.pod, TOKEN, DoorState.DRAINING)
        await doors.device_memory(pod.pod, TOKEN)
        for call in pod.adapter.sleep(pod.rm):
            await doors.call_engine(pod.pod, TOKEN, call)
        if measured:
            await doors.device_memory(pod.pod, TOKEN)
        successor = dataclasses.replace(pod, nights={})
        await run(Transition.SLEEP, successor, doors)
        (night,) = successor.nights.values()
        assert ((night.before or 0) >> 30, (night.after or 0) >> 30, night.effective) == (72, 61, False)
        door = await doors.look(pod.pod, TOKEN)
        assert (door.state, door.last_night) == (DoorState.ASLEEP, night), "whoever comes after that reads it"
        simulator.put(ADDRESS, faults={})
        await run(Transition.WAKE, pod, doors)
        assert (await doors.look(pod.pod, TOKEN)).night is None, "it was that night's"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_engine_itself_takes_to_wake_is_measured(simulator: Simulator, kind: str) -> None:
    pod, now = target(simulator, kind), asyncio.get_running_loop().time
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        assert not pod.engine_wakes, "it was awake"
        await run(Transition.SLEEP, pod, doors)
        before = now()
        await run(Transition.WAKE, pod, doors)
        (began, ended) = pod.engine_wakes[pod.pod.uid]
        assert before < began < ended < now()


@pytest.mark.parametrize("kind", SGLANG)
async def test_an_engine_that_does_not_warm_up_by_itself_is_asked_before_it_serves(
    simulator: Simulator, kind: str
) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.VERIFY, pod, doors)
    asked = [call["path"] for call in truth(simulator)["calls"] if call["scoring"]]
    assert asked == ["/generate" if kind == "sglang" else "/classify"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("done", [0, 1, 2])
async def test_a_sleep_or_a_wake_that_was_cut_off_is_begun_again_at_any_point(
    simulator: Simulator, kind: str, done: int
) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        await doors.set_state(pod.pod, TOKEN, DoorState.DRAINING)
        for call in list(pod.adapter.sleep(pod.rm))[:done]:
            await doors.call_engine(pod.pod, TOKEN, call)
        for _ in range(2):
            await run(Transition.SLEEP, pod, doors)
            assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("asleep", True)
            assert not (await doors.look(pod.pod, TOKEN)).holds_memory, "paused is not yet released"
            for call in list(pod.adapter.wake(pod.rm))[:done]:  # nobody wants it any more, or wants it after all
                await doors.call_engine(pod.pod, TOKEN, call)
        await run(Transition.WAKE, pod, doors)
        assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("serving", False)


async def test_an_engine_has_as_long_as_the_spec_says(simulator: Simulator) -> None:
    pod = target(simulator, "vllm")
    lives = {"sleep": {"timeout": "100ms"}, "wake": {"timeout": "100ms"}}
    spec = pod.rm.spec.model_copy(update={"lifecycle": Lifecycle.model_validate(lives)})
    hurried = dataclasses.replace(pod, rm=pod.rm.model_copy(update={"spec": spec}))
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"hang": ["/sleep"]})
        with pytest.raises(DoorUnreachable, match=r"/sleep\S*: .*within 0\.1 s"):
            await run(Transition.SLEEP, hurried, doors)
        simulator.put(ADDRESS, faults={})
        await run(Transition.SLEEP, pod, doors)
        simulator.put(ADDRESS, faults={"hang": ["/wake_up"]})
        with pytest.raises(EngineHangs, match=r"/wake_up: .*within 0\.1 s"):
            await run(Transition.WAKE, hurried, doors)
        simulator.put(ADDRESS, faults={"refuse": True})
        with pytest.raises(DoorUnreachable):  # and so nobody knows whose fault it is
            await run(Transition.WAKE, hurried, doors)
        simulator.put(ADDRESS, faults={})
        await run(Transition.WAKE, pod, doors)
        assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("serving", False)


@pytest.mark.parametrize("kind", SGLANG)
async def test_a_sleep_that_ended_after_the_pause_is_woken(simulator: Simulator, kind: str) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        await doors.set_state(pod.pod, TOKEN, DoorState.DRAINING)
        await doors.call_engine(pod.pod, TOKEN, Call("POST", "/pause_generation", body={"mode": "abort"}))
        await run(Transition.WAKE, pod, doors)
        assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("serving", False)


@pytest.mark.parametrize("kind", SGLANG)
async def test_after_a_release_that_failed_nobody_serves_and_nobody_guesses(simulator: Simulator, kind: str) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"status": {"/release_memory_occupation": 400}})
        for transition in (Transition.SLEEP, Transition.SLEEP, Transition.WAKE):
            with pytest.raises(EngineError):
                await run(transition, pod, doors)
        assert truth(simulator)["state"] == "draining"


@pytest.mark.parametrize(("kind", "wrong"), [("sglang", "Classifier"), ("sglang-embedding", "Generative")])
async def test_a_model_of_the_wrong_kind_is_asked_nothing_and_never_serves(
    simulator: Simulator, kind: str, wrong: str
) -> None:
    """An embedding server would die of the first question that a generative one gets."""
    pod = target(simulator, kind, wrong)
    async with Doors() as doors:
        with pytest.raises(NotVerified, match=f"spec.type {wrong}"):
            await run(Transition.WAKE, pod, doors)
    assert truth(simulator)["state"] == "closed"
    assert not [call for call in truth(simulator)["calls"] if call["scoring"]]


@pytest.mark.parametrize(
    ("kind", "then"), [*((kind, "Serve") for kind in KINDS), ("vllm", "Abort"), ("vllm-pooling", "Abort")]
)
async def test_requests_that_stay_inside_keep_the_pod_awake_or_are_ended(
    simulator: Simulator, kind: str, then: str
) -> None:
    dialect, pod = DIALECTS[kind], target(simulator, kind)
    lives = {"sleep": {"drainTimeout": "100ms", "onDrainTimeout": then}}
    spec = pod.rm.spec.model_copy(update={"lifecycle": Lifecycle.model_validate(lives)})
    pod = dataclasses.replace(pod, rm=pod.rm.model_copy(update={"spec": spec}))
    async with Doors() as doors, httpx.AsyncClient(base_url=f"http://{ADDRESS}:8000", timeout=20) as clients:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"hang": [dialect.scores_at]})
        stays = asyncio.create_task(clients.post(dialect.scores_at, json=dialect.ask("x")))
        async with asyncio.timeout(20):
            while not truth(simulator)["inside"]:  # noqa: ASYNC110  (it is another process that knows)
                await asyncio.sleep(0.01)
        if then == "Serve":
            with pytest.raises(DrainTimeout, match=r"1 requests were still inside after 0\.1 s"):
                await run(Transition.SLEEP, pod, doors)
            assert (truth(simulator)["state"], truth(simulator)["inside"]) == ("serving", 1)
            simulator.put(ADDRESS, faults={})
            assert (await stays).status_code == 200
        else:
            assert await run(Transition.SLEEP, pod, doors) == 1
            assert ((await stays).status_code, truth(simulator)["state"]) == (503, "asleep")
            simulator.put(ADDRESS, faults={})
            await run(Transition.WAKE, pod, doors)
            assert (await clients.post(dialect.scores_at, json=dialect.ask("x"))).status_code == 200


class SleepsBadly(Vllm):
    """As if the version that the simulator says were one of those."""

    capabilities = dataclasses.replace(Vllm.capabilities, bad_series={(0, 32): "frees only a part"})


def with_lifecycle(pod: Target, **said: Any) -> Target:
    spec = pod.rm.spec.model_copy(update={"lifecycle": Lifecycle.model_validate(said)})
    return dataclasses.replace(pod, rm=pod.rm.model_copy(update={"spec": spec}))


async def test_a_version_that_sleeps_badly_is_not_told_to_when_the_spec_has_it_sleep_after_all(
    simulator: Simulator,
) -> None:
    pod = with_lifecycle(dataclasses.replace(target(simulator, "vllm"), adapter=SleepsBadly()), state="Awake")
    dialect = DIALECTS["vllm"]
    async with Doors() as doors, httpx.AsyncClient(base_url=f"http://{ADDRESS}:8000", timeout=20) as clients:
        await run(Transition.VERIFY, pod, doors)
        await run(Transition.WAKE, pod, doors)
        before = len(truth(simulator)["calls"])
        with pytest.raises(
            EngineError, match=r"judge-0: is not told to sleep, for it is version 0\.32\.0, which frees"
        ):
            await run(Transition.SLEEP, with_lifecycle(pod, state="Auto"), doors)
        assert [call["path"] for call in truth(simulator)["calls"][before:]] == ["/version"]
        assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("serving", False)
        assert (await clients.post(dialect.scores_at, json=dialect.ask("x"))).status_code == 200
        with pytest.raises(NotVerified, match="frees only a part"):
            await run(Transition.VERIFY, with_lifecycle(pod, state="Auto"), doors)


async def test_a_version_that_sleeps_badly_and_fell_asleep_by_itself_is_behind_a_shut_door(
    simulator: Simulator,
) -> None:
    pod = with_lifecycle(dataclasses.replace(target(simulator, "vllm"), adapter=SleepsBadly()), state="Awake")
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        assert simulator.past_the_door(ADDRESS, "POST", "/sleep") == 200
        seen = dataclasses.replace(pod.pod, door=await doors.look(pod.pod, TOKEN))
        await run(Transition.SLEEP, with_lifecycle(dataclasses.replace(pod, pod=seen), state="Auto"), doors)
        assert (truth(simulator)["state"], truth(simulator)["asleep"]) == ("asleep", True)


@pytest.mark.parametrize("kind", ["vllm", "vllm-pooling"])
async def test_requests_inside_an_engine_that_fell_asleep_by_itself_are_ended(simulator: Simulator, kind: str) -> None:
    """Nobody would answer them, and the pod cannot go back into service: its door opens on no sleeper. (Of SGLang a
    release with somebody inside is the end.)"""
    dialect, pod = DIALECTS[kind], target(simulator, kind)
    lives = {"sleep": {"drainTimeout": "100ms"}}
    spec = pod.rm.spec.model_copy(update={"lifecycle": Lifecycle.model_validate(lives)})
    pod = dataclasses.replace(pod, rm=pod.rm.model_copy(update={"spec": spec}))
    async with Doors() as doors, httpx.AsyncClient(base_url=f"http://{ADDRESS}:8000", timeout=20) as clients:
        await run(Transition.WAKE, pod, doors)
        assert simulator.past_the_door(ADDRESS, "POST", "/sleep") == 200
        stays = asyncio.create_task(clients.post(dialect.scores_at, json=dialect.ask("x")))
        async with asyncio.timeout(20):
            while not simulator.pod(ADDRESS)["inside"]:  # noqa: ASYNC110  (it is another process that knows)
                await asyncio.sleep(0.01)
        assert await run(Transition.SLEEP, pod, doors) == 1
        assert ((await stays).status_code, simulator.pod(ADDRESS)["state"]) == (503, "asleep")


async def idle(pod: Target, doors: Doors) -> None:
    """Wait until nobody has been inside for as long as metrics lag."""
    async with asyncio.timeout(30):
        while (await doors.look(pod.pod, pod.token)).idle_seconds < LAG_SECONDS:  # noqa: ASYNC110  (a door tells nobody)
            await asyncio.sleep(0.05)


async def test_metrics_are_not_asked_while_they_may_count_who_has_just_left(simulator: Simulator) -> None:
    pod = target(simulator, "vllm")
    async with Doors() as doors, httpx.AsyncClient(base_url=f"http://{ADDRESS}:8000", timeout=20) as clients:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"strays": 3})
        dialect = DIALECTS["vllm"]
        assert (await clients.post(dialect.scores_at, json=dialect.ask("x"))).status_code == 200
        await run(Transition.SLEEP, pod, doors)
        assert pod.strays == {} and truth(simulator)["state"] == "asleep"


@pytest.mark.parametrize("kind", ["vllm", "vllm-pooling"])
async def test_an_engine_that_counts_somebody_where_its_door_does_not_is_told_and_sleeps(
    simulator: Simulator, kind: str
) -> None:
    pod = target(simulator, kind)
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"strays": 3})
        assert pod.strays == {}, "a wake asks for none"
        await idle(pod, doors)
        await run(Transition.SLEEP, pod, doors)
        assert pod.strays == {pod.pod.uid: 3} and truth(simulator)["state"] == "asleep"


@pytest.mark.parametrize("faults", [{"status": {"/metrics": 500}}, {"hang": ["/metrics"]}], ids=["broken", "hanging"])
async def test_metrics_that_cannot_be_read_keep_no_engine_awake(simulator: Simulator, faults: dict[str, Any]) -> None:
    pod = target(simulator, "vllm")
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        simulator.put(ADDRESS, faults={"strays": 3, **faults})
        await idle(pod, doors)
        await run(Transition.SLEEP, pod, doors)
        assert pod.strays == {} and truth(simulator)["state"] == "asleep"


async def test_the_wake_of_a_verified_pod_is_the_order_and_the_opening(simulator: Simulator) -> None:
    pod = target(simulator, "vllm")
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        await run(Transition.SLEEP, pod, doors)
        door = await doors.look(pod.pod, TOKEN)
        seen = dataclasses.replace(pod, pod=dataclasses.replace(pod.pod, door=door, verified_boot_id=door.boot_id))
        before = len(truth(simulator)["calls"])
        await run(Transition.WAKE, seen, doors)
        after = [call["path"] for call in truth(simulator)["calls"][before:]]
    assert after[0] == "/wake_up" and set(after[1:]) == {"/is_sleeping"}, "the door asks before it opens"
    assert truth(simulator)["state"] == "serving"


@pytest.mark.parametrize("opened", [False, True], ids=["behind a shut door", "behind an open one"])
async def test_an_engine_that_only_says_it_woke_is_found_out(simulator: Simulator, opened: bool) -> None:
    pod = target(simulator, "vllm")
    async with Doors() as doors:
        await run(Transition.WAKE, pod, doors)
        if opened:
            simulator.put(ADDRESS, faults={"lie": True})  # as one that somebody put to sleep without asking the door
        else:
            await run(Transition.SLEEP, pod, doors)
            simulator.put(ADDRESS, faults={"deaf": ["/wake_up"]})
        door = await doors.look(pod.pod, TOKEN)
        assert door.engine_asleep
        seen = dataclasses.replace(pod, pod=dataclasses.replace(pod.pod, door=door, verified_boot_id=door.boot_id))
        with pytest.raises(EngineError, match="sleeps"):
            await run(Transition.WAKE, seen, doors)
