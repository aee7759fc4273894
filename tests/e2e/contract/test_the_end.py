"""Last, because it is final: what computes is killed, and the probe that the kubelet asks turns."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.e2e.contract.engines import Engine, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


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
