"""The operator dies at every order that it gives, its successor goes on, and what it had sent arrives too late.

Which orders there are the scouts find out (`edges`); that they find all of them is held against the code's own lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, get_args

import httpx
import pytest
from genrm_api.leases import Phase
from genrm_api.rewardmodel import EngineName, RewardModel
from genrm_operator import lifecycle
from genrm_operator.engines import adapter_for
from genrm_operator.lifecycle import Begin, GiveUp, Join, Rest, Serve, StopServing
from genrm_operator.observed import DoorState, Transition

from dev.cluster import Cluster
from tests.cluster.apiserver import ApiProxy
from tests.cluster.conftest import Operator, World, a_world, wait_for
from tests.cluster.edges import CHAT, CONFIRM, Crowd, Edge, Model, Then, orders
from tests.cluster.test_engines import HOOKS
from tests.simulator.client import Simulator
from tests.simulator.holds import When

pytestmark = pytest.mark.cluster

CUSTOM: Final = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["python3", "/judge.py"], **HOOKS}}
LIVES: Final[Mapping[str, Mapping[str, Any]]] = {
    "vllm": {"lifecycle": {"wake": {"verify": True}}},
    "sglang": {"engine": {"name": "sglang"}, "lifecycle": {"wake": {"verify": False}}},
    "custom": {"engine": CUSTOM},
    "gate": {"engine": {"name": "sglang"}, "lifecycle": {"sleep": {"mode": "Restart"}, "wake": {"verify": False}}},
    "cut": {"lifecycle": {"sleep": {"drainTimeout": "1s", "onDrainTimeout": "Abort"}}},
}
"""Which models go the ways. A client stays inside of those of `cut` until it is put out."""
LAZY: Final = "cut"
CUT: Final = "PUT draining?cut=1"
TURNS: Final = ("wake", "sleep")
SHARING: Final = {"share": "Engine", "share-gate": "Restart"}
"""Pairs of models on one GPU, by their sleep."""
SCOUTS: Final = 3
FAILED: Final = " failed namespace="
"""What the operator says of a transition that it will try again: repeats are no orders of their own."""
MOST_AT_API: Final = 12
"""So many looks may wait for the API server at once: with 16 the operator would do nothing else."""

MOMENTS: Final = [
    pytest.param(Then.TOO_LATE, id="too late"),
    *(pytest.param(then, id=f"{then}, in the proof", marks=pytest.mark.proof) for then in Then),
]


_devices = itertools.count(100)


def on_a_device(mode: str) -> dict[str, Any]:
    """On a GPU that no other test has."""
    number = next(_devices)
    slot = {"name": f"gpu-{number}", "node": "fake-0", "devices": [number]}
    sharing = {"gpu": {"sharing": "Colocated", "slots": [slot]}}
    return {**sharing, "lifecycle": {"sleep": {"mode": mode}}}


@contextmanager
def lingering(world: World, models: Sequence[Model]) -> Iterator[None]:
    """A client inside of each, whose request takes for ever."""

    def ask(address: str) -> int:
        body = {"model": "judge", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}
        return httpx.post(f"http://{address}:8000{CHAT}", json=body, timeout=60, trust_env=False).status_code

    addresses = [model.address for model in models if model.life == LAZY]
    for address in addresses:
        world.simulator.put(address, faults={"hang": [CHAT]})
    with ThreadPoolExecutor(len(addresses) or 1) as pool:
        asked = [pool.submit(ask, address) for address in addresses]
        wait_for("they are inside", lambda: all(world.simulator.pod(a)["inside"] for a in addresses))
        yield
        assert {answer.result() for answer in asked} <= {503}, "each was told to ask another"
    for address in addresses:
        world.simulator.put(address, faults={})


# -------------------------------------------------------------------------------------------- which orders there are


@pytest.fixture(scope="module")
def edges(
    cluster: Cluster, simulator: Simulator, api: ApiProxy, behind_proxy: Operator
) -> Mapping[str, Sequence[Edge]]:
    """The edges of each way, as one model of each kind goes it, and nothing has to be tried twice."""
    for _ in range(SCOUTS):
        with a_world(cluster, simulator, behind_proxy) as world:
            before = world.operator.log.read_text().count(FAILED)
            found = _scouted(world, api)
            stumbled = [line for line in world.operator.log.read_text().splitlines() if FAILED in line][before:]
            if not stumbled:
                return found
    raise AssertionError(f"{SCOUTS} times something had to be tried again: {stumbled}")


def _scouted(world: World, api: ApiProxy) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {}
    crowd = Crowd(world, api)
    alone = [Model(f"scout-{life}", life, spec) for life, spec in LIVES.items()]
    pairs = [
        Model(f"{life}-{side}", life, spec)
        for life, mode in SHARING.items()
        for spec in [on_a_device(mode)]
        for side in "ab"
    ]
    everybody = {model.name for model in alone}

    @contextmanager
    def way(name: str, models: Sequence[Model], awake: set[str]) -> Iterator[None]:
        before = [[len(said) for said in crowd.said(model)] for model in models]
        yield
        crowd.settled(awake)
        said = [[s[n:] for s, n in zip(crowd.said(m), b, strict=True)] for m, b in zip(models, before, strict=True)]
        found[name] = _edges(models, said)

    with way("start", [*alone, *pairs], set()):
        crowd.come([*alone, *pairs])
    with way("wake", [model for model in alone if model.life != LAZY], everybody):
        crowd.ask(Phase.SCORING, alone)
    with lingering(world, alone), way("sleep", alone, set()):
        crowd.ask(Phase.IDLE, alone)
    one, other = pairs[0::2], pairs[1::2]
    for takers, givers in ((one, other), (other, one)):  # so that each has been started once
        crowd.ask(Phase.IDLE, givers)
        crowd.ask(Phase.SCORING, takers)
        crowd.settled({model.name for model in takers})
    with way("handover", pairs, {model.name for model in one}):
        crowd.ask(Phase.IDLE, other)
        crowd.ask(Phase.SCORING, one)
    return found


def _edges(models: Sequence[Model], said: Sequence[Sequence[Sequence[str]]]) -> list[Edge]:
    """Of what was said to each pod every order, of what was said to the API server each kind of write once."""
    at_pods: dict[tuple[str, str, int], None] = {}
    at_api: dict[str, str] = {}
    for model, (to_pod, to_api) in zip(models, said, strict=True):
        for call, skip in orders(to_pod):
            if model.life == "custom" and call == CONFIRM:
                continue  # of a server without a door each look asks that
            if model.life == LAZY and call != CUT:
                continue  # those of any other
            at_pods[model.life, call, skip] = None
        for call in to_api:
            at_api.setdefault(call, model.life)
    found = [Edge(life, call, when, skip) for life, call, skip in at_pods for when in When]
    return found + [Edge(life, call, when, at_api=True) for call, life in at_api.items() for when in When]


ACTIONS: Final = {
    Serve: "pod serves", StopServing: "pod stops serving", Rest: "pod gated", Join: "pod joins", Begin: None,
    GiveUp: None,
}  # fmt: skip
"""What the lifecycle may decide → what the API server hears. A begin is a transition's orders; to give up is none."""
TRANSITIONS: Final = {
    Transition.START: "PUT closed",
    Transition.VERIFY: "pod verified",
    Transition.WAKE: "PUT serving",
    Transition.SLEEP: "PUT asleep",
}
"""→ the order with which each is over."""


def test_every_order_that_the_code_knows_is_one_that_an_operator_dies_at(edges: Mapping[str, Sequence[Edge]]) -> None:
    """But those that a pod gets only when it is started for the first time: nobody holds them."""
    assert ACTIONS.keys() == set(get_args(lifecycle.Action)) and TRANSITIONS.keys() == set(Transition)
    calls = {edge.call for way in (*TURNS, "handover") for edge in edges[way]}
    calls |= {edge.call for edge in edges["start"] if edge.at_api}
    wanted = {word for word in (*ACTIONS.values(), *TRANSITIONS.values(), "pod let in") if word is not None}
    wanted |= {f"PUT {state}" for state in DoorState} | {CUT, CONFIRM}
    for name in EngineName:
        spec = {"model": {"uri": "hf://a/b"}, "engine": {"name": name} if name is not EngineName.CUSTOM else CUSTOM}
        rm = RewardModel.model_validate({"metadata": {"name": "x", "namespace": "y", "uid": "z"}, "spec": spec})
        adapter = adapter_for(name)
        asked = (*adapter.sleep(rm), *adapter.wake(rm), adapter.first_question(rm))
        wanted |= {f"{call.method} {call.path.partition('?')[0]}" for call in asked if call is not None}
        wanted |= {f"{row.method} {row.path}" for row in [adapter.golden_row(rm, "", "")] if row is not None}
    assert not wanted - calls


# -------------------------------------------------------------------------------------------- killed at each of them


def each(edges: Sequence[Edge], letter: str) -> list[Model]:
    def spec(life: str) -> Mapping[str, Any]:
        return LIVES.get(life) or on_a_device(SHARING[life])

    return [Model(f"{letter}{number:02}", edge.life, spec(edge.life), edge) for number, edge in enumerate(edges)]


@pytest.mark.parametrize("then", MOMENTS)
@pytest.mark.parametrize("way", TURNS)
def test_who_dies_at_an_order_is_succeeded_and_no_engine_hears_it_twice(
    proxied: World, api: ApiProxy, edges: Mapping[str, Sequence[Edge]], way: str, then: Then
) -> None:
    models = each(edges[way], way[0])
    crowd, everybody = Crowd(proxied, api), {model.name for model in models}
    up, down = (Phase.SCORING, everybody), (Phase.IDLE, set[str]())
    (was, start), (phase, goal) = (down, up) if way == "wake" else (up, down)
    crowd.come(models)
    crowd.ask(was)
    crowd.settled(start)
    crowd.arm()
    with lingering(proxied, models if way == "sleep" else []):
        crowd.ask(phase)
        crowd.killed()
        guarded = [model for model in models if model.life != "custom"]  # no door keeps what is late from the others
        crowd.let_go(models if then is Then.AT_ONCE else [m for m in models if m not in guarded])
        crowd.succeeded()
        if then is Then.MEANWHILE:
            crowd.let_go(guarded)
        crowd.settled(goal)
    if then is Then.TOO_LATE:
        crowd.ask(was)
        crowd.settled(start)
        crowd.let_go(guarded)
        crowd.settled(start)
        _nobody_listened(crowd)
    assert crowd.repeated() == []


def _nobody_listened(crowd: Crowd) -> None:
    """Whoever had heard of the next leader refused what the last one had sent."""
    for name, (edge, status) in crowd.answers().items():
        if edge.life != "custom" and not edge.call.startswith("GET"):
            assert status in (409, 503), f"{name}: {edge.call} was answered {status}"


@pytest.mark.parametrize("then", MOMENTS)
def test_who_dies_in_a_handover_is_succeeded_and_nobody_has_the_slot_twice(
    proxied: World, api: ApiProxy, edges: Mapping[str, Sequence[Edge]], then: Then
) -> None:
    calls = {(e.call, e.when): e for e in edges["handover"] if e.call != CONFIRM}
    givers, takers = [], []
    for number, edge in enumerate(calls.values()):
        spec = on_a_device(SHARING[edge.life])
        givers.append(giver := Model(f"g{number:02}", edge.life, spec))
        takers.append(taker := Model(f"t{number:02}", edge.life, spec))
        (giver if edge.call in DOWN_CALLS else taker).edge = edge
    crowd = Crowd(proxied, api)
    give, take = {model.name for model in givers}, {model.name for model in takers}

    def hand_over(to: Sequence[Model]) -> None:
        crowd.ask(Phase.IDLE, givers if to is takers else takers)
        crowd.ask(Phase.SCORING, to)

    crowd.come([*givers, *takers])
    for to, names in ((takers, take), (givers, give)):  # so that each has been started once
        hand_over(to)
        crowd.settled(names)
    crowd.arm()
    hand_over(takers)
    crowd.killed()
    if then is Then.AT_ONCE:
        crowd.let_go()
    crowd.succeeded()
    if then is Then.MEANWHILE:
        crowd.let_go()
    crowd.settled(take)
    if then is Then.TOO_LATE:
        hand_over(givers)
        crowd.settled(give)
        crowd.let_go()
        crowd.settled(give)
        _nobody_listened(crowd)
    assert crowd.repeated() == [] and proxied.simulator.collisions() == []


DOWN_CALLS: Final = ("pod stops serving", "PUT draining", "POST /sleep", "PUT asleep", "PUT gated")
"""What who gives a slot up hears; whoever takes it hears the rest."""


def test_an_order_of_a_dead_operator_takes_no_slot_from_who_was_given_it_since(proxied: World, api: ApiProxy) -> None:
    """The successor has never told the door anything, but that it leads."""
    crowd, calls = Crowd(proxied, api), ("POST /wake_up", "PUT closed")
    specs = [on_a_device("Engine") for _ in calls]
    givers = [Model(f"g{number}", "share", spec) for number, spec in enumerate(specs)]
    takers = [Model(f"t{number}", "share", spec) for number, spec in enumerate(specs)]
    crowd.come([*givers, *takers])
    crowd.ask(Phase.SCORING, takers[:1])  # the other taker stays at its gate
    crowd.settled({takers[0].name})
    crowd.ask(Phase.IDLE, takers[:1])
    crowd.settled(set())
    for taker, call in zip(takers, calls, strict=True):
        taker.edge = Edge(taker.life, call, When.BEFORE)
    crowd.arm()
    crowd.ask(Phase.SCORING, takers)
    crowd.killed()
    crowd.ask(Phase.IDLE, takers)
    crowd.ask(Phase.SCORING, givers)
    crowd.succeeded()
    crowd.settled({giver.name for giver in givers})
    crowd.let_go()
    assert [status for _, status in crowd.answers().values()] == [409, 409]
    assert proxied.simulator.collisions() == []


@pytest.mark.parametrize("then", MOMENTS)
def test_who_dies_while_it_makes_a_model_is_succeeded_and_everything_is_made_once(
    proxied: World, api: ApiProxy, edges: Mapping[str, Sequence[Edge]], then: Then
) -> None:
    writes = [edge for edge in edges["start"] if edge.at_api]
    for number in range(0, len(writes), MOST_AT_API):
        models = each(writes[number : number + MOST_AT_API], f"n{number:02}x")
        crowd = Crowd(proxied, api)
        crowd.models = models
        crowd.arm()
        crowd.come()
        crowd.killed()
        if then is Then.AT_ONCE:
            crowd.let_go()
        crowd.succeeded()
        if then is Then.MEANWHILE:
            crowd.let_go()
        crowd.settled(set())
        if then is Then.TOO_LATE:
            crowd.let_go()
            crowd.settled(set())
        assert crowd.repeated() == []
    assert len(proxied.objects("replicasets")) == len(proxied.objects("deployments")) == len(writes)
