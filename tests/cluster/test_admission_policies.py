"""The chart's ValidatingAdmissionPolicies, on a real API server: what RBAC allows and they refuse.

Users are impersonated, so RBAC and the policies see them as they would see their tokens.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name
from genrm_scoring.cluster import LEASES
from genrm_scoring.errors import ApiRejected
from genrm_scoring.kubernetes import connect
from genrm_scoring.leases import model_lease

from dev.cluster import Cluster
from tests.cluster.conftest import RELEASE, SYSTEM, wait_for
from tests.cluster.impersonation import APPLY, MERGE, Place, connection

pytestmark = pytest.mark.cluster

OPERATOR = f"system:serviceaccount:{SYSTEM}:{RELEASE}"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "judge-0", "labels": {"genrm.dev/reward-model": "judge", "app": "engine"}},
    "spec": {"containers": [{"name": "engine", "image": "stock:1"}], "readinessGates": []},
}


@pytest.fixture(scope="module")
def place(cluster: Cluster, chart: None) -> Iterator[Place]:
    namespace = f"vap-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    for name in ("trainer", "rival"):
        cluster.kubectl("-n", namespace, "create", "serviceaccount", name)
        binding = ("create", "rolebinding", name, "--clusterrole=genrm-client")
        cluster.kubectl("-n", namespace, *binding, f"--serviceaccount={namespace}:{name}")
    with connection(cluster) as api:
        made = Place(cluster, api, namespace)
        allowed(made.create("pods", POD))
        for policy in POLICIES:  # each is in force a moment after it was made, and not all at once
            wait_for(f"the policy {policy} to be in force", partial(denies, made, policy))
        yield made
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


POLICIES = ("pods", "operator-leases", "children", "run-leases", "slot-pods")


def denies(place: Place, policy: str) -> bool:
    """Whether it refuses something that it is there to refuse: whether it is in force."""
    dry = {"dryRun": "All"}
    match policy:
        case "pods":
            said = place.call("PATCH", "pods/judge-0", OPERATOR, {"metadata": {"labels": {"x": "y"}}}, MERGE, **dry)
        case "operator-leases":
            other = {**LEASE, "metadata": {"name": "other"}}
            said = place.create("leases", other, OPERATOR, namespace=SYSTEM, **dry)
        case "children":
            said = place.create("configmaps", child(None, "made"), OPERATOR, **dry)
        case "run-leases":
            said = place.create("leases", place.lease("trial", ""), place.account("trainer"), **dry)
        case _:
            change = {"metadata": {"labels": {"genrm.dev/slot": "gpu-0"}}}
            said = place.call("PATCH", "pods/judge-0", "", change, MERGE, **dry)
    return "ValidatingAdmissionPolicy" in said


def allowed(said: str) -> None:
    assert not said


def refused(said: str, sentence: str) -> None:
    assert sentence in said


def test_the_expressions_fit_the_types_of_what_they_read(place: Place) -> None:
    def checked() -> list[Any] | None:
        answer = place.cluster.kubectl("get", "validatingadmissionpolicies", "-o", "json").stdout
        found = [policy.get("status") or {} for policy in json.loads(answer)["items"]]
        return found if all("typeChecking" in status for status in found) else None

    found = wait_for("the policies to be type-checked", checked)
    assert len(found) == len(POLICIES)
    for status in found:
        assert not status["typeChecking"].get("expressionWarnings")


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
    said = place.patch("pods/judge-0", change, OPERATOR)
    allowed(said) if sentence is None else refused(said, sentence)


ON_STATUS: dict[str, tuple[dict[str, Any], str | None]] = {
    "its condition": ({"conditions": [{"type": "genrm.dev/verified", "status": "True"}]}, None),
    "the kubelet's condition": ({"conditions": [{"type": "Ready", "status": "False"}]}, "only genrm.dev/verified"),
    "the phase": ({"phase": "Failed"}, "this is: status.phase"),
    "the address, which Services hand out": ({"podIP": "10.9.8.7"}, "this is: status.podIP"),
}


@pytest.mark.parametrize("case", ON_STATUS)
def test_of_a_pods_status_the_operator_writes_its_condition(place: Place, case: str) -> None:
    change, sentence = ON_STATUS[case]
    said = place.patch("pods/judge-0/status", {"status": change}, OPERATOR)
    allowed(said) if sentence is None else refused(said, sentence)


def test_pods_of_others_are_not_the_operators_to_label(place: Place) -> None:
    other = {**POD, "metadata": {"name": "web-0", "labels": {"app": "web"}}}
    allowed(place.create("pods", other))
    change = {"metadata": {"labels": {"genrm.dev/serving": "true"}}}
    refused(place.patch("pods/web-0", change, OPERATOR), "only to pods of reward models")
    refused(place.delete("pods/web-0", OPERATOR), "deletes no others")


def test_a_pod_of_a_reward_model_may_be_replaced(place: Place) -> None:
    labels = {"genrm.dev/reward-model": "judge"}
    astray = {**POD, "metadata": {"name": "judge-astray", "labels": labels}}
    allowed(place.create("pods", astray))
    allowed(place.delete("pods/judge-astray", OPERATOR))


def test_the_policies_on_pods_are_about_the_operator_only(place: Place) -> None:
    allowed(place.patch("pods/judge-0", {"metadata": {"annotations": {"x": "y"}}}))
    allowed(place.patch("pods/judge-0", {"metadata": {"annotations": {"x": None}}}))


# ---------------------------------------------------------------------- everybody and pods on slots

ON_SLOTS: dict[str, tuple[dict[str, Any], bool]] = {
    "taking it off its slot": ({"labels": {"genrm.dev/slot": None}}, False),
    "another slot": ({"labels": {"genrm.dev/slot": "gpu-1"}}, False),
    "taking it from its model": ({"labels": {"genrm.dev/reward-model": None}}, False),
    "another part": ({"labels": {"genrm.dev/component": "router"}}, False),
    "all labels": ({"labels": None}, False),
    "that it serves": ({"labels": {"genrm.dev/serving": "true"}}, True),
    "a label of one's own": ({"labels": {"team": "rl"}}, True),
    "an annotation": ({"annotations": {"x": "y"}}, True),
}


@pytest.mark.parametrize("case", ON_SLOTS)
def test_a_pod_on_a_slot_stays_known_as_what_it_is(place: Place, case: str) -> None:
    change, may = ON_SLOTS[case]
    name = f"slot-{list(ON_SLOTS).index(case)}"
    labels = {"genrm.dev/reward-model": "judge", "genrm.dev/component": "engine", "genrm.dev/slot": "gpu-0"}
    allowed(place.create("pods", {**POD, "metadata": {"name": name, "labels": labels}}))
    said = place.patch(f"pods/{name}", {"metadata": change})
    allowed(said) if may else refused(said, "delete the pod instead")
    allowed(place.delete(f"pods/{name}"))


def test_no_running_pod_is_put_on_a_slot(place: Place) -> None:
    refused(place.patch("pods/judge-0", {"metadata": {"labels": {"genrm.dev/slot": "gpu-0"}}}), "do not change")


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
    said = place.create("configmaps", child(owner_api, "made"), OPERATOR, dryRun="All")
    allowed(said) if sentence is None else refused(said, sentence)


SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}}


def test_the_operator_takes_nothing_over_that_was_there_before(place: Place) -> None:
    allowed(place.create("configmaps", SETTINGS))
    manifest = child("genrm.dev/v1alpha1", "settings")
    query = {"fieldManager": "genrm-operator", "force": "true"}
    said = place.call("PATCH", "configmaps/settings", OPERATOR, manifest, APPLY, **query)
    refused(said, f"{place.namespace}/settings is there already and is not of a reward model")
    refused(place.delete("configmaps/settings", OPERATOR), "deletes only what a resource of genrm.dev owns")


def test_the_operator_deletes_what_a_reward_model_owns(place: Place) -> None:
    allowed(place.create("configmaps", child("genrm.dev/v1alpha1", "door")))
    allowed(place.delete("configmaps/door", OPERATOR))


# ---------------------------------------------------------------------- Leases


@pytest.fixture
def held(place: Place) -> Iterator[str]:
    """`leases/NAME` of one that the trainer made."""
    lease = place.lease(uuid.uuid4().hex, place.account("trainer"))
    allowed(place.create("leases", lease, place.account("trainer")))
    yield f"leases/{lease['metadata']['name']}"
    place.delete(f"leases/{lease['metadata']['name']}")


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
    said = place.create("leases", place.lease("run", said_by), place.account("trainer"), dryRun="All")
    allowed(said) if sentence is None else refused(said, sentence)


LEASE: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
ALREADY = f'leases.coordination.k8s.io "{RELEASE}" already exists'
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
    said = place.delete(held, place.account("rival"))
    refused(said, "others may not change or delete it, unless they may delete RewardModel judge")
    allowed(place.delete(held, dryRun="All"))  # an admin
    allowed(place.delete(held, place.account("trainer")))


def test_a_lease_of_something_else_is_not_made_one_of_a_run_nor_touched_by_the_operator(place: Place) -> None:
    allowed(place.create("leases", {**LEASE, "metadata": {"name": "scheduler"}}))
    change = {"metadata": {"labels": {"genrm.dev/reward-model": "judge"}}}
    refused(place.patch("leases/scheduler", change, place.account("rival")), "this Lease belongs to nobody")
    granted = {"metadata": {"annotations": {"genrm.dev/granted": "now"}}}
    refused(place.patch("leases/scheduler", granted, OPERATOR), "only to Leases on reward models")


def test_the_operator_creates_no_lease_but_its_leaders(place: Place) -> None:
    other, own = ({**LEASE, "metadata": {"name": name}} for name in ("other", RELEASE))
    said = place.create("leases", other, OPERATOR, namespace=SYSTEM, dryRun="All")
    refused(said, "the operator creates no Lease but the one of its leader")
    assert place.create("leases", own, OPERATOR, namespace=SYSTEM, dryRun="All") in ("", ALREADY)


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
        async with connect() as trainer, model_lease(trainer, "run-1", "judge", place.namespace) as lease:
            made = await trainer.get(LEASES, place.namespace, lease.name)
            assert made["metadata"]["annotations"]["genrm.dev/created-by"] == place.account("trainer")
            with pytest.raises(ApiRejected, match=rf"belongs to {place.account('trainer')}"):
                await rival.patch(LEASES, place.namespace, lease.name, PHASE)
            with pytest.raises(ApiRejected, match="belongs to"):
                await rival.delete(LEASES, place.namespace, lease.name)
    left = place.call("GET", f"leases/{lease_name('run-1', 'judge')}")
    assert "not found" in left, "and the trainer may delete it"


# ---------------------------------------------------------------------- Kubernetes itself


def test_the_garbage_collector_takes_the_leases_of_a_deleted_owner(place: Place) -> None:
    """A ConfigMap stands for the RewardModel: the collector looks for new kinds, such as ours, twice a minute."""
    allowed(place.create("configmaps", {**SETTINGS, "metadata": {"name": "owner"}}))
    uid = place.cluster.reader.get("configmaps", place.namespace, "owner")["metadata"]["uid"]
    lease = place.lease("owned", place.account("trainer"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    lease["metadata"]["ownerReferences"] = [owner]
    allowed(place.create("leases", lease, place.account("trainer")))
    allowed(place.delete("configmaps/owner"))
    name = f"leases/{lease['metadata']['name']}"
    wait_for("the Lease to go with its owner", lambda: "not found" in place.call("GET", name))


def test_a_namespace_with_leases_can_be_deleted(cluster: Cluster, place: Place) -> None:
    namespace = f"{place.namespace}-gone"
    cluster.kubectl("create", "namespace", namespace)
    lease = lease_manifest("run", "judge", namespace, Phase.IDLE, datetime.now(UTC), created_by="somebody")
    allowed(place.create("leases", lease, namespace=namespace))
    assert "deleted" in cluster.kubectl("delete", "namespace", namespace, "--timeout=30s").stdout
