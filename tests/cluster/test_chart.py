"""The chart's life on a real API server: install, upgrade, another name, side by side, uninstall.

The operator's pods are fake here; what counts are the objects, the permissions, and what is left in the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.bootstrap import ROOT
from dev.cluster import Cluster
from tests.cluster.conftest import wait_for

pytestmark = pytest.mark.cluster

CHART = ROOT / "charts" / "genrm-operator"
SKELETON = ROOT / "tests" / "fixtures" / "charts" / "walking-skeleton"
CRD = "customresourcedefinition.apiextensions.k8s.io/rewardmodels.genrm.dev"
CRDS = ("rewardmodels.genrm.dev", "rewardfleets.genrm.dev")
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
Said = subprocess.CompletedProcess[str]


@dataclass
class Platform:
    """A cluster that nothing of ours is installed on, and Helm."""

    cluster: Cluster
    releases: list[tuple[str, str]] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    def namespace(self, prefix: str, *labels: str) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        self.cluster.kubectl("create", "namespace", name)
        if labels:
            self.cluster.kubectl("label", "namespace", name, *labels)
        self.namespaces.append(name)
        return name

    def helm(self, *words: str, check: bool = True, **values: Any) -> Said:
        command = [str(self.cluster.bin / "helm"), *words]
        if values:
            command += ["--values", "-"]
        environment, text = self.cluster.environment(), json.dumps(values) if values else None
        done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def install(self, name: str, namespace: str, chart: Path = CHART, *words: str, **values: Any) -> None:
        self.helm("install", name, str(chart), "-n", namespace, *words, **values)
        self.releases.append((name, namespace))

    def uninstall(self, name: str, namespace: str) -> None:
        self.helm("uninstall", name, "-n", namespace, "--wait", "--timeout=60s")
        self.releases.remove((name, namespace))

    def get(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.kubectl("get", *words, "-o", "json").stdout)
        return found

    def may(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        resource, _, subresource = resource.partition("/")
        words = ("auth", "can-i", verb, resource, f"--subresource={subresource}", "-n", namespace, f"--as={user}")
        return self.cluster.kubectl(*words, check=False).stdout.strip() == "yes"

    def of_release(self, name: str, namespace: str) -> set[str]:
        """Everything that carries a release's label, and what Helm itself keeps of it."""
        kinds = self.cluster.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
        asked = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses")))
        labelled = self.cluster.kubectl("get", asked, "-A", "-l", f"app.kubernetes.io/instance={name}", "-o", "name")
        kept = self.cluster.kubectl("-n", namespace, "get", "secrets", "-l", f"owner=helm,name={name}", "-o", "name")
        return {*labelled.stdout.split(), *kept.stdout.split()}

    def clean(self) -> None:
        for name, namespace in list(self.releases):
            self.uninstall(name, namespace)
        for namespace in self.namespaces:
            self.cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        self.namespaces.clear()
        # kubectl's own wait has been seen to last for two minutes, where the next test installed them right after.
        self.cluster.kubectl("delete", "crd", *CRDS, "--ignore-not-found", "--wait=false")
        there = ("get", "crd", *CRDS, "--ignore-not-found", "-o", "name")
        wait_for("the CRDs are gone", lambda: not self.cluster.kubectl(*there).stdout, timeout=300.0, every=0.5)


@pytest.fixture(scope="module")
def empty_cluster() -> Iterator[Cluster]:
    with Cluster.up(f"chart-{os.getpid()}", node=False, kwok_nodes=1, die_with_parent=True) as up:
        yield up


@pytest.fixture
def platform(empty_cluster: Cluster) -> Iterator[Platform]:
    made = Platform(empty_cluster)
    yield made
    made.clean()


def within(small: Any, large: Any) -> bool:
    """Whether everything that one document says the other says too."""
    if isinstance(small, dict) and isinstance(large, dict):
        return all(key in large and within(value, large[key]) for key, value in small.items())
    return bool(small == large)


def operator(name: str, namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def test_the_walking_skeletons_release_upgrades_and_keeps_its_models_its_key_and_its_deployment(
    platform: Platform,
) -> None:
    system, runs = platform.namespace("system", RESTRICTED), platform.namespace("rl")
    platform.install("genrm-operator", system, SKELETON)
    platform.cluster.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    model = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": "judge"}}
    model["spec"] = {
        "type": "Generative",
        "model": {"uri": "hf://Qwen/Qwen3-32B"},
        "engine": {"name": "vllm", "tensorParallel": 2, "args": ["--max-model-len", "16384"]},
        "replicas": 2,
        "gpu": {"resource": "nvidia.com/gpu"},
        "lifecycle": {"state": "Auto"},
        "scoring": {"judge": "boxed-true-false", "sampling": {"maxTokens": 8192}, "timeout": "300s"},
    }
    platform.cluster.kubectl("-n", runs, "apply", "-f", "-", input=json.dumps(model))
    before = {
        "key": platform.get("secret", "genrm-operator-master-key", "-n", system)["data"]["key"],
        "deployment": platform.get("deployment", "genrm-operator", "-n", system)["metadata"]["uid"],
        "model": platform.get("rm", "judge", "-n", runs)["spec"],
    }
    platform.helm("upgrade", "genrm-operator", str(CHART), "-n", system)
    crd = platform.get(CRD)
    generated = yaml.safe_load((CHART / "files" / "crds" / "genrm.dev_rewardmodels.yaml").read_text())
    new = set(generated["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
    assert new <= set(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
    after = {
        "key": platform.get("secret", "genrm-operator-master-key", "-n", system)["data"]["key"],
        "deployment": platform.get("deployment", "genrm-operator", "-n", system)["metadata"]["uid"],
        "model": platform.get("rm", "judge", "-n", runs)["spec"],
    }
    assert after["key"] == before["key"], "another key would restart every engine"
    assert after["deployment"] == before["deployment"]
    assert within(before["model"], after["model"]), "new defaults may come, nothing else changes"
    applied = platform.cluster.kubectl("-n", runs, "apply", "-f", "-", input=json.dumps(model)).stdout
    assert "unchanged" in applied or "configured" in applied
    assert platform.get("validatingadmissionpolicies")["items"]


def test_the_operators_pods_pass_the_restricted_profile_and_so_does_the_test(platform: Platform) -> None:
    system = platform.namespace("system", RESTRICTED)
    platform.install("genrm-operator", system)

    def pods() -> list[Any]:
        return list(platform.get("pods", "-n", system, "-l", "app.kubernetes.io/name=genrm-operator")["items"])

    wait_for("two pods, which Pod Security would refuse one by one", lambda: len(pods()) == 2)
    rendered = platform.helm("template", "genrm-operator", str(CHART), test={"rewardModel": f"{system}/judge"}).stdout
    (pod,) = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] == "Pod"]
    platform.cluster.kubectl("create", "serviceaccount", pod["spec"]["serviceAccountName"], "-n", system)
    platform.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))


def test_uninstall_leaves_nothing_but_the_crd_and_another_name_installs_over_it(platform: Platform) -> None:
    system, runs = platform.namespace("system"), platform.namespace("rl")
    clients = [{"namespace": runs, "subjects": [{"kind": "ServiceAccount", "name": "trainer"}]}]
    platform.install("first", system, clients=clients, dashboards={"enabled": True})
    assert len(platform.of_release("first", system)) > 15
    led = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "first-genrm-operator"}}
    account = operator("first-genrm-operator", system)
    platform.cluster.kubectl("-n", system, "create", "-f", "-", f"--as={account}", input=json.dumps(led))
    platform.uninstall("first", system)
    wait_for("everything but the CRD to go", lambda: not platform.of_release("first", system))
    assert not platform.get("leases", "-n", system)["items"], "the operator's own Lease goes too"
    platform.cluster.kubectl("get", CRD)

    platform.install("second", system)
    assert platform.may(operator("second-genrm-operator", system), "watch", "rewardmodels.genrm.dev", runs)
    assert not platform.may(operator("first-genrm-operator", system), "watch", "rewardmodels.genrm.dev", runs)


def test_a_crd_of_another_release_that_differs_is_taken_over_only_if_one_says_so(platform: Platform) -> None:
    system = platform.namespace("system")
    platform.install("first", system, SKELETON)
    platform.uninstall("first", system)
    done = platform.helm("install", "second", str(CHART), "-n", system, check=False)
    assert done.returncode != 0
    assert "rewardmodels.genrm.dev" in done.stderr and 'current value is "first"' in done.stderr, done.stderr
    platform.install("second", system, CHART, "--take-ownership")
    assert platform.get(CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "second"


def test_two_namespaced_installs_live_side_by_side_and_neither_sees_the_others_models(platform: Platform) -> None:
    a, b = platform.namespace("team-a"), platform.namespace("team-b")
    for namespace in (a, b):
        subjects = [{"kind": "ServiceAccount", "name": "trainer"}]
        values = {"watchNamespaces": [namespace], "clients": [{"namespace": namespace, "subjects": subjects}]}
        platform.install("genrm-operator", namespace, CHART, **values)
    for own, other in ((a, b), (b, a)):
        account, trainer = operator("genrm-operator", own), operator("trainer", own)
        for verb, resource in (("watch", "rewardmodels.genrm.dev"), ("patch", "pods"), ("create", "deployments.apps")):
            assert platform.may(account, verb, resource, own), (verb, resource)
            assert not platform.may(account, verb, resource, other), (verb, resource)
        assert platform.may(trainer, "create", "leases.coordination.k8s.io", own)
        assert not platform.may(trainer, "create", "leases.coordination.k8s.io", other)
    roles = platform.get("clusterroles,clusterrolebindings")["items"]
    assert not [role["metadata"]["name"] for role in roles if "genrm" in role["metadata"]["name"]]
    platform.uninstall("genrm-operator", a)
    assert platform.may(operator("genrm-operator", b), "watch", "rewardmodels.genrm.dev", b)
    bindings = platform.get("validatingadmissionpolicybindings")["items"]
    assert {binding["metadata"]["name"].split(".")[1] for binding in bindings} == {b}


MAY: dict[str, tuple[str, str, str, bool]] = {
    "the operator follows pods": ("operator", "watch", "pods", True),
    "the operator labels pods": ("operator", "patch", "pods", True),
    "the operator opens the readiness gate": ("operator", "patch", "pods/status", True),
    "the operator makes no pods": ("operator", "create", "pods", False),
    "the operator deletes pods, an admission policy says which": ("operator", "delete", "pods", True),
    "the operator runs nothing in pods": ("operator", "create", "pods/exec", False),
    "the operator reads no logs": ("operator", "get", "pods/log", False),
    "the operator reads no Secrets": ("operator", "get", "secrets", False),
    "the operator lists no Secrets": ("operator", "list", "secrets", False),
    "the operator deletes no models": ("operator", "delete", "rewardmodels.genrm.dev", False),
    "the operator changes no spec": ("operator", "patch", "rewardmodels.genrm.dev", False),
    "the operator writes status": ("operator", "patch", "rewardmodels.genrm.dev/status", True),
    "the operator deletes no Leases": ("operator", "delete", "leases.coordination.k8s.io", False),
    "the operator binds no roles": ("operator", "create", "rolebindings.rbac.authorization.k8s.io", False),
    "a client finds models": ("trainer", "get", "rewardmodels.genrm.dev", True),
    "a client holds a Lease": ("trainer", "create", "leases.coordination.k8s.io", True),
    "a client follows endpoints": ("trainer", "watch", "endpointslices.discovery.k8s.io", True),
    "a client changes no models": ("trainer", "patch", "rewardmodels.genrm.dev", False),
    "a client sees no pods": ("trainer", "list", "pods", False),
    "a client sees no Secrets": ("trainer", "get", "secrets", False),
}


def test_what_the_operator_and_a_client_may_do(platform: Platform) -> None:
    system, runs, elsewhere = platform.namespace("system"), platform.namespace("rl"), platform.namespace("web")
    clients = [{"namespace": runs, "subjects": [{"kind": "ServiceAccount", "name": "trainer"}]}]
    platform.install("genrm-operator", system, clients=clients)
    accounts = {"operator": operator("genrm-operator", system), "trainer": operator("trainer", runs)}
    wrong = [
        case
        for case, (who, verb, resource, expected) in MAY.items()
        if platform.may(accounts[who], verb, resource, runs) is not expected
    ]
    assert not wrong
    assert not platform.may(accounts["trainer"], "get", "rewardmodels.genrm.dev", elsewhere)
    assert not platform.may(accounts["operator"], "create", "leases.coordination.k8s.io", runs)
    assert platform.may(accounts["operator"], "create", "leases.coordination.k8s.io", system)
