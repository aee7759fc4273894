"""Manifests that pass the schema and cannot work, on a real kubelet: the status says why, and heals by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dev import images
from dev.stack import Stack
from tests.e2e.conftest import NAMESPACE, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NOTICE_SECONDS = 10.0
"""From when Kubernetes knows to when the RewardModel says so."""
SERVE = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as number 1 of its container it would not hear of it
http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)
"""
SERVER = {"name": "custom", "image": images.VLLM, "custom": {"command": ["python3", "-c", SERVE]}}


def model(name: str, **spec: Any) -> dict[str, Any]:
    defaults = {
        "model": {"uri": "hf://a/b"},
        "engine": SERVER | {"custom": SERVER["custom"] | {"healthPath": "/"}},  # type: ignore[operator]
        "resources": {"limits": {"memory": "256Mi"}},
    }
    return {
        "apiVersion": "genrm.dev/v1alpha1",
        "kind": "RewardModel",
        "metadata": {"name": name},
        "spec": defaults | spec,
    }


def token_from(secret: str) -> list[dict[str, Any]]:
    return [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}]


CRASHES = SERVER | {"custom": {"command": ["python3", "-c", "raise SystemExit('no such flag: --nope')"]}}

CASES: list[tuple[str, Mapping[str, Any], str, str]] = [
    ("no-secret", {"env": token_from("missing")}, "ContainerConfigError", 'secret "missing" not found'),
    ("no-claim", {"model": {"uri": "pvc://missing/x"}}, "Unschedulable", 'persistentvolumeclaim "missing" not found'),
    ("no-image", {"engine": SERVER | {"image": "genrm.test/none:1"}}, "ImagePullFailed", "spec.engine.image"),
    ("no-gpu", {"gpu": {}}, "Unschedulable", "Insufficient nvidia.com/gpu"),
    ("no-account", {"serviceAccountName": "nobody"}, "PodsRefused", "nobody"),
    ("crashes", {"engine": CRASHES}, "EngineCrashed", "no such flag: --nope"),
]


def degraded(stack: Stack, name: str) -> dict[str, Any]:
    found = (c for c in stack.status(name).get("conditions") or [] if c["type"] == "Degraded")
    return next(found, {})


@pytest.fixture(scope="module")
def broken(asleep_stack: Stack) -> Iterator[Stack]:
    """All of them at once: what ails one must not hold up another."""
    stack = asleep_stack
    stack.apply(*(model(name, **spec) for name, spec, _, _ in CASES))
    yield stack
    for name, *_ in CASES:
        stack.kubectl("-n", NAMESPACE, "delete", "rm", name, "--wait=false")
    for name, *_ in CASES:
        stack.wait_for_no_children(name, timeout=60)


@pytest.fixture(scope="module")
def asleep_stack(stack: Stack) -> Stack:
    stack.wait_for_phase("judge", "Asleep", timeout=300, patient=True)
    return stack


@pytest.mark.parametrize(("name", "reason", "words"), [(n, r, w) for n, _, r, w in CASES])
def test_what_cannot_work_says_why(broken: Stack, name: str, reason: str, words: str) -> None:
    condition = wait_for(
        f"{name} is Degraded", lambda: (c := degraded(broken, name)).get("status") == "True" and c, timeout=60
    )
    assert condition["reason"] == reason, condition
    assert words in condition["message"], condition
    assert broken.status(name)["phase"] == "Degraded"
    told = [e for e in broken.items("events") if e["involvedObject"]["name"] == name and e["type"] == "Warning"]
    assert [e["reason"] for e in told if e["involvedObject"]["kind"] == "RewardModel"][:1] == [reason]


def test_a_crash_loop_is_told_once_and_written_once(broken: Stack) -> None:
    def restarts() -> int:
        pods = broken.items("pods", "genrm.dev/reward-model=crashes")
        return sum(c["restartCount"] for p in pods for c in p["status"].get("containerStatuses") or [])

    wait_for("it has crashed twice", lambda: restarts() >= 2, timeout=60)
    before, version = restarts(), broken.get("rewardmodels", "crashes")["metadata"]["resourceVersion"]
    wait_for("it crashes on", lambda: restarts() > before, timeout=90)
    assert broken.get("rewardmodels", "crashes")["metadata"]["resourceVersion"] == version, "the same trouble, no write"
    told = [e for e in broken.items("events") if e["involvedObject"]["name"] == "crashes"]
    assert [e["reason"] for e in told if e["involvedObject"]["kind"] == "RewardModel"].count("EngineCrashed") == 1


def test_it_heals_when_the_secret_comes(broken: Stack) -> None:
    broken.kubectl("-n", NAMESPACE, "create", "secret", "generic", "missing", "--from-literal=token=x")
    broken.wait_for_phase("no-secret", "Serving", timeout=90, patient=True)
    assert degraded(broken, "no-secret")["status"] == "False"


def test_it_heals_when_the_manifest_is_corrected_and_says_it_in_time(broken: Stack) -> None:
    broken.apply(model("no-account"))
    broken.wait_for_phase("no-account", "Serving", timeout=60, patient=True)
    broken.apply(model("no-account", env=token_from("none-of-these")))

    def pod_knows() -> bool:
        pods = broken.items("pods", "genrm.dev/reward-model=no-account")
        waiting = [c["state"].get("waiting") or {} for p in pods for c in p["status"].get("containerStatuses") or []]
        return any(w.get("reason") == "CreateContainerConfigError" for w in waiting)

    wait_for("the kubelet says so", pod_knows, timeout=60)
    known = time.monotonic()
    wait_for("so do we", lambda: degraded(broken, "no-account").get("status") == "True", timeout=NOTICE_SECONDS)
    assert time.monotonic() - known < NOTICE_SECONDS
