"""What a run is scored by travels to its processes and arrives as it was."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.judging import OnFailure
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_verl.target import Target
from omegaconf import OmegaConf


def model(name: str, **spec: Any) -> RewardModel:
    spec = spec or {"model": {"uri": "hf://org/judge"}}
    metadata = {"name": name, "namespace": "rl", "uid": f"uid-{name}", "resourceVersion": "7", "managedFields": []}
    return RewardModel.model_validate({"metadata": metadata, "spec": spec})


def fleet(*terms: dict[str, Any]) -> RewardFleet:
    return RewardFleet.model_validate({"metadata": {"name": "team", "namespace": "rl"}, "spec": {"terms": terms}})


def through_a_configuration(target: Target) -> Target:
    made = OmegaConf.create({"genrm": {"target": target.text()}})
    return Target.read(OmegaConf.to_container(made, resolve=True)["genrm"]["target"])  # type: ignore[index,call-overload]


def test_a_template_with_words_of_omegaconf_arrives_as_it_was() -> None:
    template = "Costs ${price} or ${oc.env:HOME}, {{ response }}? ??? \\boxed{}"
    judge = model("judge", model={"uri": "hf://a/b"}, scoring={"template": template, "parse": {"kind": "number"}})
    came = through_a_configuration(Target(judge, (judge,)))
    assert came.resource.spec == judge.spec and came.name == "judge" and came.namespace == "rl"
    assert came.resource.metadata == {"name": "judge", "namespace": "rl", "uid": "uid-judge"}
    assert not came.needs_siblings and came.drops_samples and came.has_pods


def test_a_fleet_arrives_with_its_models() -> None:
    judge = model("judge", model={"uri": "hf://a/b"})
    away = model("away", type="External", external={"url": "https://api.example.com/v1"})
    terms = [
        {"name": "right", "rule": {"kind": "exact"}},
        {"name": "good", "rewardModel": {"name": "judge"}, "gate": {"term": "right"}},
        {"name": "nice", "rewardModel": {"name": "away"}},
    ]
    came = through_a_configuration(Target(fleet(*terms), (judge, away)))
    assert came.resource.spec == fleet(*terms).spec
    assert came.model("away").spec == away.spec and came.needs_siblings and not came.drops_samples and came.has_pods
    assert not Target(fleet(terms[0], terms[2]), (away,)).has_pods


def test_approved_code_arrives_as_it_was() -> None:
    rule = {"kind": "python", "function": "f", "configMap": {"name": "own"}}
    code = {"own/rules.py": "def f(response, ground_truth):\n    return float('$' in response)\n"}
    came = through_a_configuration(Target(fleet({"name": "own", "rule": rule}), (), code))
    assert came.code == code


@pytest.mark.parametrize(
    ("policy", "siblings", "drops"),
    [
        (None, False, True),
        ({"policy": "drop"}, False, True),
        ({"policy": "value", "value": -1}, False, False),
        ({"policy": "group_mean"}, True, False),
        ({"policy": "group_drop"}, True, False),
        ({"policy": "raise"}, True, False),
    ],
)
def test_a_runs_own_policy_arrives_beside_the_resource_and_decides_where_responses_meet(
    policy: dict[str, Any] | None, siblings: bool, drops: bool
) -> None:
    judge = model("judge", model={"uri": "hf://a/b"}, scoring={"timeout": "9s"})
    own = None if policy is None else OnFailure.model_validate(policy)
    came = through_a_configuration(Target(judge, (judge,), run_policy=own))
    assert came.resource.spec == judge.spec, "as the cluster has it"
    assert came.run_policy == own and came.on_failure == (own or OnFailure())
    assert (came.needs_siblings, came.drops_samples) == (siblings, drops)
    assert isinstance(came.scored_by, RewardModel) and came.scored_by.spec.scoring.timeout == "9s"
