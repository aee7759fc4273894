"""A pod is deleted while clients score through the Service: the real kubelet runs the hook, and no request is lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name

from dev.stack import Stack
from tests.e2e.conftest import MODEL, NAMESPACE, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SELECTOR = f"genrm.dev/reward-model={MODEL}"
QUESTION = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Is 2+2=4?"}],
    "max_tokens": 64,
    "ignore_eos": True,
}


class Client(threading.Thread):
    """Scores without a pause; keeps its connection for as long as the server does, as clients in a cluster do."""

    def __init__(self, url: str, seen: Counter[str]) -> None:
        super().__init__()
        self.url, self.seen, self.stop = url, seen, threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False, verify=False) as http:
            while not self.stop.is_set():
                try:
                    answer = http.post("/v1/chat/completions", json=QUESTION)
                    reason = answer.json()["choices"][0]["finish_reason"] if answer.status_code == 200 else ""
                    self.seen[f"{answer.status_code} {reason}".strip()] += 1
                except httpx.HTTPError as error:
                    self.seen[repr(error)] += 1


@contextmanager
def scoring(url: str, clients: int) -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()
    threads = [Client(url, seen) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join(120)


def test_clients_see_nothing_of_it(asleep: Stack) -> None:
    stack = asleep
    stack.apply(lease_manifest("deletion", MODEL, NAMESPACE, Phase.SCORING, datetime.now(UTC), ttl_seconds=600))
    stack.wait_for_phase(MODEL, "Serving", timeout=120)
    service = json.loads(stack.kubectl("-n", NAMESPACE, "get", "service", MODEL, "-o", "json"))
    victim = stack.items("pods", SELECTOR)[0]["metadata"]["name"]
    with scoring(f"http://{service['spec']['clusterIP']}", clients=4) as seen:
        wait_for("judgements", lambda: sum(seen.values()) >= 8, timeout=120)
        stack.kubectl("-n", NAMESPACE, "delete", "pod", victim, "--wait", timeout=180)
        after = sum(seen.values())
        wait_for("judgements by the other pod", lambda: sum(seen.values()) >= after + 8, timeout=120)
    print(dict(seen))
    assert set(seen) == {"200 length"}
    events = [e for e in stack.items("events") if e["involvedObject"].get("name") == victim]
    assert "FailedPreStopHook" not in {event["reason"] for event in events}, events
    stack.kubectl("-n", NAMESPACE, "delete", "lease", lease_name("deletion", MODEL))
