"""A RewardFleet's status, and runs that share one, on a real control plane."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from genrm_api.leases import Phase
from genrm_scoring.kubernetes import run_lease

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

FLEET = {
    "apiVersion": "genrm.dev/v1alpha1",
    "kind": "RewardFleet",
    "metadata": {"name": "mix"},
    "spec": {
        "terms": [
            {"name": "right", "rule": {"kind": "exact"}},
            {"name": "judged", "rewardModel": {"name": "judge"}},
        ]
    },
}


def status(world: World) -> dict[str, Any]:
    (found,) = world.objects("rewardfleets")
    return dict(found.get("status") or {})


def test_a_fleet_says_what_its_models_keep_it_from(world: World) -> None:
    world.kubectl("apply", "-f", "-", input=json.dumps(FLEET))
    wait_for("the model is missed", lambda: status(world).get("phase") == "Degraded", 30)
    (condition,) = status(world)["conditions"]
    assert condition["reason"] == "ModelMissing" and "no RewardModel judge" in condition["message"]
    world.apply()
    wait_for("the fleet is ready", lambda: status(world)["phase"] == "Ready", 60)
    assert (status(world)["models"], status(world)["ready"]) == (1, 1)
    header, row = world.kubectl("get", "rewardfleets").stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "READY", "MODELS", "COMBINE", "AGE"]
    assert row.split()[:5] == ["mix", "Ready", "1", "1", "add"]
    world.kubectl("delete", "rm", "judge")
    wait_for("the model is missed again", lambda: status(world)["phase"] == "Degraded", 30)


MODELS = ("judge", "critic")
TTL = 4
A_RUN = """
import asyncio, sys
from genrm_api.leases import Phase
from genrm_scoring.fleet_leases import fleet_lease
from genrm_scoring.kubernetes import connect

async def main(run, namespace, ttl):
    async with connect() as cluster, fleet_lease(cluster, run, "mix", namespace, int(ttl)) as lease:
        lease.set_phase(Phase.SCORING)
        await lease.awake(60)
        print("awake", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def a_run_that_will_crash(world: World, run: str) -> Iterator[subprocess.Popen[str]]:
    """It scores all the time. The block begins when every model is awake for it."""
    command = [sys.executable, "-c", A_RUN, run, world.namespace, str(TTL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "awake\n"
            yield process
        finally:
            process.kill()


def test_runs_that_share_a_fleet_keep_each_of_its_models_awake_as_long_as_one_needs_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.settings.kubeconfig("admin")))
    terms = [{"name": name, "rewardModel": {"name": name}} for name in MODELS]
    world.kubectl("apply", "-f", "-", input=json.dumps({**FLEET, "spec": {"terms": terms}}))
    for name in MODELS:
        world.apply(name, replicas=1)
    for name in MODELS:
        world.phase("Asleep", name)
    slept = [world.calls("/sleep", name) for name in MODELS]

    def held_by(name: str) -> dict[str, str]:
        return {held["run"]: held["phase"] for held in world.status(name).get("leases", [])}

    with run_lease("mix", run="one", namespace=world.namespace) as one:
        one.set_phase(Phase.SCORING)
        one.awake(60)
        wait_for("both are published", lambda: [len(world.serving(name)) for name in MODELS] == [1, 1])
        with a_run_that_will_crash(world, "two") as two:
            one.set_phase(Phase.IDLE)
            idle = {"one": "idle", "two": "scoring"}
            wait_for("one needs none, two needs both", lambda: [held_by(name) for name in MODELS] == [idle, idle])
            assert [world.status(name)["phase"] for name in MODELS] == ["Serving", "Serving"]
            assert [world.calls("/sleep", name) for name in MODELS] == slept, "nobody slept in between"
            two.kill()
            crashed = time.monotonic()
        for name in MODELS:
            world.phase("Asleep", name)
        assert time.monotonic() - crashed <= TTL + 2 + 1, "TTL, the sleep, and 2 s"
        world.lease("three", Phase.SCORING, name="judge")
        world.phase("Serving", "judge")
        assert world.status("critic")["phase"] == "Asleep", "a run on one model wakes no other"
        one.set_phase(Phase.SCORING)
        one.awake(60)
    world.phase("Asleep", "critic")
    wait_for("judge is needed by the third alone", lambda: held_by("judge") == {"three": "scoring"})
    assert world.status("judge")["phase"] == "Serving"
