"""A change of the spec, where there are GPUs for one pod more and where there are not: by the scheduler's own word."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from genrm_api.leases import Phase

from tests.cluster.api import Api
from tests.cluster.conftest import World, wait_for
from tests.cluster.test_canary import PAIR

pytestmark = pytest.mark.cluster

NODE = "fake-0"
AWAKE: dict[str, Any] = {"lifecycle": {"state": "Awake"}}
WRONG = {**PAIR, "better": PAIR["worse"], "worse": PAIR["better"]}
CHANGE = {"env": [{"name": "NEW", "value": "1"}]}


def gpus(world: World, count: int) -> dict[str, str]:
    """What `spec.gpu` says for GPUs that are this test's own; the node has so many."""
    resource = f"{world.namespace}.test/gpu"
    has = {resource: str(count)}
    patch = {"status": {"capacity": has, "allocatable": has}}
    world.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    return {"resource": resource}


def pairs(*found: dict[str, str]) -> dict[str, Any]:
    return {"scoring": {"canary": {"pairs": list(found)}}}


def granted(world: World) -> bool:
    return any("genrm.dev/granted" in lease["metadata"].get("annotations", {}) for lease in world.objects("leases"))


def strategy(world: World) -> dict[str, int]:
    (deployment,) = world.objects("deployments")
    return dict(deployment["spec"]["strategy"]["rollingUpdate"])


def joined(world: World) -> list[str]:
    """Addresses of pods that were verified and have taken their place."""
    return [
        pod["status"]["podIP"]
        for pod in world.objects("pods", "genrm.dev/reward-model=judge")
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "genrm.dev/verified" and condition["reason"] == "Joined"
    ]


@contextmanager
def followed(world: World, api_path: str, resources: str, selector: str = "") -> Iterator[list[dict[str, Any]]]:
    """Objects of the world's namespace as they were, and after every change while the block is open."""
    seen: list[dict[str, Any]] = []
    loop = asyncio.new_event_loop()

    async def follow() -> None:
        path = f"{api_path}/namespaces/{world.namespace}/{resources}?labelSelector={selector}"
        async with Api.connect(world.cluster.settings.kubeconfig("admin")) as api:
            async for _, found in api.follow(path):
                seen.append(found)

    task = loop.create_task(follow())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        wait_for("the first word", lambda: seen)
        yield seen
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=30)


class Published:
    """Who was published as serving: one set of addresses for each of its changes."""

    def __init__(self, slices: list[dict[str, Any]]) -> None:
        self._slices = slices

    def __iter__(self) -> Iterator[set[str]]:
        for ready in self._ready():
            yield {address for endpoint in ready for address in endpoint["addresses"]}

    def uids(self) -> Iterator[set[str]]:
        """The same by pod: who comes may have the address of one that has gone."""
        for ready in self._ready():
            yield {endpoint["targetRef"]["uid"] for endpoint in ready}

    def _ready(self) -> Iterator[list[dict[str, Any]]]:
        for found in list(self._slices):
            yield [e for e in found.get("endpoints") or [] if e.get("conditions", {}).get("ready")]

    @property
    def now(self) -> set[str]:
        return list(self)[-1]


@contextmanager
def published(world: World) -> Iterator[Published]:
    selector = "kubernetes.io%2Fservice-name%3Djudge-pods"
    with followed(world, "/apis/discovery.k8s.io/v1", "endpointslices", selector) as slices:
        yield Published(slices)


def replaced(world: World, before: set[str], count: int = 1) -> bool:
    """Whether all pods are others than `before`, and all there are."""
    now = world.objects("pods", "genrm.dev/reward-model=judge")
    return len(now) == count and not before & {pod["metadata"]["uid"] for pod in now}


def uids(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.pods()}


def test_where_a_gpu_is_free_the_old_pod_serves_until_the_new_one_does(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 2), type="Classifier", **AWAKE)
    world.phase("Serving")
    before, (old,), earlier = uids(world), world.addresses(), world.events()
    with published(world) as seen:
        world.patch(CHANGE)
        wait_for("both are there", lambda: len(world.pods()) == 2)
        wait_for("the old one is gone", lambda: replaced(world, before))
        world.phase("Serving")
        (new,) = world.addresses()
        wait_for("the new one is published", lambda: seen.now == {new})
    assert all(seen), f"at no time is nobody there: {list(seen)}"
    assert {address for addresses in seen for address in addresses} == {old, new}
    assert joined(world) == [new], "and nobody who was not verified"
    assert strategy(world) == {"maxSurge": 1, "maxUnavailable": 0}
    reasons = [event[0] for event in world.events() if event not in earlier]
    assert "Recreating" not in reasons and "Unschedulable" not in reasons


def test_a_new_pod_that_is_not_verified_takes_nobodys_place(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 2), type="Classifier", **AWAKE)
    world.phase("Serving")
    before, (old,) = uids(world), world.addresses()
    with published(world) as seen:
        world.patch(CHANGE | pairs(WRONG))
        wait_for("it is told", lambda: world.condition("ScoresVerified").get("reason") == "WorsePreferred")
        assert seen.now == {old} and len(world.pods()) == 2
        world.patch(pairs(PAIR))
        wait_for("it has its place", lambda: replaced(world, before))
        world.phase("Serving")
    assert all(seen), f"at no time is nobody there: {list(seen)}"


def test_where_no_gpu_is_free_the_old_pod_goes_first_and_it_is_told_why(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 1), **AWAKE)
    world.phase("Serving")
    before, earlier = uids(world), world.events()  # the first pod may have come before the scheduler knew of the GPU
    world.patch(CHANGE)
    wait_for("it waits for room", lambda: "finds no room yet" in world.condition("Progressing").get("message", ""))
    assert world.serving() == world.addresses(), "the old one serves meanwhile"
    assert world.condition("Degraded")["status"] == "False"
    with followed(world, "/apis/genrm.dev/v1alpha1", "rewardmodels") as seen:
        wait_for("it is replaced", lambda: replaced(world, before))
        world.phase("Serving")
        wait_for("that is published", lambda: seen[-1]["status"]["phase"] == "Serving")
    told = [c["message"] for rm in seen for c in rm["status"]["conditions"] if c["reason"] == "Recreating"]
    assert told and "Insufficient" in told[0] and "after an old one has gone" in told[0]
    wait_for("the next rollout surges", lambda: strategy(world) == {"maxSurge": 1, "maxUnavailable": 0})
    (deployment,) = world.objects("deployments")
    assert "genrm.dev/recreates" not in deployment["metadata"]["annotations"]
    told_of = [event for event in world.events() if event not in earlier]
    events = [(reason, note) for reason, note in told_of if reason in ("Recreating", "Unschedulable")]
    assert [reason for reason, _ in events] == ["Recreating"] and "Insufficient" in events[0][1]


def test_a_rollout_that_recreates_goes_on_with_the_next_operator(world: World) -> None:
    world.apply(replicas=2, gpu=gpus(world, 2), **AWAKE)
    world.phase("Serving")
    before = uids(world)
    world.patch(CHANGE)
    wait_for("an old one goes first", lambda: strategy(world) == {"maxSurge": 0, "maxUnavailable": 1})
    wait_for("it is told", lambda: "Recreating" in [reason for reason, _ in world.events()])
    world.operator.kill()
    world.operator.start()
    wait_for("both are replaced", lambda: replaced(world, before, 2))
    world.phase("Serving")
    wait_for("the next rollout surges", lambda: strategy(world) == {"maxSurge": 1, "maxUnavailable": 0})
    assert [reason for reason, _ in world.events()].count("Recreating") == 1


def test_where_no_room_would_help_the_old_pod_stays(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 2), **AWAKE)
    world.phase("Serving")
    before = uids(world)
    world.patch({"podTemplate": {"spec": {"nodeSelector": {"there-is": "none"}}}})
    told = wait_for("it is told", lambda: (c := world.condition("Degraded")).get("reason") == "Unschedulable" and c)
    assert "didn't match Pod's node affinity/selector" in told["message"]
    assert before < uids(world) and world.serving() and world.condition("Available")["status"] == "True"
    world.patch({"podTemplate": None})
    wait_for("the pod that nobody needs goes", lambda: uids(world) == before)
    world.phase("Serving")


def test_who_is_told_not_to_surge_does_not(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 2), rollout={"surge": False}, **AWAKE)
    world.phase("Serving")
    before = uids(world)
    with published(world) as seen:
        world.patch(CHANGE)
        wait_for("it is replaced", lambda: replaced(world, before))
        world.phase("Serving")
    assert set() in seen, "the old one has gone first"


def test_a_sleeping_model_is_replaced_by_one_that_sleeps(world: World) -> None:
    world.apply(replicas=2, gpu=gpus(world, 3), lifecycle={"state": "Asleep"})
    world.phase("Asleep")
    before = uids(world)
    world.patch(CHANGE)
    wait_for("both are replaced", lambda: replaced(world, before, 2))
    world.phase("Asleep")
    assert [world.simulator.pod(ip)["asleep"] for ip in world.addresses()] == [True, True]
    status = world.status()
    assert (status["replicas"], status["ready"], status["awake"]) == (2, 2, 0)
    assert strategy(world) == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_run_that_comes_in_the_middle_of_a_rollout_is_scored_by_who_serves(world: World) -> None:
    world.apply(replicas=1, gpu=gpus(world, 2), type="Classifier")
    world.phase("Serving")
    before, (old,) = uids(world), world.addresses()
    with published(world) as seen:
        world.patch(CHANGE | pairs(WRONG))
        wait_for("the rollout is on", lambda: world.condition("ScoresVerified").get("reason") == "WorsePreferred")
        world.lease("run-1", Phase.SCORING)
        world.phase("Serving")
        world.patch(pairs(PAIR))  # now the new one could serve, too
        waits = wait_for("the rollout waits", lambda: world.condition("RolloutWaiting"))
        assert "run-1" in waits["message"] and world.condition("Ready")["status"] == "True"
        wait_for("the run is granted its model", lambda: granted(world))
        seen_by_all = wait_for("a look or two later", lambda: len(world.pods()) == 2 and world.status())
        assert seen.now == {old} and seen_by_all["awake"] == 1
        world.release("run-1")
        wait_for("the rollout goes on", lambda: replaced(world, before))
        world.phase("Serving")
        assert not world.condition("RolloutWaiting")
    assert all(seen), f"at no time is nobody there: {list(seen)}"
