"""A RewardFleet's status, on a real control plane."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
