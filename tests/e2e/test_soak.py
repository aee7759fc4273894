"""Clients score without a pause, whatever is done to the engines meanwhile, and no judgement fails or is lost.

Two real engines, vLLM and SGLang, each with four clients of our own library. A run's Lease goes back and forth between
scoring and idle, so that they fall asleep under load and wake again; pods are drained from their node, taken by a
smaller number of replicas, replaced by a rollout, and deleted. The doors' own accounts must agree with the clients'.

What is not real: the node is the only one. A drain cordons it, so that a successor could start nowhere; it is
uncordoned when the pod is gone, as if another node had room.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from genrm_api.leases import Phase
from genrm_operator.tokens import admin_token
from genrm_scoring import Judgement, LeaseThread
from genrm_scoring.kubernetes import run_lease

from dev import sglang_cpu
from dev.bootstrap import ensure_env
from dev.stack import RELEASE, SYSTEM_NAMESPACE, Stack, judge
from tests.e2e.conftest import MODEL, NAMESPACE, wait_for
from tests.e2e.doors_word import Doors, Witnessed
from tests.e2e.load import Load, scoring

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
LONG = [pytest.mark.proof, pytest.mark.timeout(5400)]

SGLANG = "second-judge"
DRAINED = "drained"
"""A label that only the pod to be drained has."""
START_SECONDS = 400.0
"""For an engine to start, on two cores that its clients keep busy."""


@pytest.fixture(scope="module")
def coming(stack: Stack) -> Iterator[Stack]:
    """Beside the judge of two vLLM pods one on SGLang. It starts while the first test does other things."""
    stack.cluster.ensure_sglang(ensure_env("sglang-cpu"))
    engine = {"name": "sglang", "args": list(sglang_cpu.ARGUMENTS), "maxModelLen": 2048}
    env = [{"name": "HF_HUB_OFFLINE", "value": "1"}]
    lifecycle = {"wake": {"verify": True}}
    models = stack.prepared.models
    stack.apply(judge(models.judge, name=SGLANG, replicas=1, engine=engine, env=env, lifecycle=lifecycle))
    yield stack
    stack.kubectl("-n", NAMESPACE, "delete", "rm", SGLANG, "--wait")
    stack.wait_for_no_children(SGLANG, timeout=120)


@pytest.fixture
def both(coming: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Nobody uses any of the two; clients find the cluster as a training run does, with its rights."""
    monkeypatch.setenv("KUBECONFIG", str(coming.client_kubeconfig()))
    for name in (MODEL, SGLANG):
        coming.wait_for_phase(name, "Asleep", START_SECONDS, patient=True)
    return coming


@pytest.fixture
def awake(coming: Stack, asleep: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The judge is awake by its owner's word: while a run held a Lease, a rollout would wait for its end."""
    monkeypatch.setenv("KUBECONFIG", str(coming.client_kubeconfig()))
    patch(coming, MODEL, {"lifecycle": {"state": "Awake"}})
    coming.wait_for_phase(MODEL, "Serving", 120)
    yield coming
    patch(coming, MODEL, {"lifecycle": {"state": "Auto"}})


def test_no_judgement_fails_while_pods_come_and_go(awake: Stack) -> None:
    with doors_of(awake, MODEL) as doors:
        with scoring(MODEL) as load:
            load.each_scores()
            for disturb in (drain, have_fewer, roll_out):
                disturb(awake, MODEL, load)
        account(awake, MODEL, load, doors)


def test_no_judgement_fails_while_engines_sleep_and_wake(both: Stack) -> None:
    nights(both, 3)


@pytest.mark.parametrize("many", [pytest.param(100, marks=LONG)])
def test_none_does_in_many_nights(both: Stack, many: int) -> None:
    nights(both, many)


@pytest.mark.parametrize("rounds", [pytest.param(3, marks=LONG)])
@pytest.mark.parametrize("name", [MODEL, SGLANG])
def test_none_does_while_they_do_so_again_and_again(awake: Stack, name: str, rounds: int) -> None:
    patch(awake, name, {"lifecycle": {"state": "Awake"}, "replicas": 2})
    awake.wait_for_phase(name, "Serving", START_SECONDS, patient=True)
    try:
        with doors_of(awake, name) as doors:
            with scoring(name) as load:
                load.each_scores()
                for disturb in (drain, roll_out, delete, have_fewer, have_more) * rounds:
                    disturb(awake, name, load)
            account(awake, name, load, doors)
    finally:
        patch(awake, name, {"lifecycle": {"state": "Auto"}})


# -- nights


def nights(stack: Stack, many: int) -> None:
    """Toggle a run's Leases under load, and hear the doors out every time that they are asleep."""
    with ExitStack() as opened:
        leases = [opened.enter_context(lease(name)) for name in (MODEL, SGLANG)]
        say(stack, leases, Phase.SCORING)
        doors = {name: opened.enter_context(doors_of(stack, name)) for name in (MODEL, SGLANG)}
        with ExitStack() as busy:
            loads = {name: busy.enter_context(scoring(name, list(addresses(stack, name).values()))) for name in doors}
            for load in loads.values():
                load.each_scores()
            for _ in range(many):
                slept = say(stack, leases, Phase.IDLE)
                for name, its_doors in doors.items():
                    for door in list(its_doors.by_boot.values()):
                        look_at_night(its_doors, door.address, loads[name])
                woken = say(stack, leases, Phase.SCORING)
                for load in loads.values():
                    load.each_scores()
                print(f"asleep after {slept} s, awake after {woken} s")
        for name, load in loads.items():
            account(stack, name, load, doors[name])
            assert {a.boot_id for a in load.attempts if a.status == 200} == set(doors[name].by_boot), "no engine died"


def lease(name: str) -> LeaseThread:
    """A run's Lease on a model, held as a run holds it."""
    return run_lease(name, run="soak", namespace=NAMESPACE)


def say(stack: Stack, leases: Sequence[LeaseThread], phase: Phase) -> list[float]:
    """Write a phase into the Leases of both models, and wait until they are as it wants them; how long each took."""
    wanted, seconds = ("Serving", "lastWakeSeconds") if phase.wants_awake else ("Asleep", "lastSleepSeconds")
    for held in leases:
        held.set_phase(phase)
    return [stack.wait_for_phase(name, wanted, timeout=120)[seconds] for name in (MODEL, SGLANG)]


def look_at_night(doors: Doors, address: str, load: Load) -> None:
    """Nobody is inside, and who knocks is turned away: the client with the old list does."""
    door = doors.look(address)
    assert (door.document["state"], door.document["inside"]) == ("asleep", 0), door.document
    let_in, knocked = door.let_in, load.turned_away_by(address)
    wait_for("all have read their answers", lambda: len(load.answered_by(door.boot_id)) == let_in, timeout=10)
    wait_for(f"somebody knocks at {address}", lambda: load.turned_away_by(address) > knocked, timeout=30)
    door = doors.look(address)
    assert (door.document["state"], door.document["inside"]) == ("asleep", 0), door.document
    assert door.let_in == let_in, "nobody gets in at night"


# -- what happens to pods


def drain(stack: Stack, name: str, load: Load) -> None:
    """Drain one pod from the node, as `kubectl drain` does it for all: by the eviction API, which asks the budget."""
    victim, other = sorted(addresses(stack, name))
    (node,) = stack.kubectl("get", "nodes", "-o", "name").split()
    stack.kubectl("-n", NAMESPACE, "label", "pod", victim, f"{DRAINED}=yes")
    try:
        stack.kubectl("drain", node, f"--pod-selector={DRAINED}=yes", "--delete-emptydir-data", "--timeout=110s")
        assert "disruption budget" in evict(stack, other), "the budget keeps the one that serves"
        load.each_scores()
    finally:
        stack.kubectl("uncordon", node)
    assert victim not in pods(stack, name)
    settled(stack, name, 2)


def evict(stack: Stack, pod: str) -> str:
    """Ask for an eviction by the API; what the API server says against it, empty if nothing."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    return stack.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction), check=False).stderr


def delete(stack: Stack, name: str, load: Load) -> None:
    victim = min(addresses(stack, name))
    stack.kubectl("-n", NAMESPACE, "delete", "pod", victim, "--wait", timeout=180)
    load.each_scores()
    settled(stack, name, 2)


def have_fewer(stack: Stack, name: str, load: Load) -> None:
    stack.kubectl("-n", NAMESPACE, "scale", "rm", name, "--replicas=1")
    settled(stack, name, 1)
    load.each_scores()


def have_more(stack: Stack, name: str, load: Load) -> None:
    stack.kubectl("-n", NAMESPACE, "scale", "rm", name, "--replicas=2")
    settled(stack, name, 2)
    load.each_scores()


def roll_out(stack: Stack, name: str, load: Load) -> None:
    """A change of the pods' template: every pod is replaced, and every answer from then on is of the new revision."""
    before, known = addresses(stack, name), revisions(load.judgements)
    patch(stack, name, {"podTemplate": {"metadata": {"annotations": {"rollout": f"after {min(before)}"}}}})
    wait_for("no pod is of before", lambda: not set(pods(stack, name)) & set(before), 2 * START_SECONDS, every=0.2)
    settled(stack, name, len(before))
    load.each_scores()  # who asked before has had an answer
    had = len(load.judgements)
    load.each_scores()
    assert len(new := revisions(load.judgements[had:])) == 1 and not new & known, (new, known)


def settled(stack: Stack, name: str, replicas: int) -> None:
    """Wait until so many pods serve, and no other is left."""

    def there() -> bool:
        return len(pods(stack, name)) == replicas and stack.status(name).get("awake") == replicas

    try:
        wait_for(f"{replicas} pods of {name} serve", there, START_SECONDS, every=0.2)
    except AssertionError:
        print(stack.story(name))
        raise


def revisions(judgements: Sequence[Judgement]) -> set[str | None]:
    return {judgement.answer.revision for judgement in judgements if judgement.answer is not None}


def pods(stack: Stack, name: str) -> dict[str, dict[str, Any]]:
    """All engine pods by name, those that are about to end included."""
    selector = f"genrm.dev/reward-model={name},genrm.dev/component=engine"
    return {pod["metadata"]["name"]: pod for pod in stack.items("pods", selector)}


def addresses(stack: Stack, name: str) -> dict[str, str]:
    """Of the engine pods that stay."""
    staying = {name: pod for name, pod in pods(stack, name).items() if "deletionTimestamp" not in pod["metadata"]}
    return {name: pod["status"]["podIP"] for name, pod in staying.items() if pod["status"].get("podIP")}


def patch(stack: Stack, name: str, spec: dict[str, Any]) -> None:
    stack.kubectl("-n", NAMESPACE, "patch", "rm", name, "--type=merge", "-p", json.dumps({"spec": spec}))


# -- accounts


@contextmanager
def doors_of(stack: Stack, name: str) -> Iterator[Doors]:
    """The doors of a model that nobody asks anything at the moment."""
    secret = json.loads(stack.kubectl("-n", SYSTEM_NAMESPACE, "get", "secret", f"{RELEASE}-master-key", "-o", "json"))
    uid = stack.get("rewardmodels", name)["metadata"]["uid"]
    doors = Doors(admin_token(base64.b64decode(secret["data"]["key"]).strip(), NAMESPACE, name, uid))
    try:
        for address in addresses(stack, name).values():
            doors.look(address, at_first=True)
        yield doors
    finally:
        doors.close()


def account(stack: Stack, name: str, load: Load, doors: Doors) -> None:
    """No judgement failed or is missing, and the doors that are still there say what the clients say."""
    print(load)
    load.check()
    for address in addresses(stack, name).values():
        # A door counts a client out a moment after the client has its answer.
        door = wait_for(f"nobody is inside {address}", partial(emptied, doors, address), timeout=10)
        assert door.contradicts(load.answered_by(door.boot_id)) == []


def emptied(doors: Doors, address: str) -> Witnessed | None:
    door = doors.look(address)
    return None if door.document["inside"] else door
