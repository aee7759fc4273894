"""The whole product on the embedded cluster: a node, its images, the operator installed by Helm.

The demo and the e2e tests start from here. What they need of a cluster is a kubeconfig and kubectl; a stack on
somebody's own cluster would offer the same (`Stack.up` is the only place that knows that the cluster is ours).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dev import images
from dev.bootstrap import ROOT
from dev.cluster import Cluster
from dev.our_images import OPERATOR
from dev.prepare import Prepared
from dev.steps import Steps

RELEASE: Final = "genrm-operator"
SYSTEM_NAMESPACE: Final = "genrm-system"
CLIENT_ACCOUNT: Final = "trainer"
CRDS: Final = ("rewardmodels.genrm.dev", "rewardfleets.genrm.dev")
SMALL: Final = ("--enforce-eager", "--distributed-executor-backend", "uni")
"""vLLM's arguments for a tiny model on a small machine: no compilation, and two processes instead of three. A process
takes 13 s to import vLLM here; with `mp`, the default on CPU, they start one after the other. (On CPU `uni` also needs
VLLM_ENABLE_V1_MULTIPROCESSING=0.)"""


class StackError(Exception):
    """Something on the cluster did not come to be; the message holds what was seen last."""


@dataclass(slots=True)
class Stack:
    cluster: Cluster
    prepared: Prepared
    namespace: str

    @classmethod
    def up(cls, name: str, namespace: str, prepared: Prepared, steps: Steps, *, die_with_parent: bool = True) -> Stack:
        """Bring up a node with every image, install the operator, make a namespace with a client account."""
        cluster = Cluster.up(name, node=True, die_with_parent=die_with_parent, on_step=steps.done)
        stack = cls(cluster, prepared, namespace)
        try:
            with steps.step(f"image {images.VLLM}") as notes:
                notes.append("imported" if cluster.ensure_vllm(prepared.engine) else "cached")
            with steps.step(f"image {prepared.operator_image}") as notes:
                if cluster.has_image(prepared.operator_image):
                    notes.append("cached")
                else:
                    for old in (ref for ref in cluster.image_refs() if f"{OPERATOR.repository}:" in ref):
                        cluster.remove_image(old)
                    cluster.load_image(prepared.operator_archive)
            with steps.step(f"helm install {RELEASE}"):
                stack.install()
        except BaseException:
            cluster.down()
            raise
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.cluster.down()

    def install(self) -> None:
        repository, tag = self.prepared.operator_image.rsplit(":", 1)
        values = {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "engineImages": {"vllm": images.VLLM, "sglang": images.SGLANG},
            "routerImage": images.ROUTER,
            "hostModelPrefixes": [str(self.prepared.models.root)],
        }
        self.helm(
            "upgrade", "--install", RELEASE, str(ROOT / "charts" / "genrm-operator"), "--namespace", SYSTEM_NAMESPACE,
            "--create-namespace", "--values", "-", "--wait", "--timeout", "120s", input=json.dumps(values),
        )  # fmt: skip
        self.kubectl("create", "namespace", self.namespace)
        self.kubectl("-n", self.namespace, "create", "serviceaccount", CLIENT_ACCOUNT)
        binding = ["create", "rolebinding", "genrm-client", "--clusterrole=genrm-client"]
        self.kubectl("-n", self.namespace, *binding, f"--serviceaccount={self.namespace}:{CLIENT_ACCOUNT}")

    def uninstall(self) -> None:
        """Remove all that `install` made; the CRDs, which the chart keeps, included."""
        self.helm("uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait", "--timeout", "60s")
        self.kubectl("delete", "namespace", self.namespace, SYSTEM_NAMESPACE, "--wait", "--timeout=60s")
        self.kubectl("delete", "crd", *CRDS, "--wait", "--timeout=60s")

    def client_kubeconfig(self) -> Path:
        """What a training run uses: an account that may do just what the role genrm-client says."""
        return self.cluster.client_kubeconfig(self.namespace, CLIENT_ACCOUNT)

    def kubectl(self, *args: str, input: str | None = None, check: bool = True, timeout: float = 120.0) -> str:
        return self.cluster.kubectl(*args, input=input, check=check, timeout=timeout).stdout

    def helm(self, *args: str, input: str | None = None) -> str:
        command = [str(self.cluster.bin / "helm"), *args]
        done = subprocess.run(
            command, input=input, env=self.cluster.environment(), capture_output=True, text=True, timeout=180
        )
        if done.returncode:
            pods = self.kubectl("get", "pods", "-A", "-o", "wide", check=False)
            logs = self.kubectl("-n", SYSTEM_NAMESPACE, "logs", f"deploy/{RELEASE}", "--tail=40", check=False)
            raise StackError(f"helm {args[0]}: exit status {done.returncode}\n{done.stderr}\n{pods}\n{logs}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        for manifest in manifests:
            self.kubectl("-n", self.namespace, "apply", "-f", "-", input=json.dumps(manifest))

    def get(self, resource: str, name: str) -> dict[str, Any]:
        return self.cluster.reader.get(resource, self.namespace, name)

    def items(self, resource: str, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.reader.list(resource, self.namespace, selector)

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.get("rewardmodels", name).get("status") or {})

    def wait_for_phase(self, name: str, phase: str, timeout: float, *, patient: bool = False) -> dict[str, Any]:
        """Wait until a RewardModel is in a phase, and return its status.

        Raises:
            StackError: it is not in time, or it is Degraded on the way and the caller is not `patient`.
        """
        reached = lambda status: status.get("phase") == phase  # noqa: E731
        return self.wait_for_status(name, reached, f"phase {phase}", timeout, patient=patient)

    def wait_for_status(
        self, name: str, good: Callable[[dict[str, Any]], bool], what: str, timeout: float, *, patient: bool = False
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            status = self.status(name)
            if good(status):
                return status
            if time.monotonic() > deadline or (status.get("phase") == "Degraded" and not patient):
                raise StackError(
                    f"RewardModel {name} did not reach {what}, waiting up to {timeout:.0f} s\n{self.story(name)}"
                )
            time.sleep(0.2)

    def wait_for_no_children(self, name: str, timeout: float) -> None:
        """Wait until garbage collection has removed all that a deleted RewardModel had."""
        deadline = time.monotonic() + timeout
        kinds = ("deployments", "pods", "services", "configmaps", "leases")
        selector = f"genrm.dev/reward-model={name}"
        while left := [f"{kind}/{o['metadata']['name']}" for kind in kinds for o in self.items(kind, selector)]:
            if time.monotonic() > deadline:
                raise StackError(f"RewardModel {name} is deleted, and after {timeout:.0f} s these are left: {left}")
            time.sleep(0.2)

    def leftovers(self) -> list[str]:
        """Objects of ours that still exist after `uninstall`."""
        kinds = "ns,crd,clusterrole,clusterrolebinding,deploy,svc,cm,secret,sa,lease,netpol,pdb"
        kinds += ",validatingadmissionpolicies,validatingadmissionpolicybindings"
        names = self.kubectl("get", kinds, "-A", "-o", "name").split()
        return [name for name in names if "genrm" in name or name == f"namespace/{self.namespace}"]

    def story(self, name: str) -> str:
        """Everything a person would look at when it does not work."""
        asked = (
            ("-n", self.namespace, "describe", "rm", name),
            ("-n", self.namespace, "get", "pods", "-o", "wide"),
            ("-n", self.namespace, "logs", "-l", f"genrm.dev/reward-model={name}", "--tail=15"),
            ("-n", self.namespace, "logs", "-l", f"genrm.dev/reward-model={name}", "--tail=30", "--previous"),
            ("-n", SYSTEM_NAMESPACE, "logs", f"deploy/{RELEASE}", "--tail=40"),
        )
        return "\n".join(self.kubectl(*words, check=False) for words in asked)


def judge(models_judge: Path, *, name: str = "judge", replicas: int = 2, **spec: Any) -> dict[str, Any]:
    """The demo's RewardModel: a tiny generative judge on CPU, made to answer with one of two verdicts."""
    return {
        "apiVersion": "genrm.dev/v1alpha1",
        "kind": "RewardModel",
        "metadata": {"name": name},
        "spec": {
            "type": "Generative",
            "model": {"uri": f"file://{models_judge}"},
            "engine": {"name": "vllm", "args": list(SMALL), "maxModelLen": 2048},
            "replicas": replicas,
            "env": [
                {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
                {"name": "VLLM_ENABLE_V1_MULTIPROCESSING", "value": "0"},
                {"name": "HF_HUB_OFFLINE", "value": "1"},
            ],
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}},
            "scoring": {
                "judge": "boxed-true-false",
                "sampling": {
                    "temperature": 1.0,
                    "maxTokens": 16,
                    "structured": {"choice": ["\\boxed{True}", "\\boxed{False}"]},
                },
            },
            **spec,
        },
    }
