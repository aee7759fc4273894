"""The shape of the generated CRDs, and that every rule in them is shown by a manifest that breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from genrm_api.crd import reward_fleet_crd, reward_model_crd
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_api.rules import RESERVED
from pydantic import ValidationError

from dev.reference import sentence
from tests.unit.api import cases, fleet_cases, shapes


@dataclass(frozen=True)
class Resource:
    crd: dict[str, Any]
    model: type[RewardModel | RewardFleet]
    broken: list[dict[str, Any]]
    """Whole objects, each of which at least one rule refuses."""
    least_rules: int

    @property
    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = self.crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return found


def broken(
    manifest: Callable[..., dict[str, Any]], specs: Any, names: Any, fit: dict[str, Any]
) -> list[dict[str, Any]]:
    return [manifest(spec) for spec, _ in specs.values()] + [manifest(fit, name) for name in names]


RESOURCES = {
    "RewardModel": Resource(
        reward_model_crd(),
        RewardModel,
        broken(shapes.manifest, cases.BROKEN, cases.BROKEN_NAMES, {}),
        80,
    ),
    "RewardFleet": Resource(
        reward_fleet_crd(),
        RewardFleet,
        broken(
            fleet_cases.manifest, fleet_cases.BROKEN, fleet_cases.BROKEN_NAMES, fleet_cases.fleet(fleet_cases.JUDGE)
        ),
        50,
    ),
}
each = pytest.mark.parametrize("resource", RESOURCES.values(), ids=RESOURCES.keys())


def walk(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from walk(value, path)


@each
def test_the_schema_is_structural_and_documented(resource: Resource) -> None:
    for path, node in walk(resource.schema):
        assert not {"$ref", "anyOf", "oneOf", "$defs", "const"} & set(node), path
    for path, node in walk(resource.schema["properties"]["spec"], "spec"):
        for name, prop in (node.get("properties") or {}).items() if isinstance(node.get("properties"), dict) else ():
            if isinstance(prop, dict) and "type" in prop:
                assert prop.get("description"), f"{path}.{name} has no description for kubectl explain"


@each
def test_what_rules_look_at_is_bounded(resource: Resource) -> None:
    """The API server estimates what a rule costs from these bounds, and refuses a CRD whose rules may cost too much."""
    for path, node in walk(resource.schema["properties"]["spec"], "spec"):
        match node.get("type"):
            case "array":
                assert "maxItems" in node, path
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "object" if isinstance(node.get("additionalProperties"), dict):
                assert "maxProperties" in node, path


@each
def test_every_rule_reaches_the_manifest_with_a_sentence_of_its_own(resource: Resource) -> None:
    rules = [rule for _, node in walk(resource.schema) for rule in node.get("x-kubernetes-validations", [])]
    told = {rule["rule"] for rule in rules if "messageExpression" in rule}
    assert len(told) >= resource.least_rules and {r["rule"] for r in rules} - told == {"self == int(self)"}


@each
def test_no_rule_names_a_field_by_a_word_that_cel_keeps_for_itself(resource: Resource) -> None:
    for _, node in walk(resource.schema):
        for rule in node.get("x-kubernetes-validations", []):
            for cel in (rule["rule"], rule.get("messageExpression", "")):
                bare = re.sub(r"'(?:[^'\\]|\\.)*'", "''", cel)
                assert not set(re.findall(r"\.(\w+)", bare)) & set(RESERVED), cel


@each
def test_no_field_is_called_what_yaml_takes_for_true_or_false(resource: Resource) -> None:
    """In YAML 1.1, which kubectl and Helm read, a key `y` is the key `true`."""
    for path, node in walk(resource.schema):
        if path.endswith(".properties"):
            assert not {name.lower() for name in node} & {"y", "n", "yes", "no", "on", "off", "true", "false"}, path


@each
def test_every_rule_has_a_manifest_that_breaks_it(resource: Resource) -> None:
    said = [refusal(resource.model, whole) for whole in resource.broken]
    for _, node in walk(resource.schema):
        for rule in node.get("x-kubernetes-validations", []):
            if "messageExpression" not in rule or "oldSelf" in rule["rule"]:
                continue
            words = sentence(rule["messageExpression"]).split("…")
            spoken = re.compile(".*?".join(map(re.escape, words)), re.DOTALL)
            assert any(spoken.search(one) for one in said), f"no case for: {sentence(rule['messageExpression'])}"


def refusal(model: type[RewardModel | RewardFleet], whole: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(whole)
    return str(refused.value)
