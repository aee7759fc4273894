"""The resource's own rules, from the Python side, and the shape of the generated CRD."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.crd import reward_model_crd
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

BROKEN = {
    "unknown field": ({"replica": 2}, "replica"),
    "bad type": ({"replicas": "two"}, "replicas"),
    "reserved argument": ({"engine": {"args": ["--port=9"]}}, "spec.engine.args: --port is set"),
    "reserved argument, underscores": ({"engine": {"args": ["--api_key", "x"]}}, "spec.engine.args: --api-key is set"),
    "missing model": ({"model": None}, "model"),
    "unknown engine": ({"engine": {"name": "tgi"}}, "'vllm' or 'custom'"),
    "custom without command": ({"engine": {"name": "custom", "image": "x"}}, "spec.engine.custom: missing"),
    "command without custom": ({"engine": {"custom": {"command": ["x"]}}}, "remove it or write name: custom"),
    "wrong scheme": ({"model": {"uri": "s3://bucket"}}, "is none of hf://org/name"),
    "path upwards": ({"model": {"uri": "file:///a/../b"}}, 'without ".."'),
    "reserved variable": ({"env": [{"name": "LD_PRELOAD", "value": "x"}]}, "LD_PRELOAD is reserved"),
    "value policy without value": ({"scoring": {"onFailure": {"policy": "value"}}}, "spec.scoring.onFailure.value"),
    "duration": ({"scoring": {"timeout": "soon"}}, "timeout"),
}


def manifest(spec: dict[str, Any], name: str = "judge") -> dict[str, Any]:
    whole = {"model": {"uri": "hf://a/b"}, **spec}
    return {"metadata": {"name": name, "namespace": "rl"}, "spec": {k: v for k, v in whole.items() if v is not None}}


@pytest.mark.parametrize(("spec", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_manifest_is_refused_with_a_sentence(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RewardModel.model_validate(manifest(spec))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["Judge", "1judge", "j" * 41, "judge-", ""])
def test_names_that_services_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"metadata\.name"):
        RewardModel.model_validate(manifest({}, name))


def test_only_what_every_type_allows_is_defaulted() -> None:
    rm = RewardModel.model_validate(manifest({}))
    assert rm.spec.replicas == 1 and rm.served_name == "judge" and rm.spec.engine.name == "vllm"


def walk(node: Any, path: str = "") -> Any:
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from walk(value, path)


def test_the_schema_is_structural_and_documented() -> None:
    schema = reward_model_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in walk(schema):
        assert not {"$ref", "anyOf", "oneOf", "$defs", "const"} & set(node), path
    for path, node in walk(schema["properties"]["spec"], "spec"):
        for name, prop in (node.get("properties") or {}).items() if isinstance(node.get("properties"), dict) else ():
            if isinstance(prop, dict) and "type" in prop:
                assert prop.get("description"), f"{path}.{name} has no description for kubectl explain"


def test_every_rule_reaches_the_manifest() -> None:
    schema = reward_model_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = [rule for _, node in walk(schema) for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) == 8 and all("messageExpression" in rule for rule in rules)
