"""Last, because it is final: the engine ends and starts again; what computes is killed, and the probe turns."""

from __future__ import annotations

import os
import time

import httpx
import pytest

from tests.e2e.contract.engines import ADMIN, Engine, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_it_ends_and_starts_again_in_the_same_container(engine: Engine, request: pytest.FixtureRequest) -> None:
    """Real ones do so in real pods, where the kubelet watches (`test_engines`); here when asked to, by hand."""
    if request.node.callspec.params["engine"].endswith("-real") and not os.environ.get("GENRM_RESTART_REAL"):
        pytest.skip("in real pods")
    engine.serve()
    before, verdict = engine.document(), engine.verdict()
    assert engine.put("gated").status_code == 409, "not while it serves"
    assert engine.put("draining").status_code == 200 and not engine.alone()
    assert engine.put("gated").status_code == 200

    def document() -> dict[str, object]:
        try:
            answer = engine.http.get("/genrm/door", headers=ADMIN)
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    began = time.monotonic()
    until(lambda: document().get("bootId", before["bootId"]) != before["bootId"])
    print(f"back at the gate after {time.monotonic() - began:.2f} s")
    gate = document()
    assert gate["state"] == "gated" and engine.alone(), "nothing is left of the engine"
    assert engine.put("closed").status_code == 200
    began = time.monotonic()

    def up() -> bool:
        time.sleep(0.1)  # nobody listens, or the model loads; `until` holds the deadline
        try:
            return bool(engine.http.get("/health").json()["engine"] == "alive")
        except httpx.TransportError:
            return False

    until(up, 300)
    print(f"up again after {time.monotonic() - began:.0f} s")
    assert document()["bootId"] == gate["bootId"]
    engine.serve()
    assert engine.verdict() == verdict
    engine.sleep()
    engine.serve()
    assert engine.verdict() == verdict


def test_a_dead_engine_is_unhealthy(engine: Engine) -> None:
    engine.serve()
    engine.kill()
    began = time.monotonic()

    def unhealthy() -> bool:
        try:
            answer = engine.http.get("/health")
        except httpx.TransportError as error:  # the server took itself down
            print(f"after {time.monotonic() - began:.2f} s: {error!r}")
            return True
        if answer.status_code == 503:
            print(f"after {time.monotonic() - began:.2f} s: {answer.text}")
        return answer.status_code == 503

    until(unhealthy, 30)
