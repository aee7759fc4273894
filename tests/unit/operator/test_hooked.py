"""Engines of users' own, by their hooks: the same decisions and transitions as behind a door, and less certainty."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase
from genrm_api.rewardmodel import RewardModel
from genrm_operator.cache import Cache
from genrm_operator.demand import Demand, Desired
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.engines.adapter import Call, Hooks, answers
from genrm_operator.errors import Deposed, DrainTimeout, EngineError, Impossible
from genrm_operator.hooked import Hooked
from genrm_operator.lifecycle import Begin, GiveUp, PodState, Serve, StopServing, decide, pod_state
from genrm_operator.making import made
from genrm_operator.night import Night
from genrm_operator.observed import Door, DoorState, Pod, Transition, stand_in
from genrm_operator.settings import Settings
from genrm_operator.transitions import Target, run
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator import client
from tests.simulator.client import Simulator
from tests.unit.operator.test_children import make
from tests.unit.operator.test_demand import make_lease
from tests.unit.operator.test_lifecycle import make_pod

ADDRESS = "127.77.9.1"  # of this test alone: engines listen on a fixed port
CHAT = "/v1/chat/completions"
SLEEPS = {"sleep": {"path": "/sleep?level=1"}, "wake": {"path": "/wake_up"}, "isSleeping": {"path": "/is_sleeping"}}
COUNTS = {"inFlight": {"path": "/in_flight"}}
NOW = 100.0


def bare(**changes: Any) -> Pod:
    """A pod of an engine without our door: it has no gate that we open."""
    return make_pod(gated=False, verified_boot_id=None, **changes)


def model(hooks: dict[str, Any], **lifecycle: Any) -> RewardModel:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["judge"], **hooks}}
    spec = {"model": {"uri": "hf://a/b"}, "engine": engine, "lifecycle": lifecycle}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})


# ---------------------------------------------------------------- decisions

HERE = {"serving": True, "labelled_boot_id": "u0.0"}


@pytest.mark.parametrize(
    ("pod", "asleep", "shut", "desired", "expected"),
    [
        (bare(), False, None, Desired.AWAKE, [Serve]),
        (bare(**HERE), False, None, Desired.AWAKE, []),
        (bare(**HERE), None, None, Desired.AWAKE, []),
        (bare(), None, None, Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (bare(), True, None, Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (bare(**HERE), True, None, Desired.AWAKE, [StopServing, (Begin, Transition.WAKE)]),
        (bare(**HERE, restarts=1), False, None, Desired.AWAKE, [Serve]),
        (bare(**HERE, restarts=1), None, None, Desired.AWAKE, [StopServing, (Begin, Transition.WAKE)]),
        (bare(**HERE, ready=False), None, None, Desired.AWAKE, [StopServing]),
        (bare(**HERE), False, None, Desired.ASLEEP, [StopServing, (Begin, Transition.SLEEP)]),
        (bare(), False, None, Desired.ASLEEP, [(Begin, Transition.SLEEP)]),
        (bare(), None, None, Desired.ASLEEP, [(Begin, Transition.SLEEP)]),
        (bare(), True, None, Desired.ASLEEP, []),
        (bare(retry_at=NOW + 1), False, None, Desired.ASLEEP, [Serve]),
        (bare(), False, DoorState.DRAINING, Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (bare(busy=Transition.SLEEP), False, DoorState.DRAINING, Desired.AWAKE, [GiveUp]),
        (bare(busy=Transition.SLEEP), False, DoorState.CLOSED, Desired.AWAKE, []),
        (bare(), False, DoorState.CLOSED, Desired.AWAKE, [(Begin, Transition.WAKE)]),
        (bare(retry_at=NOW + 1), False, DoorState.CLOSED, Desired.ASLEEP, []),
    ],
)
def test_hooks_take_the_doors_place_in_each_decision(
    pod: Pod, asleep: bool | None, shut: DoorState | None, desired: Desired, expected: list[object]
) -> None:
    seen = dataclasses.replace(pod, door=stand_in(pod, asleep, inside=1, shut=shut))
    actions = decide([seen], desired, NOW, has_door=True).actions
    assert [(Begin, a.transition) if isinstance(a, Begin) else type(a) for a in actions] == expected


@given(
    st.builds(
        bare,
        serving=st.booleans(),
        restarts=st.integers(0, 2),
        labelled_boot_id=st.sampled_from([None, "u0.0", "u0.1"]),
        busy=st.none() | st.sampled_from([Transition.WAKE, Transition.SLEEP]),
        retry_at=st.sampled_from([0.0, NOW + 1]),
    ),
    st.none() | st.booleans(),
    st.sampled_from([None, DoorState.DRAINING, DoorState.CLOSED]),
    st.sampled_from(Desired),
)
def test_a_pod_serves_only_after_this_start_of_its_container_said_that_it_is_awake(
    pod: Pod, asleep: bool | None, shut: DoorState | None, desired: Desired
) -> None:
    seen = dataclasses.replace(pod, door=stand_in(pod, asleep, shut=shut))
    for action in decide([seen], desired, NOW, has_door=True).actions:
        if isinstance(action, Serve):
            assert asleep is False and shut is None
            assert action.boot_id == f"u0.{pod.restarts}"
    if pod_state(seen, has_door=True) is PodState.SERVING:
        assert asleep is not True and pod.labelled_boot_id == f"u0.{pod.restarts}"


# ---------------------------------------------------------------- the adapter


def test_an_engine_without_hooks_is_not_asked() -> None:
    rm = model({})
    adapter = adapter_for(rm.spec.engine.name)
    assert adapter.hooks(rm) is None and not answers(adapter, rm)


def test_hooks_become_calls() -> None:
    wake = {"method": "PUT", "path": "/wake?x=1", "body": '{"tags": ["weights"]}'}
    rm = model(SLEEPS | COUNTS | {"wake": wake})
    adapter = adapter_for(rm.spec.engine.name)
    assert adapter.hooks(rm) == Hooks(Call("GET", "/is_sleeping"), Call("GET", "/in_flight")) and answers(adapter, rm)
    assert adapter.sleep(rm) == (Call("POST", "/sleep?level=1"),)
    assert adapter.wake(rm) == (Call("PUT", "/wake?x=1", body={"tags": ["weights"]}),)


def test_a_body_that_is_no_json_is_refused_before_there_are_pods() -> None:
    rm = model(SLEEPS | {"sleep": {"path": "/sleep", "body": "{level: 1}"}})
    with pytest.raises(Impossible, match=r"spec\.engine\.custom\.sleep\.body: .*write a JSON object") as caught:
        adapter_for(rm.spec.engine.name).container(rm, Settings(master_key=b"k" * 32))
    assert caught.value.reason == "HookNotReadable"


def test_hooks_are_no_part_of_the_pods_so_that_a_change_of_them_replaces_none() -> None:
    engine = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["judge"]}}
    hooked = {**engine, "custom": {"command": ["judge"], **SLEEPS}}
    without, with_ = (make({"model": {"uri": "hf://a/b"}, "engine": e})["Deployment/judge"] for e in (engine, hooked))
    assert with_["spec"]["template"] == without["spec"]["template"]


@pytest.mark.parametrize(
    ("ready", "gated", "pinned"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_run_that_lets_its_judge_sleep_is_scored_by_the_same_one_afterwards(
    ready: bool, gated: bool, pinned: bool
) -> None:
    """Asleep it has no label, and without a gate there is no other sign that it was up."""
    rm, cache, key = model(SLEEPS), Cache(), ("rl", "judge")
    cache.pods[key]["u0"] = make_pod(ready=ready, gated=gated, verified_boot_id=None)
    wants = Demand(Desired.ASLEEP, "", (make_lease("run", Phase.IDLE),), (), None)
    settings = Settings(master_key=b"k" * 32)
    first, *_ = made(cache, key, rm, adapter_for(rm.spec.engine.name), settings, None, wants, may_run=True).out_of
    assert first.pinned is pinned


# ---------------------------------------------------------------- transitions


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--host", ADDRESS, port=8000) as simulator:
        yield simulator


@asynccontextmanager
async def target(
    simulator: Simulator, hooks: dict[str, Any], linger: float = 0.0, **lifecycle: Any
) -> AsyncIterator[tuple[Target, Doors]]:
    """A pod that has just started."""
    simulator.forget(ADDRESS)
    simulator.put(ADDRESS, settings={"engine": "custom"}, faults={})
    rm = model(hooks, **lifecycle)
    adapter = adapter_for(rm.spec.engine.name)
    calls = adapter.hooks(rm)
    assert calls is not None
    async with Doors() as doors:
        yield Target(rm, bare(ip=ADDRESS), adapter, "secret", Hooked(doors, calls, {}, linger)), doors


async def state(pod: Target, doors: Doors) -> Door:
    return await pod.front(doors).look(pod.pod, "")


async def drained(pod: Target, doors: Doors) -> Door:
    """Wait until a drain has begun."""
    async with asyncio.timeout(20):
        while (seen := await state(pod, doors)).state is not DoorState.DRAINING:  # noqa: ASYNC110 (a look tells)
            await asyncio.sleep(0.01)
    return seen


@asynccontextmanager
async def one_inside(simulator: Simulator) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A request that hangs in the engine until the test lets it go on."""
    simulator.put(ADDRESS, faults={"hang": [CHAT]})
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        question = {"model": "judge", "messages": [{"role": "user", "content": "?"}]}
        request = asyncio.create_task(http.post(f"http://{ADDRESS}:8000{CHAT}", json=question))
        async with asyncio.timeout(20):
            while (await http.get(f"http://{ADDRESS}:8000/in_flight")).json()["in_flight"] != 1:  # noqa: ASYNC110 (HTTP)
                await asyncio.sleep(0.01)
        try:
            yield request
        finally:
            request.cancel()


@pytest.mark.parametrize("hooks", [SLEEPS, SLEEPS | COUNTS], ids=["uncounted", "counted"])
async def test_three_nights(simulator: Simulator, hooks: dict[str, Any]) -> None:
    async with target(simulator, hooks) as (pod, doors):
        for _ in range(3):
            await run(Transition.WAKE, pod, doors)
            assert simulator.pod(ADDRESS)["asleep"] is False
            assert (await state(pod, doors)).state is DoorState.SERVING
            await run(Transition.SLEEP, pod, doors)
            assert simulator.pod(ADDRESS)["asleep"] is True
            assert (await state(pod, doors)).state is DoorState.ASLEEP
        orders = [call["path"] for call in simulator.pod(ADDRESS)["calls"] if call["method"] == "POST"]
        assert orders == ["/sleep", "/wake_up", "/sleep", "/wake_up", "/sleep"]
        assert list(pod.nights.values()) == [Night(None, None)], "nobody can see what that gave back"
        await run(Transition.SLEEP, pod, doors)
        assert len([c for c in simulator.pod(ADDRESS)["calls"] if c["method"] == "POST"]) == 5, "it sleeps already"


async def test_a_counted_request_is_answered_before_the_engine_sleeps(simulator: Simulator) -> None:
    async with target(simulator, SLEEPS | COUNTS) as (pod, doors), one_inside(simulator) as request:
        sleeping = asyncio.create_task(run(Transition.SLEEP, pod, doors))
        assert (await drained(pod, doors)).inside == 1
        simulator.put(ADDRESS, faults={})
        answer = await request
        await sleeping
        assert answer.json()["choices"][0]["finish_reason"] != "abort", "a sleep would have aborted it"
        assert simulator.pod(ADDRESS)["asleep"] is True


async def test_a_drain_that_takes_too_long_ends_and_the_pod_may_serve_again(simulator: Simulator) -> None:
    async with (
        target(simulator, SLEEPS | COUNTS, sleep={"drainTimeout": "100ms"}) as (pod, doors),
        one_inside(simulator),
    ):
        with pytest.raises(DrainTimeout, match=r"1 requests were still inside after 0\.1 s"):
            await run(Transition.SLEEP, pod, doors)
        assert (await state(pod, doors)).state is DoorState.SERVING
        assert not [c for c in simulator.pod(ADDRESS)["calls"] if c["path"] == "/sleep"]


async def test_a_server_that_does_not_count_is_put_to_sleep_over_what_is_inside(simulator: Simulator) -> None:
    async with target(simulator, SLEEPS) as (pod, doors), one_inside(simulator) as request:
        await run(Transition.SLEEP, pod, doors)
        assert (await request).json()["choices"][0]["finish_reason"] == "abort"


async def test_a_sleep_is_called_off_while_requests_may_be_on_their_way(simulator: Simulator) -> None:
    async with target(simulator, SLEEPS, linger=600.0) as (pod, doors):
        sleeping = asyncio.create_task(run(Transition.SLEEP, pod, doors))
        seen = await drained(pod, doors)
        assert seen.inside == 1
        busy = dataclasses.replace(pod.pod, door=seen, busy=Transition.SLEEP)
        assert [type(a) for a in decide([busy], Desired.AWAKE, NOW, has_door=True).actions] == [GiveUp]
        sleeping.cancel()
        await asyncio.wait([sleeping])
        await run(Transition.WAKE, pod, doors)
        assert (await state(pod, doors)).state is DoorState.SERVING
        assert not [c for c in simulator.pod(ADDRESS)["calls"] if c["method"] == "POST"]


@pytest.mark.parametrize(
    ("faults", "transition", "says", "then"),
    [
        ({"deaf": ["/sleep"]}, Transition.SLEEP, "says that it is awake", DoorState.CLOSED),
        ({"status": {"/sleep": 500}}, Transition.SLEEP, r"POST /sleep\?level=1 answered 500", DoorState.CLOSED),
        ({"status": {"/is_sleeping": 404}}, Transition.SLEEP, "GET /is_sleeping answered 404", DoorState.SERVING),
        ({"status": {"/is_sleeping": 404}}, Transition.WAKE, "GET /is_sleeping answered 404", DoorState.SERVING),
        ({"status": {"/in_flight": 503}}, Transition.SLEEP, "GET /in_flight answered 503", DoorState.DRAINING),
    ],
)
async def test_an_order_counts_when_the_engine_says_that_it_was_carried_out(
    simulator: Simulator, faults: dict[str, Any], transition: Transition, says: str, then: DoorState
) -> None:
    async with target(simulator, SLEEPS | COUNTS) as (pod, doors):
        simulator.put(ADDRESS, faults=faults)
        with pytest.raises(EngineError, match=says):
            await run(transition, pod, doors)
        simulator.put(ADDRESS, faults={})
        assert (await state(pod, doors)).state is then
        await run(Transition.SLEEP, pod, doors)
        assert simulator.pod(ADDRESS)["asleep"] is True
        simulator.put(ADDRESS, faults={"deaf": ["/wake_up"]})
        with pytest.raises(EngineError, match="says that it still sleeps"):
            await run(Transition.WAKE, pod, doors)


async def test_who_does_not_lead_gives_no_order(simulator: Simulator) -> None:
    def deposed() -> int:
        raise Deposed("another one leads")

    async with target(simulator, SLEEPS) as (pod, _), Doors(deposed) as doors:
        assert pod.hooked is not None
        with pytest.raises(Deposed):
            await run(
                Transition.SLEEP, dataclasses.replace(pod, hooked=dataclasses.replace(pod.hooked, doors=doors)), doors
            )
        assert simulator.pod(ADDRESS)["asleep"] is False


# ---------------------------------------------------------------- on the wire


@asynccontextmanager
async def scripted(address: str, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """A server that gives these answers in turn, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length")), 0
        )
        asked.append(head + await reader.readexactly(length))
        body = answers[len(asked) - 1]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, address, 8000)
    try:
        yield asked
    finally:
        server.close()


AWAKE, ASLEEP = b'{"is_sleeping": false}', b'{"is_sleeping": true}'


async def test_no_token_reaches_a_server_of_somebody_elses() -> None:
    hooks = SLEEPS | COUNTS | {"sleep": {"path": "/sleep", "body": '{"level": 1}'}}
    rm = model(hooks)
    adapter = adapter_for(rm.spec.engine.name)
    calls = adapter.hooks(rm)
    assert calls is not None
    said = (AWAKE, AWAKE, b'{"in_flight": 0}', AWAKE, b"{}", ASLEEP, ASLEEP)
    async with scripted("127.77.9.2", *said) as asked, Doors(lambda: 7) as doors:
        pod = Target(rm, bare(ip="127.77.9.2"), adapter, "secret", Hooked(doors, calls, {}, 0.0))
        await run(Transition.SLEEP, pod, doors)
    assert len(asked) == len(said)
    assert b'{"level": 1}' in asked[4] and asked[4].startswith(b"POST /sleep ")
    for request in asked:
        assert b"secret" not in request and b"authorization" not in request.lower()


@pytest.mark.parametrize("answer", [b'{"is_sleeping": "false"}', b'{"is_sleeping": 0}', b"false", b"{}", b""])
async def test_what_is_no_flag_is_no_answer(answer: bytes) -> None:
    async with scripted("127.77.9.3", answer) as _, Doors() as doors:
        hooked = Hooked(doors, Hooks(Call("GET", "/is_sleeping"), None), {}, 0.0)
        with pytest.raises(EngineError, match="cannot be read"):
            await hooked.look(bare(ip="127.77.9.3"), "")


@pytest.mark.parametrize("answer", [b'{"in_flight": "0"}', b'{"in_flight": false}', b'{"in_flight": 0.5}', b"{}"])
async def test_what_is_no_count_is_no_answer(answer: bytes) -> None:
    async with scripted("127.77.9.4", AWAKE, answer) as _, Doors() as doors:
        pod = bare(ip="127.77.9.4")
        hooked = Hooked(doors, Hooks(Call("GET", "/is_sleeping"), Call("GET", "/in_flight")), {pod.uid: 0.0}, 0.0)
        with pytest.raises(EngineError, match="cannot be read"):
            await hooked.look(pod, "")
