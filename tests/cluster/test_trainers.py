"""Trainers that have GPUs of their own run's reward models for a while, by a Lease on the slot."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name, micro_time
from genrm_scoring.errors import WakeRefused
from genrm_scoring.kubernetes import slot_lease
from genrm_scoring.slot_thread import AsyncSlots

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

SLOT = "gpu-0"


def judge_on(world: World, *devices: int) -> None:
    """Its slots are gpu-0, gpu-1 and so on."""
    slots = [{"name": f"gpu-{i}", "node": "fake-0", "devices": [device]} for i, device in enumerate(devices)]
    world.apply(gpu={"sharing": "Colocated", "slots": slots}, replicas=len(slots))
    world.phase("Asleep")


def blocked(world: World) -> tuple[str, str]:
    condition = world.condition("SlotBlocked")
    return condition.get("reason", ""), condition.get("message", "")


def trainer(world: World, run: str, *, ttl: int, pods: list[str] | None = None) -> str:
    """A trainer's Lease, as `slot_lease` writes it once it has asked; who asks so dies without another word."""
    now = datetime.now(UTC)
    manifest = lease_manifest(run, "judge", world.namespace, Phase.SCORING, now, ttl, slots=SLOT, pods=pods or ())
    manifest["metadata"]["annotations"]["genrm.dev/asked"] = "1"
    world.kubectl("create", "-f", "-", input=json.dumps(manifest))
    name = str(manifest["metadata"]["name"])
    wait_for("it is granted", lambda: word_of(world, name).get("genrm.dev/granted") == "1")
    return name


def gives_back(world: World, lease: str) -> None:
    done = {"metadata": {"annotations": {"genrm.dev/phase": "idle"}}}
    world.kubectl("patch", "lease", lease, "--type=merge", "-p", json.dumps(done))


def word_of(world: World, name: str) -> dict[str, Any]:
    found = world.cluster.reader.get("leases", world.namespace, name)
    return dict(found["metadata"].get("annotations") or {})


async def test_a_trainer_and_its_judge_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    await asyncio.to_thread(judge_on, world, 20)
    world.lease("run-1", Phase.IDLE, ttl=300)
    async with slot_lease("judge", SLOT, run="run-1", namespace=world.namespace) as slot:
        for _ in range(3):
            async with slot.holding(timeout=30):
                assert not await asyncio.to_thread(world.serving)
                (engine,) = await asyncio.to_thread(world.addresses)
                assert world.simulator.pod(engine)["up"] is False
            await asyncio.to_thread(world.renew, "run-1", Phase.SCORING)
            await asyncio.to_thread(world.phase, "Serving")
            await asyncio.to_thread(world.renew, "run-1", Phase.IDLE)


async def test_a_trainer_of_two_gpus_gets_them_together_when_another_trainer_has_given_back_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    await asyncio.to_thread(judge_on, world, 26, 27)
    async with (
        slot_lease("judge", ["gpu-0", "gpu-1"], run="run-1", namespace=world.namespace, ttl_seconds=300) as both,
        slot_lease("judge", "gpu-1", run="run-2", namespace=world.namespace, ttl_seconds=300) as one,
    ):
        async with one.holding(timeout=30):
            waits = asyncio.create_task(held_once(both))
            await asyncio.to_thread(wait_for, "it asks", lambda: "genrm.dev/asked" in word_of(world, both.name))
            async with (
                slot_lease("judge", "gpu-0", run="run-3", namespace=world.namespace) as free,
                free.holding(timeout=30),
            ):
                assert not waits.done(), "a part of what it needs is of no use to it"
        await asyncio.wait_for(waits, 10)  # by no renewal, and not with the next resync


async def held_once(slots: AsyncSlots) -> None:
    async with slots.holding(timeout=60):
        pass


async def test_a_run_that_has_its_own_judges_gpus_is_told_that_neither_would_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    await asyncio.to_thread(judge_on, world, 21)
    async with slot_lease("judge", SLOT, run="run-1", namespace=world.namespace) as slot:
        async with slot.holding(timeout=30):
            world.lease("run-1", Phase.SCORING, ttl=300)
            await asyncio.to_thread(wait_for, "it says so", lambda: blocked(world)[0] == "SlotDeadlock")
            assert "after the rollout" in blocked(world)[1]
        await asyncio.to_thread(world.phase, "Serving")
        with pytest.raises(
            WakeRefused,
            match=rf"slot {SLOT} of reward model .*/judge is not given to this run: SlotDeadlock: run run-1",
        ):
            async with slot.holding(timeout=30):
                raise AssertionError("it has them twice")
        assert world.status()["phase"] == "Serving"


def test_a_run_that_waits_for_its_own_trainer_is_told_so_where_another_run_wants_the_judge_too(world: World) -> None:
    judge_on(world, 28)
    name = trainer(world, "run-1", ttl=300)
    world.lease("run-2", Phase.SCORING, ttl=300)
    world.phase("Waiting")
    world.lease("run-1", Phase.SCORING, ttl=300)
    engines = {run: lease_name(run, "judge") for run in ("run-1", "run-2")}
    said = wait_for("it is told", lambda: word_of(world, engines["run-1"]).get("genrm.dev/refused"))
    assert said.startswith(f"SlotDeadlock: run run-1 holds slot {SLOT} by {world.namespace}/run run-1 (Lease {name})")
    reason, message = blocked(world)
    assert reason == "SlotAwaited" and message.startswith(
        f"slot {SLOT} is {world.namespace}/run run-1 (Lease {name})'s"
    )
    assert "genrm.dev/refused" not in word_of(world, engines["run-2"])
    gives_back(world, name)
    world.phase("Serving")
    wait_for("and told no more", lambda: "genrm.dev/refused" not in word_of(world, engines["run-1"]))


def until_it_is_seen(world: World, name: str) -> None:
    """Wait until the operator has looked at what this Lease says now: of two that it sees in one look none is the last.
    The look at something new may have begun before; the one at the next thing has not."""
    for _ in range(2):
        before = looks(world)
        renewal = {"spec": {"renewTime": micro_time(datetime.now(UTC))}}
        world.kubectl("patch", "lease", name, "--type=merge", "-p", json.dumps(renewal))
        wait_for("a look", lambda before=before: looks(world) > before)  # type: ignore[misc]


def looks(world: World) -> float:
    metrics = httpx.get(f"http://127.0.0.1:{world.operator.metrics_port}/metrics", timeout=5, trust_env=False).text
    (count,) = re.findall(r"^genrm_reconcile_seconds_count (\S+)$", metrics, re.MULTILINE)
    return float(count)


async def test_of_two_trainers_that_take_gpus_in_different_orders_the_last_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    await asyncio.to_thread(judge_on, world, 29, 30)
    async with AsyncExitStack() as leases:
        a_0, a_1, b_0, b_1 = [
            await leases.enter_async_context(
                slot_lease("judge", slot, run=run, namespace=world.namespace, ttl_seconds=300)
            )
            for run in ("run-a", "run-b")
            for slot in ("gpu-0", "gpu-1")
        ]
        async with a_0.holding(timeout=30):
            async with b_1.holding(timeout=30):
                waits = asyncio.create_task(held_once(a_1))
                await asyncio.to_thread(wait_for, "it asks", lambda: "genrm.dev/asked" in word_of(world, a_1.name))
                await asyncio.to_thread(until_it_is_seen, world, a_1.name)
                with pytest.raises(
                    WakeRefused, match=r"SlotDeadlock: run run-a waits for slot gpu-1, which .* has, and"
                ):
                    await held_once(b_0)
                assert not waits.done()
            await asyncio.wait_for(waits, 20)
        await asyncio.wait_for(held_once(b_0), 20)


def test_another_runs_judge_waits_until_the_trainer_says_that_it_is_done(world: World) -> None:
    judge_on(world, 22)
    name = trainer(world, "run-1", ttl=300)
    world.lease("run-2", Phase.SCORING, ttl=300)
    world.phase("Waiting")
    reason, message = blocked(world)
    assert reason == "SlotAwaited" and f"run run-1 (Lease {name})" in message
    world.operator.kill()
    world.operator.start()
    world.patch({"model": {"uri": "hf://test/judge"}})
    wait_for("the next operator knows whose they are", lambda: word_of(world, name).get("genrm.dev/granted") == "1")
    assert world.status()["phase"] == "Waiting" and not world.serving()
    gives_back(world, name)
    world.phase("Serving")
    assert "genrm.dev/granted" not in word_of(world, name)


@pytest.mark.parametrize("mode", ["Engine", "Restart"])
def test_a_trainer_that_says_that_it_is_done_and_keeps_the_memory_is_seen_through(world: World, mode: str) -> None:
    """By the door of the engine that is next: one that starts, and one that wakes."""
    device = 32 if mode == "Engine" else 33
    slots = [{"name": SLOT, "node": "fake-0", "devices": [device]}]
    world.apply(gpu={"sharing": "Colocated", "slots": slots}, replicas=1, lifecycle={"sleep": {"mode": mode}})
    world.phase("Asleep")
    if mode == "Engine":  # it has been up once, and sleeps
        world.lease("run-0", Phase.SCORING)
        world.phase("Serving")
        world.release("run-0")
        wait_for("it sleeps", lambda: [end["state"] for end in world.status()["endpoints"]] == ["Asleep"])
    name = trainer(world, "run-1", ttl=300)
    (engine,) = world.addresses()
    world.simulator.put(engine, faults={"taken": 0.5})
    world.lease("run-2", Phase.SCORING, ttl=300)
    done = {"metadata": {"annotations": {"genrm.dev/phase": "idle"}}}
    world.kubectl("patch", "lease", name, "--type=merge", "-p", json.dumps(done))
    wait_for("it is told", lambda: blocked(world)[0] == "SlotUnseen")
    missing = (
        "37.8 are free, and the engine needs 69.8" if mode == "Engine" else "40.0 are free, and the engine needs 72.0"
    )
    assert f"of a GPU's 80.0 GiB {missing}" in blocked(world)[1]
    assert world.simulator.pod(engine)["up"] is False and world.condition("Degraded")["status"] == "False"
    world.simulator.put(engine, faults={})
    world.phase("Serving")


ENDS = {"somebody deletes its Lease": 23, "somebody deletes its pod": 24, "its pod has failed": 31}


@pytest.mark.parametrize("which", ENDS)
def test_a_trainer_that_died_keeps_the_gpus_until(world: World, which: str) -> None:
    known = "pod" in which
    judge_on(world, ENDS[which])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trainer-0"},
        "spec": {"containers": [{"name": "ray", "image": "none"}]},
    }
    if known:
        world.kubectl("create", "-f", "-", input=json.dumps(pod))
    name = trainer(world, "run-1", ttl=2, pods=["trainer-0"] if known else None)
    world.lease("run-2", Phase.SCORING, ttl=300)
    wait_for("it says whose they were", lambda: blocked(world)[0] == "SlotUnseen")
    assert (
        f"run run-1 (Lease {name}), which names the same GPUs, has them and renews its Lease no more"
        in blocked(world)[1]
    )
    if which == "its pod has failed":  # as of a Job: it stays for those who want to read its log
        failed = {"status": {"phase": "Failed"}}
        world.kubectl("patch", "pod", "trainer-0", "--subresource=status", "--type=merge", "-p", json.dumps(failed))
    elif known:
        world.kubectl("delete", "pod", "trainer-0", "--grace-period=0", "--force")
    else:
        world.kubectl("delete", "lease", name)
    world.phase("Serving", timeout=60)


def test_a_slot_that_the_model_does_not_name_is_refused(world: World) -> None:
    judge_on(world, 25)
    manifest = lease_manifest("run-1", "judge", world.namespace, Phase.SCORING, datetime.now(UTC), slots="gpu-9")
    manifest["metadata"]["annotations"]["genrm.dev/asked"] = "1"
    world.kubectl("create", "-f", "-", input=json.dumps(manifest))
    name = lease_name("run-1", "judge", "gpu-9")
    said = "RewardModel judge names no slot gpu-9; it names gpu-0"
    wait_for("it is told", lambda: word_of(world, name).get("genrm.dev/refused") == said)
