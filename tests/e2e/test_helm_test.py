"""`helm test` on a real node: the operator's image, the chart's account, a real pod network.

The engine is a stand-in of a few lines in the operator's own image: what is tested is the way to it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from dev.bootstrap import ROOT
from dev.prepare import Prepared
from dev.stack import RELEASE, SYSTEM_NAMESPACE, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

JUDGE = """
import http.server, json
class Judge(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.say({})
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "\\\\boxed{True}"}
        self.say({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    def say(self, document):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())
http.server.ThreadingHTTPServer(("", 8000), Judge).serve_forever()
"""


@pytest.fixture
def tested(node: Stack, prepared: Prepared) -> Iterator[str]:
    """`namespace/name` of a model that serves, and that the release's test is about."""
    custom = {"command": ["/opt/genrm/bin/python", "-c", JUDGE], "healthPath": "/health"}
    spec = {
        "model": {"uri": "hf://none/none"},
        "engine": {"name": "custom", "image": prepared.operator_image, "custom": custom},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    model = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": "stand-in"}, "spec": spec}
    node.apply(model)
    node.wait_for_phase("stand-in", "Serving", timeout=60)
    yield f"{node.namespace}/stand-in"
    node.kubectl("-n", node.namespace, "delete", "rm", "stand-in")


def helm_test(node: Stack, model: str, wait: int = 30) -> subprocess.CompletedProcess[str]:
    values = ("--reuse-values", "--set", f"test.rewardModel={model}", "--set", f"test.waitSeconds={wait}")
    chart = str(ROOT / "charts" / "genrm-operator")
    node.helm("upgrade", RELEASE, chart, "-n", SYSTEM_NAMESPACE, *values, "--wait", "--timeout", "90s")
    command = [str(node.cluster.bin / "helm"), "test", RELEASE, "-n", SYSTEM_NAMESPACE, "--timeout", "90s"]
    return subprocess.run(command, env=node.cluster.environment(), capture_output=True, text=True, timeout=120)


def leftovers(node: Stack) -> list[str]:
    kinds = "pods,serviceaccounts,rolebindings,leases"
    names = node.kubectl("-n", node.namespace, "get", kinds, "-o", "name").split()
    return [name for name in names if name.endswith("-test") or "lease" in name]


def test_helm_test_scores_one_sample_and_leaves_nothing_behind(node: Stack, tested: str) -> None:
    done = helm_test(node, tested)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "ok by http://" in said and "True is worth 1" in said, said
    assert not leftovers(node)


def test_a_failed_test_shows_what_the_pod_said_and_leaves_nothing_behind_either(node: Stack, tested: str) -> None:
    done = helm_test(node, tested.replace("stand-in", "nobody"))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"failed: there is no RewardModel nobody in namespace {node.namespace}" in said, said
    assert not leftovers(node)
