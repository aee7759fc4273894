"""What a person sees of the API: kubectl's own words. All rules, and all manifests, are in test_api_equality."""

from __future__ import annotations

import json

import pytest
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from tests.cluster.conftest import World
from tests.unit.api.cases import BROKEN
from tests.unit.api.shapes import manifest

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("unknown field", "spec.replica"),
        ("bad type", "must be of type integer"),
        ("missing model", "spec.model: missing; write uri: hf://org/name"),
        ("reserved argument", "spec.engine.args: --port is set by the operator"),
        ("custom without image", "spec.engine.image: missing; engine custom has no default image, write one"),
        ("words for a classifier", "spec.scoring.mode: pairwise asks in words, and type Classifier gives a number"),
        ("an engine for an endpoint", "spec.engine has no meaning for type External"),
    ],
)
def test_kubectl_apply_refuses_what_pydantic_refuses_with_a_sentence(world: World, case: str, said: str) -> None:
    spec, _ = BROKEN[case]
    broken = manifest(spec)
    with pytest.raises(ValidationError):
        RewardModel.model_validate(broken)
    whole = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", **broken}
    whole["metadata"] = {"name": "judge"}
    done = world.kubectl("apply", "-f", "-", input=json.dumps(whole), check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_name_that_services_cannot_carry_is_refused(world: World) -> None:
    whole = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", **manifest({})}
    whole["metadata"] = {"name": "j" * 41}
    said = world.kubectl("apply", "-f", "-", input=json.dumps(whole), check=False).stderr
    assert "at most 40 characters" in said


def test_an_endpoint_outside_the_cluster_is_ready_without_pods(world: World) -> None:
    external = {"url": "https://api.example.com/v1", "model": "gpt-x"}
    whole = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": "judge"}}
    world.kubectl("apply", "-f", "-", input=json.dumps(whole | {"spec": {"type": "External", "external": external}}))
    status = world.phase("External")
    assert world.condition("Ready")["status"] == "True"
    assert status["replicas"] == 0 and world.objects("deployments,services,networkpolicies") == []


def test_what_is_not_carried_out_yet_is_degraded_with_a_sentence(world: World) -> None:
    world.apply(model={"uri": "oci://registry.example.com/judge:1"})
    world.phase("Degraded")
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "NotSupportedYet")
    assert degraded["message"].startswith("spec.model.uri: oci://registry.example.com/judge:1 is not carried out by")
    world.patch({"model": {"uri": "hf://test/judge"}})
    world.phase("Asleep")


def test_kubectl_explains_the_fields(world: World) -> None:
    assert "lifecycle" in world.kubectl("explain", "rm.spec").stdout
    assert "awake while a run's Lease asks for it" in world.kubectl("explain", "rm.spec.lifecycle.state").stdout
