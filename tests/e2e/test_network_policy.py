"""Who reaches an engine's port on a real node, when the NetworkPolicies that the operator writes are enforced.

The node has no enforcer, so a test double stands in for one (`policy_double` says what it shows and what not).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dev import images
from dev.stack import RELEASE, SYSTEM_NAMESPACE, Stack
from tests.e2e.conftest import wait_for
from tests.e2e.policy_double import PolicyDouble, enforced

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NAME = "guarded"
ELSEWHERE = "web"
TEAM = {"namespaceSelector": {"matchLabels": {"team": "platform"}}}
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    print("in")
except OSError as error:
    print("out:", error)
"""
SERVE = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
http.server.test(http.server.SimpleHTTPRequestHandler, bind="0.0.0.0", port=8000)
"""
Picture = dict[str, bool]
EVERYBODY: Picture = dict.fromkeys(("same namespace", "other namespace", "operator", "host network", "its node"), True)


def server() -> dict[str, Any]:
    """A reward model as light as can be."""
    how = {"command": ["python3", "-c", SERVE], "healthPath": "/"}
    spec = {
        "model": {"uri": "hf://a/b"},
        "engine": {"name": "custom", "image": images.VLLM, "custom": how},
        "resources": {"limits": {"memory": "256Mi"}},
    }
    return {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": NAME}, "spec": spec}


def client(name: str) -> dict[str, Any]:
    container = {
        "name": "client",
        "image": images.VLLM,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", "import signal; signal.pause()"],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def guarded(node: Stack) -> Iterator[Stack]:
    node.kubectl("create", "namespace", ELSEWHERE)
    node.apply(server())
    for namespace in (node.namespace, ELSEWHERE):
        node.kubectl("-n", namespace, "apply", "-f", "-", input=json.dumps(client("client")))
    node.wait_for_phase(NAME, "Serving", timeout=120, patient=True)
    for namespace in (node.namespace, ELSEWHERE):
        node.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    yield node
    node.kubectl("delete", "namespace", ELSEWHERE, "--wait=false")
    node.kubectl("-n", node.namespace, "delete", "pod/client", f"rm/{NAME}", "--wait=false")
    node.wait_for_no_children(NAME, timeout=60)


@pytest.fixture(scope="module")
def policies(guarded: Stack) -> Iterator[PolicyDouble]:
    with enforced(guarded.cluster) as double:
        yield double


def picture(stack: Stack, address: str, port: int) -> Picture:
    """Who gets through to an address."""

    def from_pod(namespace: str, pod: str) -> bool:
        words = ("exec", pod, "--", "python3", "-c", CONNECT, address, str(port))
        return _is_in(stack.kubectl("-n", namespace, *words))

    def from_here() -> bool:
        """This machine is to the cluster what a trainer's node is whose pods use its network: an address."""
        try:
            socket.create_connection((address, port), 5).close()
        except OSError:
            return False
        return True

    def from_node() -> bool:
        command = [sys.executable, "-c", CONNECT, address, str(port)]
        return _is_in(stack.cluster.popen_in_box(command, stdout=subprocess.PIPE, text=True).communicate(timeout=30)[0])

    return {
        "same namespace": from_pod(stack.namespace, "client"),
        "other namespace": from_pod(ELSEWHERE, "client"),
        "operator": from_pod(SYSTEM_NAMESPACE, f"deploy/{RELEASE}"),
        "host network": from_here(),
        "its node": from_node(),
    }


def _is_in(said: str) -> bool:
    assert said.startswith(("in", "out:")), said
    return said.startswith("in")


def engine_address(stack: Stack) -> str:
    (pod,) = stack.items("pods", f"genrm.dev/reward-model={NAME}")
    return str(pod["status"]["podIP"])


def allow(stack: Stack, policies: PolicyDouble, access: dict[str, Any] | None) -> None:
    """Write `spec.access`, and have the policy enforced that the operator makes of it."""
    before = stack.get("networkpolicies", NAME)["spec"]
    patch = json.dumps({"spec": {"access": access}})
    stack.kubectl("-n", stack.namespace, "patch", "rm", NAME, "--type=merge", "-p", patch)
    wait_for("the policy follows", lambda: stack.get("networkpolicies", NAME)["spec"] != before, timeout=30)
    policies.enforce()


def test_without_an_enforcer_everybody_gets_through(guarded: Stack) -> None:
    """So what the others see is the double's doing. Runs before it is there."""
    assert picture(guarded, engine_address(guarded), 8000) == EVERYBODY


def test_without_access_the_own_namespace_and_the_operator_get_through(guarded: Stack, policies: PolicyDouble) -> None:
    expected = EVERYBODY | {"other namespace": False, "host network": False}
    assert picture(guarded, engine_address(guarded), 8000) == expected
    service = guarded.get("services", NAME)["spec"]["clusterIP"]
    assert picture(guarded, service, 80) == expected, "the Service is no way around"


def test_a_labelled_namespace_gets_through_and_the_own_one_no_more(guarded: Stack, policies: PolicyDouble) -> None:
    allow(guarded, policies, {"clients": [TEAM]})
    nobody = EVERYBODY | {"same namespace": False, "other namespace": False, "host network": False}
    assert picture(guarded, engine_address(guarded), 8000) == nobody
    guarded.kubectl("label", "namespace", ELSEWHERE, "team=platform")
    policies.enforce()
    assert picture(guarded, engine_address(guarded), 8000) == nobody | {"other namespace": True}


def test_a_client_on_its_nodes_network_needs_an_ip_block(guarded: Stack, policies: PolicyDouble) -> None:
    host = guarded.cluster.settings.host_address
    allow(guarded, policies, {"clients": [{"ipBlock": {"cidr": f"{host}/32"}}]})
    expected = EVERYBODY | {"same namespace": False, "other namespace": False}
    assert picture(guarded, engine_address(guarded), 8000) == expected
