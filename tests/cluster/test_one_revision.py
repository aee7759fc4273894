"""A run that begins while a change goes from slot to slot: one revision scores it, whatever becomes of the rollout."""

from __future__ import annotations

import json
from typing import Any

import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import World, wait_for
from tests.cluster.test_canary import PAIR
from tests.cluster.test_slots import colocated
from tests.cluster.test_surge import AWAKE, CHANGE, WRONG, granted, pairs, published, replaced, uids

pytestmark = pytest.mark.cluster


def by_slot(world: World) -> dict[str, dict[str, Any]]:
    return {pod["metadata"]["labels"]["genrm.dev/slot"]: pod for pod in world.pods()}


def begun(world: World) -> dict[str, dict[str, Any]]:
    """The pods once the one of the first slot is a new one, which serves nobody: it does not pass its canary."""
    before = uids(world)
    world.patch(CHANGE | pairs(WRONG))
    wait_for("the first one is new", lambda: len(world.pods()) == len(before) and len(uids(world) - before) == 1)
    wait_for("it is told", lambda: world.condition("ScoresVerified").get("reason") == "WorsePreferred")
    return by_slot(world)


def test_who_was_there_before_scores_the_run_and_the_rollout_waits(world: World) -> None:
    world.apply(**colocated(41, 42), type="Classifier", **AWAKE)
    world.phase("Serving")
    before = uids(world)
    (old,) = (pod for pod in begun(world).values() if pod["metadata"]["uid"] in before)
    with published(world) as seen:
        wait_for("the old one is known", lambda: seen.now == {old["status"]["podIP"]})
        world.lease("run-1", Phase.SCORING)
        wait_for("the run is granted who may score it", lambda: granted(world))
        world.patch(pairs(PAIR))  # now the new one could serve, too
        waits = wait_for("the rollout waits", lambda: world.condition("RolloutWaiting"))
        assert "run-1" in waits["message"]
        wait_for("the new one rests, without its GPUs", lambda: _states(world, before) == {"Gated"})
        assert world.condition("Ready")["status"] == "True"
        assert "1 of another revision may not score the run" in world.condition("Ready")["message"]
        assert set(map(frozenset, seen)) == {frozenset({old["status"]["podIP"]})}, "nobody else, at any time"
        world.release("run-1")
        wait_for("the rollout goes on", lambda: replaced(world, before, 2))
    world.phase("Serving")
    assert not world.condition("RolloutWaiting")


def _states(world: World, before: set[str]) -> set[str]:
    return {e["state"] for e in world.status()["endpoints"] if e["uid"] not in before}


def test_who_is_new_scores_the_run_and_the_rollout_goes_on(world: World) -> None:
    world.apply(**colocated(43, 44, 45), type="Classifier", **AWAKE)
    world.phase("Serving")
    before = uids(world)
    first = begun(world)["gpu-43"]
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}}
    world.kubectl("create", "-f", "-", input=json.dumps(quota | {"spec": {"hard": {"pods": "2"}}}))
    wait_for("it counts", lambda: world.kubectl("get", "quota", "full", "-o", "jsonpath={.status.used.pods}").stdout)
    world.patch(pairs(PAIR))
    wait_for("the second slot has no pod", lambda: set(by_slot(world)) == {"gpu-43", "gpu-45"})
    last = by_slot(world)["gpu-45"]
    assert last["metadata"]["uid"] in before
    new, old = first["status"]["podIP"], last["status"]["podIP"]
    wait_for("both serve", lambda: world.serving() == sorted([new, old]))

    world.lease("run-1", Phase.SCORING)
    wait_for("the new one alone scores the run", lambda: world.serving() == [new])
    with published(world) as seen:
        world.kubectl("delete", "resourcequota", "full")
        wait_for("the rollout goes on", lambda: replaced(world, before, 3))
        world.phase("Serving")
        wait_for("the run is granted its model", lambda: granted(world))
        wait_for("all of it", lambda: len(seen.now) == 3)
    assert all(first["metadata"]["uid"] in served and not served & before for served in seen.uids())
    assert world.status()["leases"] == [{"run": "run-1", "phase": "scoring"}] and not world.condition("RolloutWaiting")
