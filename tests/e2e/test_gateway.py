"""The chart's gateway on a real node: its image, a Lease that wakes real vLLM pods, groups between two replicas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dev.bootstrap import ROOT
from dev.our_images import GATEWAY
from dev.stack import RELEASE, SYSTEM_NAMESPACE, Stack
from tests.e2e.conftest import MODEL, NAMESPACE, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(900)]

TEAM = {
    "apiVersion": "genrm.dev/v1alpha1",
    "kind": "RewardFleet",
    "metadata": {"name": "team"},
    "spec": {
        "terms": [
            {"name": "right", "rule": {"kind": "exact"}, "normalise": {"kind": "minmax"}},
            {"name": "judged", "rewardModel": {"name": MODEL}, "weight": 0.1, "gate": {"term": "right"}},
        ]
    },
}


@pytest.fixture
def gateways(asleep: Stack) -> Iterator[list[str]]:
    """Addresses of two gateway pods; installed by the chart, beside an operator that goes on."""
    reference, archive = GATEWAY.build()
    if not asleep.cluster.has_image(reference):
        asleep.cluster.load_image(archive)
    asleep.apply(TEAM)
    tag = reference.rpartition(":")[2]
    values = {
        "gateways": [{"namespace": NAMESPACE, "replicas": 2, "default": "team", "patience": 20}],
        "gatewayImage": {"repository": GATEWAY.repository, "tag": tag, "pullPolicy": "Never"},
    }
    chart = str(ROOT / "charts" / "genrm-operator")
    command = ["upgrade", RELEASE, chart, "-n", SYSTEM_NAMESPACE, "--reuse-values", "--wait", "--timeout", "120s"]
    asleep.helm(*command, "--values", "-", input=json.dumps(values))
    selector = "app.kubernetes.io/name=genrm-gateway"
    pods = json.loads(asleep.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"))["items"]
    yield [f"http://{pod['status']['podIP']}:6009" for pod in pods]
    asleep.helm(*command, "--set", "gateways=null")
    asleep.kubectl("-n", NAMESPACE, "delete", "rewardfleet", "team")


def score(url: str, response: str, group: str = "", size: int = 1) -> dict[str, Any]:
    body = {"data_source": "d", "solution_str": response, "ground_truth": "4", "prompt_str": "What is 2 + 2?",
            "response_str": response}  # fmt: skip
    query = {"group": group, "group_size": str(size)} if size > 1 else {}
    answer = httpx.post(f"{url}/get_reward2", params=query, json=body, timeout=180, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_group_whose_members_come_to_either_gateway_wakes_the_judge_and_is_scored_together(
    asleep: Stack, gateways: list[str]
) -> None:
    assert len(gateways) == 2
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(score, gateways[n % 2], r, "g", 4) for n, r in enumerate(("4", "5", "4", "6"))]
        found = [future.result(180) for future in asked]
    assert [answer["right"] for answer in found] == [1.0, -1.0, 1.0, -1.0], "the scale of a group of four"
    assert all("judged" in answer for answer in (found[0], found[2]))
    asleep.wait_for_phase(MODEL, "Asleep", timeout=120, patient=True)
    leases = asleep.kubectl("-n", NAMESPACE, "get", "leases", "-l", f"genrm.dev/reward-model={MODEL}", "-o", "name")
    assert not leases.strip(), "it needs nobody any more"


def test_an_engine_that_sleeps_wakes_for_a_stream_and_its_words_come_one_by_one(
    asleep: Stack, gateways: list[str]
) -> None:
    asked = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 16, "ignore_eos": True, "stream": True}
    url, body = f"{gateways[0]}/v1/chat/completions", {"model": MODEL, **asked}
    with httpx.stream("POST", url, json=body, timeout=180, trust_env=False) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line]
    assert len(events) > 3 and events[-1] == "data: [DONE]" and not any('"error"' in event for event in events)


def test_a_gateway_that_dies_takes_no_group_with_it(asleep: Stack, gateways: list[str]) -> None:
    name = "genrm-operator-gateway-1"
    uid = json.loads(asleep.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "json"))["metadata"]["uid"]
    asleep.kubectl("-n", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(score, gateways[0], response, "h", 2) for response in ("5", "4")]
        assert [future.result(180)["right"] for future in asked] == [-1.0, 1.0]

    def back() -> bool:
        pod = json.loads(asleep.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "json", check=False) or "{}")
        ready = [c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "Ready"]
        return bool(ready) and pod["metadata"]["uid"] != uid and ready[0]["status"] == "True"

    wait_for("another pod of its name", back, timeout=60)
