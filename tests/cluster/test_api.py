"""What the API server itself says to manifests."""

from __future__ import annotations

import json

import pytest
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from tests.cluster.conftest import World
from tests.unit.api.test_rewardmodel import BROKEN, manifest

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("case", BROKEN)
def test_kubectl_apply_refuses_what_pydantic_refuses_with_a_sentence(world: World, case: str) -> None:
    spec, _ = BROKEN[case]
    broken = manifest(spec)
    with pytest.raises(ValidationError):
        RewardModel.model_validate(broken)
    whole = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", **broken}
    whole["metadata"] = {"name": "judge"}
    done = world.kubectl("apply", "-f", "-", input=json.dumps(whole), check=False)
    assert done.returncode != 0
    said = done.stderr
    field = {
        "unknown field": "spec.replica",
        "bad type": "must be of type integer",
        "missing model": "spec.model: Required",
    }
    assert field.get(case, "spec.") in said, said


def test_a_name_that_services_cannot_carry_is_refused(world: World) -> None:
    whole = {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", **manifest({})}
    whole["metadata"] = {"name": "j" * 41}
    said = world.kubectl("apply", "-f", "-", input=json.dumps(whole), check=False).stderr
    assert "at most 40 characters" in said


def test_kubectl_explains_the_fields(world: World) -> None:
    assert "lifecycle" in world.kubectl("explain", "rm.spec").stdout
    assert "awake while a run's Lease asks for it" in world.kubectl("explain", "rm.spec.lifecycle.state").stdout
