"""Two operators, one acts: real processes against a real API server."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest
from genrm_api.leases import Phase

from tests.cluster.conftest import RELEASE, SYSTEM, Operator, World, wait_for
from tests.simulator.holds import When

pytestmark = pytest.mark.cluster


@pytest.fixture
def standby(world: World) -> Iterator[Operator]:
    """A second operator beside the one that leads."""
    wait_for("the first one leads", lambda: holder(world) == world.operator.name)
    second = dataclasses.replace(
        world.operator, name="operator-1", log=world.operator.log.with_name("log-1"), process=None
    )
    second.log.unlink(missing_ok=True)
    second.start()
    wait_for("it stands by", lambda: "standing by" in second.log.read_text())
    yield second
    if not world.operator.alive():
        world.operator.start()
    second.kill(signal.SIGTERM)
    wait_for("the first one leads again", lambda: holder(world) == world.operator.name)
    assert not re.search(r"Traceback|by a bug of ours|WARNING.*: 403: ", second.log.read_text())


def lease(world: World) -> dict[str, object]:
    found = world.cluster.kubectl("-n", SYSTEM, "get", "lease", RELEASE, "-o", "json", check=False).stdout
    return dict(json.loads(found)) if found else {}


def holder(world: World) -> str:
    spec = lease(world).get("spec")
    return str(spec["holderIdentity"]) if isinstance(spec, dict) else ""


def epoch(world: World) -> int:
    meta = lease(world)["metadata"]
    assert isinstance(meta, dict)
    return int(meta["annotations"]["genrm.dev/epoch"])


def orders(world: World) -> dict[str, int | None]:
    """The epoch that each pod's door obeys."""
    return {ip: pod["epoch"] for ip, pod in world.simulator.pods().items() if ip in world.addresses()}


def test_a_leader_that_ends_hands_over_at_once_and_nothing_is_done_twice(world: World, standby: Operator) -> None:
    world.apply()
    world.phase("Asleep")
    before, children = epoch(world), {o["metadata"]["uid"] for o in world.objects("deployments,services,configmaps")}
    assert set(orders(world).values()) == {before}
    began = time.monotonic()
    world.operator.kill(signal.SIGTERM)
    wait_for("the other leads", lambda: holder(world) == standby.name)
    assert time.monotonic() - began < 5, "no waiting for the Lease to run out"
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")
    assert epoch(world) > before and set(orders(world).values()) == {epoch(world)}
    assert set(world.calls("/wake_up").values()) == {1}
    assert {o["metadata"]["uid"] for o in world.objects("deployments,services,configmaps")} == children


def test_a_leader_that_is_lost_is_replaced_within_its_lease(world: World, standby: Operator) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("run-1", Phase.SCORING, ttl=120)
    began = time.monotonic()
    world.operator.kill(signal.SIGKILL)
    wait_for("the other leads", lambda: holder(world) == standby.name, timeout=25)
    assert time.monotonic() - began < 15 + 2 + 3
    world.phase("Serving")


def test_a_leader_that_was_frozen_changes_nothing_when_it_comes_back(world: World, standby: Operator) -> None:
    world.apply()
    world.phase("Asleep")
    slow, _ = world.addresses()
    world.simulator.hold(slow, "POST /wake_up", When.BEFORE)
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("its order is on the way", lambda: world.simulator.pod(slow)["held"]["reached"])
    world.operator.signal(signal.SIGSTOP)
    wait_for("the other leads", lambda: holder(world) == standby.name, timeout=25)
    world.phase("Serving")
    now = epoch(world)
    world.simulator.let_go(slow)
    wait_for("the order arrives", lambda: world.simulator.pod(slow)["held"]["delivered"])
    assert world.simulator.pod(slow)["held"]["status"] == 409, "its epoch is over"
    world.operator.signal(signal.SIGCONT)
    wait_for("the deposed one ends", lambda: not world.operator.alive())
    assert "leadership lost" in world.operator.log.read_text()
    assert holder(world) == standby.name and epoch(world) == now
    assert world.status()["phase"] == "Serving" and set(world.calls("/wake_up").values()) == {1}


def test_a_lease_that_somebody_deletes_is_made_anew_with_a_larger_epoch(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    before = epoch(world)
    world.operator.attended = False
    world.cluster.kubectl("-n", SYSTEM, "delete", "lease", RELEASE)
    wait_for("the leader ends rather than to lead without a Lease", lambda: not world.operator.alive())
    world.operator.start()
    wait_for("it leads again", lambda: holder(world) == world.operator.name)
    assert epoch(world) > before
    world.lease("run-1", Phase.SCORING)
    world.phase("Serving")


def test_a_leader_that_is_killed_again_and_again_makes_everything_once(world: World, standby: Operator) -> None:
    """A container that ends starts again under the name of its pod, so it may lead again at once, or be too late."""
    names = [f"judge-{number}" for number in range(8)]
    for name in names:
        world.apply(name)
    for kills in range(3):
        leader = next(o for o in (world.operator, standby) if o.name == holder(world))
        leader.kill(signal.SIGKILL)
        leader.start()
        wait_for("somebody leads, and gets on", partial(more_settled_than, world, names, 2 * kills), timeout=60)
    for name in names:
        world.phase("Asleep", name, timeout=60)
    kinds = "deployments,services,configmaps,networkpolicies,poddisruptionbudgets"
    assert len(world.objects(kinds, "genrm.dev/reward-model")) == 6 * len(names)
    assert {d["metadata"]["generation"] for d in world.objects("deployments")} == {1}, "none was changed"
    assert len(world.objects("replicasets")) == len(names)
    assert {tuple(world.calls("/sleep", name).values()) for name in names} == {(1, 1)}, "no engine sleeps twice"


def more_settled_than(world: World, names: list[str], number: int) -> bool:
    return sum(bool(world.status(name).get("phase") == "Asleep") for name in names) > number
