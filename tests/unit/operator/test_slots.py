"""What a slot stands for, and what the pod of one looks like. Who gets it: `test_turns`."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.names import slot_deployment_name
from genrm_api.rewardmodel import RewardModel
from genrm_operator.children import children
from genrm_operator.door_source import DoorSource
from genrm_operator.engines import adapter_for
from genrm_operator.errors import Impossible
from genrm_operator.observed import Pod
from genrm_operator.settings import Settings
from genrm_operator.slots import holding

SETTINGS = Settings(master_key=b"k" * 32, engine_images={"vllm": "vllm:1"})
DOOR = DoorSource(b"an archive", "d" * 64)
CLAIMS = {"sharing": "SharedClaim", "slots": [{"name": "a"}, {"name": "b"}]}
PLACES = {
    "sharing": "Colocated",
    "slots": [{"name": "a", "node": "n1", "devices": [0, 1]}, {"name": "b", "node": "n2", "devices": [2, 3]}],
}
TWO = {"tensorParallel": 2}


def make(gpu: dict[str, Any], may_run: bool = True, name: str = "judge", **spec: Any) -> dict[str, dict[str, Any]]:
    whole = {"model": {"uri": "hf://a/b"}, "gpu": gpu, "replicas": len(gpu["slots"]), **spec}
    meta = {"name": name, "namespace": "rl", "uid": "u1", "generation": 1}
    rm = RewardModel.model_validate({"metadata": meta, "spec": whole})
    made = children(rm, adapter_for(rm.spec.engine.name), DOOR, SETTINGS, may_run=may_run)
    return {m["metadata"]["name"]: m for m in made if m["kind"] == "Deployment"}


def deployments(gpu: dict[str, Any], **spec: Any) -> list[dict[str, Any]]:
    made = make(gpu, **spec)
    return [made[slot_deployment_name("judge", slot["name"])] for slot in gpu["slots"]]


def engine(deployment: dict[str, Any]) -> dict[str, Any]:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_each_slot_has_a_deployment_of_one_pod_that_no_other_selects() -> None:
    for deployment, slot in zip(deployments(CLAIMS), "ab", strict=True):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert labels["genrm.dev/slot"] == slot and labels["genrm.dev/component"] == "engine"
        assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["selector"]["matchLabels"] == labels
    assert len(make(CLAIMS)) == 2, "and none of the model itself"


def test_an_old_pod_has_ended_before_a_new_one_takes_its_gpus() -> None:
    assert [d["spec"]["strategy"] for d in deployments(CLAIMS)] == [{"type": "Recreate"}] * 2


@pytest.mark.parametrize("without", [{"lifecycle": {"state": "Off"}}, {"replicas": 0}, {"may_run": False}])
def test_no_pods_are_no_pods_in_any_slot(without: dict[str, Any]) -> None:
    assert [d["spec"]["replicas"] for d in deployments(CLAIMS, **without)] == [0, 0]


def test_a_slot_by_claim_names_it_and_asks_the_device_plugin_for_nothing() -> None:
    (first, second) = deployments(CLAIMS)
    for deployment, slot in ((first, "a"), (second, "b")):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == [{"name": "genrm-slot", "resourceClaimName": slot}]
        assert engine(deployment)["resources"] == {"claims": [{"name": "genrm-slot"}]}
        assert "affinity" not in pod


def test_a_slot_by_place_goes_to_its_node_and_sees_its_devices_only() -> None:
    (first, second) = deployments(PLACES, engine=TWO, resources={"limits": {"memory": "8Gi"}})
    for deployment, node, devices in ((first, "n1", "0,1"), (second, "n2", "2,3")):
        pod = deployment["spec"]["template"]["spec"]
        (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        env = {e["name"]: e.get("value") for e in engine(deployment)["env"]}
        assert env["NVIDIA_VISIBLE_DEVICES"] == devices and "CUDA_VISIBLE_DEVICES" not in env
        assert engine(deployment)["resources"] == {"limits": {"memory": "8Gi"}} and "resourceClaims" not in pod


def test_what_a_user_asks_of_nodes_holds_too() -> None:
    terms = [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {"matchFields": [{"key": "x"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    overlay = {"spec": {"affinity": {"nodeAffinity": required, "podAffinity": {"x": "y"}}}}
    (first, _) = deployments(PLACES, engine=TWO, podTemplate=overlay)
    affinity = first["spec"]["template"]["spec"]["affinity"]
    found = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert all(term["matchFields"][-1]["values"] == ["n1"] for term in found) and len(found) == 2
    assert found[0]["matchExpressions"] == terms[0]["matchExpressions"] and affinity["podAffinity"] == {"x": "y"}


def test_one_model_has_one_revision_in_all_its_slots() -> None:
    stamps = {d["spec"]["template"]["metadata"]["annotations"]["genrm.dev/revision"] for d in deployments(CLAIMS)}
    assert len(stamps) == 1


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        ({"nodeName": "n9"}, r"spec\.podTemplate\.spec\.nodeName: passes by the scheduler"),
        ({"shareProcessNamespace": True}, r"spec\.shareProcessNamespace: found with an engine that ends"),
        ({"hostPID": True}, r"spec\.podTemplate\.spec\.hostPID: found with an engine that ends"),
        ({"resourceClaims": [{"name": "genrm-slot"}]}, r"resourceClaims\[genrm-slot\]: is the slot's"),
        (
            {"containers": [{"name": "engine", "env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "7"}]}]},
            r"env\[CUDA_VISIBLE_DEVICES\]: chooses GPUs, which spec\.gpu\.slots does; remove it",
        ),
    ],
)
def test_an_overlay_cannot_take_a_pod_out_of_its_slot(overlay: dict[str, Any], says: str) -> None:
    with pytest.raises(Impossible, match=says) as refused:
        make(CLAIMS, podTemplate={"spec": overlay})
    assert refused.value.reason == "PodTemplateRefused"


def test_names_of_deployments_are_short_and_nobody_elses() -> None:
    names = [
        slot_deployment_name(model, slot)
        for model, slot in [("a", "b-c"), ("a-b", "c"), ("judge", "router"), ("judge", "pods"), ("m" * 40, "s" * 63)]
    ]
    names.append(slot_deployment_name("m" * 40, "s" * 62))
    assert len(set(names)) == len(names) and all(len(name) <= 52 for name in names)
    assert not {"judge-router", "judge-pods"} & set(names) and names[2].startswith("judge-router-")


def test_what_a_model_names() -> None:
    found = holding({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"gpu": CLAIMS}})
    assert found is not None and found.twice is None
    assert found.slots == {"a": {("claim", "rl", "a")}, "b": {("claim", "rl", "b")}}
    found = holding({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"gpu": PLACES}})
    assert found is not None and found.slots["b"] == {("device", "n2", "2"), ("device", "n2", "3")}


def test_two_slots_of_one_model_are_not_the_same_gpu() -> None:
    slots = [{"name": "a", "node": "n", "devices": [0]}, {"name": "b", "node": "n", "devices": [0]}]
    gpu = {"sharing": "Colocated", "slots": slots}
    mine = holding({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"gpu": gpu}})
    assert mine is not None
    assert (mine.twice or "").startswith("spec.gpu.slots: b is device 0 of node n, and so is a; write")


def test_a_model_without_slots_names_none() -> None:
    assert holding({"metadata": {"name": "a", "namespace": "rl", "uid": "u"}, "spec": {"gpu": {}}}) is None


@pytest.mark.parametrize("gpu", [CLAIMS, PLACES])
def test_a_pod_says_itself_whose_gpus_it_has_and_waits_at_its_gate(gpu: dict[str, Any]) -> None:
    spec = {"engine": TWO} if gpu is PLACES else {}
    deployment = deployments(gpu, **spec)[1]
    template = deployment["spec"]["template"]
    node = {"nodeName": "n2"}
    pod = {
        "metadata": {"name": "p", "namespace": "rl", "uid": "u", **template["metadata"]},
        "spec": template["spec"] | node,
    }
    named = holding({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"gpu": gpu}})
    assert named is not None and Pod.from_object(pod).places == named.slots["b"]
    assert {"name": "GENRM_START_GATE", "value": "1"} in engine(deployment)["env"]
