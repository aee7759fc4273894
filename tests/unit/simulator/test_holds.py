"""Calls that are held on their way to a pod of the simulator, over real connections."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.simulator import client
from tests.simulator.client import Simulator
from tests.simulator.holds import When

TOKEN = {"Authorization": "Bearer operator"}
ADDRESS = "127.0.100.1"


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with client.running("--token-sha256", hashlib.sha256(b"operator").hexdigest()) as simulator:
        yield simulator


def order(simulator: Simulator, method: str, path: str, epoch: int, seconds: float = 10, **more: object) -> int | None:
    """The answer's status; `None` if its sender hung up before."""
    url = f"http://{ADDRESS}:{simulator.port}{path}"
    try:
        with httpx.Client(timeout=seconds, trust_env=False) as http:
            return http.request(method, url, headers={**TOKEN, "genrm-epoch": str(epoch)}, **more).status_code  # type: ignore[arg-type]
    except httpx.TimeoutException:
        return None


@pytest.mark.parametrize("when", When)
def test_a_call_is_delivered_though_its_sender_is_gone(simulator: Simulator, when: When) -> None:
    simulator.hold(ADDRESS, "POST /wake_up", when)
    assert order(simulator, "POST", "/wake_up", 1, 0.5) is None
    held = simulator.pod(ADDRESS)["held"]
    assert held["reached"] and held["delivered"] is (when is When.AFTER)
    assert simulator.pod(ADDRESS)["heard"] == (["POST /wake_up"] if when is When.AFTER else [])
    simulator.let_go(ADDRESS)
    until(lambda: simulator.pod(ADDRESS)["held"]["delivered"])
    assert simulator.pod(ADDRESS)["held"]["status"] == 200
    assert [c["path"] for c in simulator.pod(ADDRESS)["calls"]].count("/wake_up") == 1


def test_what_comes_too_late_is_refused_by_whoever_has_heard_of_the_next_leader(simulator: Simulator) -> None:
    simulator.hold(ADDRESS, "PUT serving", When.BEFORE)
    assert order(simulator, "PUT", "/genrm/door", 1, 0.5, json={"state": "serving"}) is None
    assert order(simulator, "PUT", "/genrm/door", 2, json={"state": "closed"}) == 200
    simulator.let_go(ADDRESS)
    until(lambda: simulator.pod(ADDRESS)["held"]["delivered"])
    assert simulator.pod(ADDRESS)["held"]["status"] == 409
    assert simulator.pod(ADDRESS)["state"] == "closed"


def test_a_sender_whose_call_is_held_gets_no_further_and_others_do(simulator: Simulator) -> None:
    simulator.hold(ADDRESS, "POST /wake_up", When.BEFORE)
    assert order(simulator, "POST", "/wake_up", 1, 0.5) is None
    assert order(simulator, "POST", "/wake_up", 1, 0.5) is None
    assert simulator.pod(ADDRESS)["heard"] == []
    assert order(simulator, "POST", "/wake_up", 2) == 200


def test_the_calls_before_the_one_that_is_meant_pass(simulator: Simulator) -> None:
    simulator.hold(ADDRESS, "POST /wake_up", When.BEFORE, skip=1)
    assert order(simulator, "POST", "/wake_up", 1) == 200
    assert order(simulator, "POST", "/wake_up", 1, 0.5) is None
