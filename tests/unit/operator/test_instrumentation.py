"""The numbers come from the places that act: a reconciler over a fake API and fake engines, calls over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from aiohttp import web
from genrm_api.rewardmodel import RewardModel
from genrm_operator import transitions
from genrm_operator.doors import Doors
from genrm_operator.errors import (
    ApiError,
    Deposed,
    DoorUnreachable,
    DrainTimeout,
    EngineError,
    EngineHangs,
    Forbidden,
    KindAbsent,
    NotVerified,
    ScoresDiffer,
)
from genrm_operator.kube import Kube
from genrm_operator.memory import Memory
from genrm_operator.metrics import Metrics
from genrm_operator.observed import Pod, Transition
from genrm_operator.reconciler import Reconciler
from genrm_operator.routers import Routers
from genrm_operator.settings import Settings
from kubernetes.aio import client

KEY = ("rl", "judge")
MODEL = {"namespace": "rl", "reward_model": "judge"}


def reward_model(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "genrm.dev/v1alpha1",
        "kind": "RewardModel",
        "metadata": {
            "name": "judge", "namespace": "rl", "uid": "u1", "resourceVersion": "1", "generation": 1, **metadata
        },
        "spec": {
            "type": "Generative",
            "model": {"uri": "hf://org/model"},
            "engine": {"name": "vllm"},
            "replicas": 1,
        },
    }  # fmt: skip


class FakeKube:
    """Takes every write; answers it as the API server would, or with `refuse`."""

    def __init__(self) -> None:
        self.refuse: Exception | None = None
        self.refuse_status: Exception | None = None
        self.applied: dict[str, Mapping[str, Any]] = {}
        """What each Deployment was last, by the RewardModel that it is of."""
        self.conditions: list[dict[str, Any]] = []
        self.events: list[tuple[str, str]] = []
        """What was said, after the uid of whom it is said of."""
        self.refuse_event: Exception | None = None

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        if manifest["kind"] == "Deployment":
            self.applied[manifest["metadata"]["ownerReferences"][0]["name"]] = manifest
        return {**manifest, "metadata": {**manifest["metadata"], "uid": "c", "generation": 1, "resourceVersion": "2"}}

    async def apply_status(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.refuse_status is not None:
            raise self.refuse_status
        self.conditions = manifest["status"]["conditions"]
        return {**reward_model(resourceVersion="3"), "status": manifest["status"]}

    async def create_event(self, regarding: Mapping[str, Any], reason: str, *_: Any, **__: Any) -> None:
        if self.refuse_event is not None:
            raise self.refuse_event
        self.events.append((regarding["uid"], reason))


class World:
    def __init__(self) -> None:
        self.metrics, self.kube = Metrics(), FakeKube()
        settings = Settings(master_key=b"k" * 32, engine_images={"vllm": "vllm:test"})
        self.reconciler = Reconciler(cast(Kube, self.kube), Doors(lambda: None), Routers(), settings, self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        found = self.metrics.registry.get_sample_value(name, labels)
        return None if found is None else float(found)

    def replicas(self, name: str) -> int | None:
        found = self.kube.applied.get(name)
        return None if found is None else int(found["spec"]["replicas"])

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 (numbers notify nobody)
                await asyncio.sleep(0.005)

    def see(self, obj: dict[str, Any], *, deleted: bool = False) -> None:
        self.reconciler.queue.add(self.reconciler.cache.put_reward_model(obj, deleted=deleted).key)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    task = asyncio.create_task(made.reconciler.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_model_is_counted_while_it_is_there(world: World) -> None:
    world.see(reward_model())
    await world.until(lambda: world.value("genrm_reward_models", **MODEL, phase="Pending") == 1)
    assert world.value("genrm_reward_model_replicas", **MODEL) == 1
    assert (world.value("genrm_reconcile_seconds_count") or 0) >= 1
    assert (world.value("genrm_queue_wait_seconds_count") or 0) >= 1
    world.see(reward_model(), deleted=True)
    await world.until(lambda: world.value("genrm_reward_models", **MODEL, phase="Pending") is None)
    assert b'reward_model="judge"' not in world.metrics.text()


async def test_a_model_that_is_being_deleted_is_gone_already(world: World) -> None:
    world.see(reward_model())
    await world.until(lambda: b'reward_model="judge"' in world.metrics.text())
    world.see(reward_model(resourceVersion="9", deletionTimestamp="2026-01-01T00:00:00Z"))
    await world.until(lambda: b'reward_model="judge"' not in world.metrics.text())


@pytest.mark.parametrize(
    ("refuse", "refuse_status", "reason"),
    [
        (Forbidden("PATCH x", 403, "no"), None, "ApplyFailed"),
        (None, Forbidden("PATCH x", 403, "no"), "Forbidden"),
        (None, ApiError("PATCH x", 500, "no"), "ApiError"),
        (None, KeyError("x"), "Bug"),
    ],
)
async def test_a_look_that_fails_is_counted_by_its_reason(
    world: World, refuse: Exception | None, refuse_status: Exception | None, reason: str
) -> None:
    world.kube.refuse, world.kube.refuse_status = refuse, refuse_status
    world.see(reward_model())
    await world.until(lambda: world.value("genrm_reconcile_errors_total", reason=reason) == 1)


async def test_a_look_that_a_late_renewal_dropped_is_taken_once_it_leads_after_all(world: World) -> None:
    """Nothing else may happen to the model for hours: no event brings the next look."""
    world.kube.refuse_status = Deposed("operator-0 does not hold the Lease")
    world.see(reward_model())
    await world.until(lambda: (world.value("genrm_reconcile_seconds_count") or 0) >= 1)
    assert world.kube.conditions == []
    world.kube.refuse_status = None
    await world.until(lambda: world.kube.conditions != [])


async def test_nothing_is_carried_over_to_another_model_of_the_same_name(world: World) -> None:
    world.see(reward_model())
    await world.until(lambda: ("u1", "Starting") in world.kube.events)
    world.see(reward_model(uid="u2", resourceVersion="5"))  # nobody looked in between
    await world.until(lambda: ("u2", "Starting") in world.kube.events)


async def test_an_event_that_a_late_renewal_keeps_from_being_written_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised in a transition it would end all of them, and the process."""

    async def carry_out(*_: Any) -> None:
        raise DrainTimeout("judge-0", "2 inside")

    monkeypatch.setattr(transitions, "run", carry_out)
    world.kube.refuse_event = Deposed("operator-0 does not hold the Lease")
    pod = Pod.from_object({"metadata": {"namespace": "rl", "name": "judge-0", "uid": "p1"}})
    target = transitions.Target(RewardModel.model_validate(reward_model()), pod, cast(Any, None), "token")
    await world.reconciler._transition(KEY, memory := Memory(), Transition.SLEEP, target)
    assert "2 inside" in memory.failures["p1"].message


@pytest.mark.parametrize(
    ("error", "result", "reason"),
    [
        (None, "done", None),
        (DrainTimeout("judge-0", "2 inside"), "failed", "DrainTimeout"),
        (NotVerified("judge-0", "another model"), "failed", "NotVerified"),
        (ZeroDivisionError(), "failed", "Bug"),
    ],
)
async def test_a_transition_is_counted_by_how_it_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception | None, result: str, reason: str | None
) -> None:
    async def carry_out(*_: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(transitions, "run", carry_out)
    rm = RewardModel.model_validate(reward_model())
    pod = Pod.from_object({"metadata": {"namespace": "rl", "name": "judge-0", "uid": "p1"}})
    target = transitions.Target(rm, pod, cast(Any, None), "token")
    await world.reconciler._transition(KEY, Memory(), Transition.WAKE, target)
    ended = world.value("genrm_transition_seconds_count", transition="wake", engine="vllm", result=result)
    assert ended == 1
    if reason is not None:
        labels = {"transition": "wake", "engine": "vllm", "reason": reason}
        assert world.value("genrm_transition_failures_total", **labels) == 1


@pytest.mark.parametrize(
    ("transition", "error", "counts"),
    [
        (Transition.WAKE, EngineError("judge-0", "/wake_up: 500"), True),
        (Transition.WAKE, EngineHangs("judge-0", "the engine hangs, and its door answers"), True),
        (Transition.WAKE, ScoresDiffer("judge-0", "-9.0, not -1.0"), True),
        (Transition.VERIFY, ScoresDiffer("judge-0", "-9.0, not -1.0"), True),
        (Transition.WAKE, DoorUnreachable("judge-0", "no answer"), False),
        (Transition.VERIFY, NotVerified("judge-0", "another model"), False),
        (Transition.VERIFY, DoorUnreachable("judge-0", "no answer"), False),
        (Transition.SLEEP, EngineError("judge-0", "/sleep: 500"), False),
        (Transition.SLEEP, DoorUnreachable("judge-0", "no answer"), False),
        (Transition.WAKE, ApiError("GET x", 503, "no"), False),
        (Transition.WAKE, ZeroDivisionError(), False),
    ],
)
async def test_what_counts_towards_a_pods_end(
    world: World, monkeypatch: pytest.MonkeyPatch, transition: Transition, error: Exception, counts: bool
) -> None:
    """Whom nobody can reach may be well: the network, the node or the operator may be the trouble."""

    async def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(transitions, "run", fail)
    pod = Pod.from_object({"metadata": {"namespace": "rl", "name": "judge-0", "uid": "p1"}})
    target = transitions.Target(RewardModel.model_validate(reward_model()), pod, cast(Any, None), "token")
    memory = Memory()
    await world.reconciler._transition(KEY, memory, transition, target)
    assert memory.unfit == ({"p1": 1} if counts else {})
    assert memory.failures["p1"].message == str(error), "that it failed is told, and it is tried again"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (0, []),
        (2, [("u1", "DrainAborted")]),
        (DrainTimeout("judge-0", "2 inside"), [("u1", "DrainTimedOut")]),
        (EngineError("judge-0", "/sleep: 500"), [("u1", "SleepFailed")]),
    ],
)
async def test_what_became_of_those_who_were_inside_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, ended: int | Exception, said: list[tuple[str, str]]
) -> None:
    async def sleep(*_: Any) -> int:
        if isinstance(ended, Exception):
            raise ended
        return ended

    monkeypatch.setattr(transitions, "run", sleep)
    pod = Pod.from_object({"metadata": {"namespace": "rl", "name": "judge-0", "uid": "p1"}})
    target = transitions.Target(RewardModel.model_validate(reward_model()), pod, cast(Any, None), "token")
    await world.reconciler._transition(KEY, Memory(), Transition.SLEEP, target)
    assert world.kube.events == said
    assert world.value("genrm_aborted_requests_total", engine="vllm") == (ended if isinstance(ended, int) else 0)


async def test_what_a_deposed_leader_could_not_do_counts_as_no_failure_of_the_pod(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise Deposed("the door of pod judge-0 takes orders of epoch 7, and this one was 6")

    monkeypatch.setattr(transitions, "run", refuse)
    pod = Pod.from_object({"metadata": {"namespace": "rl", "name": "judge-0", "uid": "p1"}})
    target = transitions.Target(RewardModel.model_validate(reward_model()), pod, cast(Any, None), "token")
    memory = Memory()
    await world.reconciler._transition(KEY, memory, Transition.WAKE, target)
    assert (memory.failures, memory.unfit) == ({}, {})


# ---------------------------------------------------------------------- calls to the API server


@pytest.fixture
async def answering() -> AsyncIterator[tuple[str, dict[str, int]]]:
    """An API server's address, and the status that it answers with."""
    answer = {"status": 200}

    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"message": "said so"}, status=answer["status"])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answer
    await runner.cleanup()


def manifest(kind: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "rl", "name": "judge"}}


@pytest.mark.parametrize(
    ("call", "verb", "kind"),
    [
        (lambda kube: kube.apply(manifest("Deployment")), "patch", "Deployment"),
        (lambda kube: kube.apply_status(manifest("RewardModel")), "patch", "RewardModel/status"),
        (lambda kube: kube.merge_patch("Pod", "rl", "pods", {}), "patch", "Pod"),
        (lambda kube: kube.create_event({"namespace": "rl", "name": "judge"}, "Why", "note"), "create", "Event"),
    ],
)
@pytest.mark.parametrize("status", [200, 409, 503, 0])
async def test_calls_are_counted_by_verb_kind_and_code(
    answering: tuple[str, dict[str, int]], call: Callable[[Kube], Any], verb: str, kind: str, status: int
) -> None:
    url, answer = answering
    answer["status"] = status
    metrics = Metrics()
    kube = Kube(client.ApiClient(client.Configuration(host=url if status else "http://127.0.0.1:9")), metrics=metrics)
    try:
        if status == 200:
            await call(kube)
        else:
            with pytest.raises(ApiError):
                await call(kube)
    finally:
        await kube.close()
    labels = {"verb": verb, "kind": kind, "code": str(status) if status else "none"}
    assert metrics.registry.get_sample_value("genrm_api_request_seconds_count", labels) == 1


async def test_an_absent_kind_is_no_model_that_went_away(world: World) -> None:
    world.kube.refuse = KindAbsent("PATCH x", 404, "the cluster has no such resource")
    world.see(reward_model())
    await world.until(lambda: "install it" in str(world.kube.conditions))
    assert {c["reason"] for c in world.kube.conditions if c["type"] == "Degraded"} == {"ApplyFailed"}
