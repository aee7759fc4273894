"""The chart's ValidatingAdmissionPolicies, on a real API server: what RBAC allows and they refuse.

Users are impersonated, so RBAC and the policies see them as they would see their tokens.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name
from genrm_scoring.cluster import LEASES
from genrm_scoring.errors import ApiRejected
from genrm_scoring.kubernetes import connect
from genrm_scoring.leases import run_lease

from dev.cluster import Cluster
from tests.cluster.conftest import RELEASE, SYSTEM, wait_for

pytestmark = pytest.mark.cluster

OPERATOR = f"system:serviceaccount:{SYSTEM}:{RELEASE}"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "judge-0", "labels": {"genrm.dev/reward-model": "judge", "app": "engine"}},
    "spec": {"containers": [{"name": "engine", "image": "stock:1"}], "readinessGates": []},
}


@dataclass
class Place:
    """A namespace with two runs in it: `trainer` and `rival` both have the role genrm-client."""

    cluster: Cluster
    namespace: str

    def kubectl(self, *words: str, user: str = "", input: Any = None, namespace: str = "") -> str:
        """What kubectl says, if it does it; else what the API server says against it, after `refused: `."""
        impersonation = [f"--as={user}"] if user else []
        text = None if input is None else json.dumps(input)
        where = ("-n", namespace or self.namespace)
        done = self.cluster.kubectl(*where, *words, *impersonation, input=text, check=False)
        return done.stdout if done.returncode == 0 else f"refused: {done.stderr}"

    def account(self, name: str) -> str:
        return f"system:serviceaccount:{self.namespace}:{name}"

    def patch(self, target: str, change: Any, user: str, *words: str) -> str:
        how = "strategic" if target.startswith("pod/") else "merge"
        return self.kubectl("patch", target, f"--type={how}", "-p", json.dumps(change), *words, user=user)

    def create(self, manifest: dict[str, Any], user: str, *words: str, namespace: str = "") -> str:
        return self.kubectl("create", "-f", "-", *words, user=user, input=manifest, namespace=namespace)

    def lease(self, run: str, created_by: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return lease_manifest(run, "judge", self.namespace, Phase.IDLE, now, created_by=created_by)


@pytest.fixture(scope="module")
def place(cluster: Cluster, chart: None) -> Iterator[Place]:
    made = Place(cluster, f"vap-{uuid.uuid4().hex[:8]}")
    cluster.kubectl("create", "namespace", made.namespace)
    for name in ("trainer", "rival"):
        made.kubectl("create", "serviceaccount", name)
        account = f"--serviceaccount={made.namespace}:{name}"
        made.kubectl("create", "rolebinding", name, "--clusterrole=genrm-client", account)
    made.create(POD, "")
    trial = made.lease("trial", "")  # a new policy is in force when every API server has seen it
    wait_for(
        "the policies to be in force",
        lambda: "refused" in made.create(trial, made.account("trainer"), "--dry-run=server"),
    )
    yield made
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


def allowed(said: str) -> None:
    assert not said.startswith("refused"), said


def refused(said: str, sentence: str) -> None:
    assert said.startswith("refused") and sentence in said, said


def test_the_expressions_fit_the_types_of_what_they_read(place: Place) -> None:
    def warnings() -> list[Any] | None:
        found = json.loads(place.kubectl("get", "validatingadmissionpolicies", "-o", "json"))["items"]
        if not all(policy.get("status", {}).get("observedGeneration") for policy in found):
            return None
        return [found, [policy["status"].get("typeChecking", {}).get("expressionWarnings") for policy in found]]

    found, told = wait_for("the policies to be type-checked", warnings)
    assert len(found) == 4
    assert not any(told), told


# ---------------------------------------------------------------------- the operator and pods

ON_PODS: dict[str, tuple[dict[str, Any], str | None]] = {
    "the label and the boot id": (
        {"metadata": {"labels": {"genrm.dev/serving": "true"}, "annotations": {"genrm.dev/boot-id": "b1"}}},
        None,
    ),
    "taking them off": (
        {"metadata": {"labels": {"genrm.dev/serving": None}, "annotations": {"genrm.dev/boot-id": None}}},
        None,
    ),
    "another label": ({"metadata": {"labels": {"app": "web"}}}, "this is: label app"),
    "a new label": ({"metadata": {"labels": {"x": "y"}}}, "this is: label x"),
    "taking whose pod it is": ({"metadata": {"labels": {"genrm.dev/reward-model": None}}}, "label genrm.dev/reward-m"),
    "another annotation": ({"metadata": {"annotations": {"x": "y"}}}, "this is: annotation x"),
    "an owner": (
        {
            "metadata": {
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "00000000-0000-0000"}]
            }
        },
        "this is: metadata.ownerReferences",
    ),
    "a finalizer": ({"metadata": {"finalizers": ["x.example.org/y"]}}, "this is: metadata.finalizers"),
    "an image": ({"spec": {"containers": [{"name": "engine", "image": "evil:1"}]}}, "this is: spec.containers"),
    "a deadline": ({"spec": {"activeDeadlineSeconds": 1}}, "this is: spec.activeDeadlineSeconds"),
}


@pytest.mark.parametrize("case", ON_PODS)
def test_of_a_pod_the_operator_writes_its_label_and_annotations(place: Place, case: str) -> None:
    change, sentence = ON_PODS[case]
    said = place.patch("pod/judge-0", change, OPERATOR)
    allowed(said) if sentence is None else refused(said, sentence)


ON_STATUS: dict[str, tuple[dict[str, Any], str | None]] = {
    "its condition": ({"conditions": [{"type": "genrm.dev/verified", "status": "True"}]}, None),
    "the kubelet's condition": ({"conditions": [{"type": "Ready", "status": "True"}]}, "only genrm.dev/verified"),
    "the phase": ({"phase": "Failed"}, "this is: status.phase"),
    "the address, which Services hand out": ({"podIPs": [{"ip": "10.9.8.7"}]}, "this is: status.podIP"),
}


@pytest.mark.parametrize("case", ON_STATUS)
def test_of_a_pods_status_the_operator_writes_its_condition(place: Place, case: str) -> None:
    change, sentence = ON_STATUS[case]
    words = ("patch", "pod", "judge-0", "--subresource=status", "-p", json.dumps({"status": change}))
    said = place.kubectl(*words, user=OPERATOR)
    allowed(said) if sentence is None else refused(said, sentence)


def test_pods_of_others_are_not_the_operators_to_label(place: Place) -> None:
    other = {**POD, "metadata": {"name": "web-0", "labels": {"app": "web"}}}
    allowed(place.create(other, ""))
    change = {"metadata": {"labels": {"genrm.dev/serving": "true"}}}
    refused(place.patch("pod/web-0", change, OPERATOR), "only to pods of reward models")


def test_the_policies_on_pods_are_about_the_operator_only(place: Place) -> None:
    allowed(place.patch("pod/judge-0", {"metadata": {"annotations": {"x": "y"}}}, ""))
    allowed(place.patch("pod/judge-0", {"metadata": {"annotations": {"x": None}}}, ""))


# ---------------------------------------------------------------------- the operator and its children


def child(owner_api: str | None, name: str) -> dict[str, Any]:
    owner = {"apiVersion": owner_api, "kind": "RewardModel", "name": "judge", "uid": str(uuid.uuid4())}
    meta: dict[str, Any] = {"name": name, "labels": {"genrm.dev/reward-model": "judge"}}
    if owner_api:
        meta["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": False}]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}}


@pytest.mark.parametrize(
    ("owner_api", "sentence"),
    [("genrm.dev/v1alpha1", None), ("apps/v1", "only what a resource of genrm.dev owns"), (None, "only what a res")],
)
def test_the_operator_makes_only_what_a_reward_model_owns(
    place: Place, owner_api: str | None, sentence: str | None
) -> None:
    said = place.create(child(owner_api, "made"), OPERATOR, "--dry-run=server")
    allowed(said) if sentence is None else refused(said, sentence)


def test_the_operator_takes_nothing_over_that_was_there_before(place: Place) -> None:
    allowed(place.kubectl("create", "configmap", "settings", "--from-literal=a=b"))
    words = ("apply", "--server-side", "--force-conflicts", "--field-manager=genrm-operator", "-f", "-")
    said = place.kubectl(*words, user=OPERATOR, input=child("genrm.dev/v1alpha1", "settings"))
    refused(said, f"{place.namespace}/settings is there already and is not of a reward model")


def test_the_operator_deletes_only_what_a_reward_model_owns(place: Place) -> None:
    allowed(place.create(child("genrm.dev/v1alpha1", "door"), ""))
    allowed(place.kubectl("delete", "configmap", "door", "--dry-run=server", user=OPERATOR))
    allowed(place.kubectl("create", "configmap", "precious", "--from-literal=a=b"))
    said = place.kubectl("delete", "configmap", "precious", user=OPERATOR)
    refused(said, "deletes only what a resource of genrm.dev owns")


# ---------------------------------------------------------------------- Leases


@pytest.fixture
def held(place: Place) -> Iterator[str]:
    """`lease/NAME` of one that the trainer made."""
    lease = place.lease(uuid.uuid4().hex, place.account("trainer"))
    allowed(place.create(lease, place.account("trainer")))
    yield f"lease/{lease['metadata']['name']}"
    place.kubectl("delete", "lease", lease["metadata"]["name"], "--ignore-not-found")


@pytest.mark.parametrize(
    ("created_by", "sentence"),
    [
        ("trainer", None),
        ("", "annotate it with genrm.dev/created-by: system:serviceaccount:"),
        ("rival", ":trainer, not system:serviceaccount:"),
    ],
)
def test_a_lease_says_who_creates_it_and_tells_the_truth(place: Place, created_by: str, sentence: str | None) -> None:
    said_by = place.account(created_by) if created_by else ""
    said = place.create(place.lease("run", said_by), place.account("trainer"), "--dry-run=server")
    allowed(said) if sentence is None else refused(said, sentence)


PHASE = {"metadata": {"annotations": {"genrm.dev/phase": "scoring"}}}
ON_LEASES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "its creator writes the phase": ("trainer", PHASE, None),
    "and renews it": ("trainer", {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}, None),
    "and gives it to nobody": (
        "trainer",
        {"metadata": {"annotations": {"genrm.dev/created-by": "rival"}}},
        "genrm.dev/created-by of a Lease does not change",
    ),
    "another run does not write the phase": ("rival", PHASE, "this Lease belongs to system:serviceaccount:"),
    "nor keeps it alive": ("rival", {"spec": {"leaseDurationSeconds": 9999}}, "this Lease belongs to"),
    "nor makes it a Lease of nothing": (
        "rival",
        {"metadata": {"labels": {"genrm.dev/reward-model": None}}},
        "this Lease belongs to",
    ),
    "the operator grants": ("", {"metadata": {"annotations": {"genrm.dev/granted": "now"}}}, None),
    "the operator does not change the phase": ("", PHASE, "this is: annotation genrm.dev/phase"),
    "nor renew it": ("", {"spec": {"leaseDurationSeconds": 9999}}, "this is: spec.leaseDurationSeconds"),
    "nor own it": ("", {"metadata": {"finalizers": ["x.example.org/y"]}}, "this is: metadata.finalizers"),
}


@pytest.mark.parametrize("case", ON_LEASES)
def test_a_lease_belongs_to_its_creator(place: Place, held: str, case: str) -> None:
    who, change, sentence = ON_LEASES[case]
    said = place.patch(held, change, place.account(who) if who else OPERATOR)
    allowed(said) if sentence is None else refused(said, sentence)


def test_only_its_creator_deletes_a_lease_and_who_may_delete_the_model(place: Place, held: str) -> None:
    name = held.split("/")[1]
    said = place.kubectl("delete", "lease", name, user=place.account("rival"))
    refused(said, "others may not change or delete it, unless they may delete RewardModel judge")
    allowed(place.kubectl("delete", "lease", name, "--dry-run=server"))  # an admin
    allowed(place.kubectl("delete", "lease", name, user=place.account("trainer")))


def test_a_lease_of_something_else_is_not_made_one_of_a_run_nor_touched_by_the_operator(place: Place) -> None:
    foreign = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "scheduler"}, "spec": {}}
    allowed(place.create(foreign, ""))
    change = {"metadata": {"labels": {"genrm.dev/reward-model": "judge"}}}
    refused(place.patch("lease/scheduler", change, place.account("rival")), "this Lease belongs to nobody")
    granted = {"metadata": {"annotations": {"genrm.dev/granted": "now"}}}
    refused(place.patch("lease/scheduler", granted, OPERATOR), "only to Leases on reward models")


def test_the_operator_creates_no_lease_but_its_leaders(place: Place) -> None:
    lease: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
    other = {**lease, "metadata": {"name": "other"}}
    refused(place.create(other, OPERATOR, "--dry-run=server", namespace=SYSTEM), "creates no Lease but the one of its")
    own = place.create({**lease, "metadata": {"name": RELEASE}}, OPERATOR, "--dry-run=server", namespace=SYSTEM)
    assert not own.startswith("refused") or "already exists" in own, own


async def test_the_plugin_says_who_it_is_and_a_rival_run_learns_whose_the_lease_is(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real tokens, the way a training run goes."""
    kubeconfig = {
        name: place.cluster.client_kubeconfig(place.namespace, name, tmp_path / name) for name in ("trainer", "rival")
    }
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig["rival"]))
    async with connect() as rival:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig["trainer"]))
        async with connect() as trainer, run_lease(trainer, "run-1", "judge", place.namespace) as lease:
            made = await trainer.get(LEASES, place.namespace, lease.name)
            assert made["metadata"]["annotations"]["genrm.dev/created-by"] == place.account("trainer")
            with pytest.raises(ApiRejected, match=rf"belongs to {place.account('trainer')}"):
                await rival.patch(LEASES, place.namespace, lease.name, PHASE)
            with pytest.raises(ApiRejected, match="belongs to"):
                await rival.delete(LEASES, place.namespace, lease.name)
    assert "NotFound" in place.kubectl("get", "lease", lease_name("run-1", "judge")), "and the trainer may delete it"


# ---------------------------------------------------------------------- Kubernetes itself


def test_the_garbage_collector_takes_the_leases_of_a_deleted_model(place: Place) -> None:
    model = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": "gone"}}
    allowed(place.create({**model, "spec": {"model": {"uri": "hf://a/b"}, "lifecycle": {"state": "Off"}}}, ""))
    uid = place.kubectl("get", "rm", "gone", "-o", "jsonpath={.metadata.uid}")
    who = place.account("trainer")
    lease = lease_manifest(
        "run", "gone", place.namespace, Phase.IDLE, datetime.now(UTC), reward_model_uid=uid, created_by=who
    )
    allowed(place.create(lease, who))
    allowed(place.kubectl("delete", "rm", "gone", "--wait=false"))
    name = lease["metadata"]["name"]
    wait_for("the Lease to go with its model", lambda: "NotFound" in place.kubectl("get", "lease", name))


def test_a_namespace_with_leases_can_be_deleted(cluster: Cluster, place: Place) -> None:
    namespace = f"{place.namespace}-gone"
    cluster.kubectl("create", "namespace", namespace)
    lease = lease_manifest("run", "judge", namespace, Phase.IDLE, datetime.now(UTC), created_by="somebody")
    allowed(place.create(lease, "", namespace=namespace))
    done: subprocess.CompletedProcess[str] = cluster.kubectl("delete", "namespace", namespace, "--timeout=30s")
    assert "deleted" in done.stdout
