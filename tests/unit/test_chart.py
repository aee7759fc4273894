"""The chart's values: what is refused and how it is said; what an installation asks of a cluster."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from dev.cluster import toolchain
from tests.unit.rendering import CHART, render, said

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a typo at the top": ({"replica": 3}, "additional properties 'replica' not allowed"),
    "a typo below": ({"metrics": {"prot": 9090}}, "at '/metrics': additional properties 'prot' not allowed"),
    "a typo in a list": (
        {"clients": [{"namespace": "rl", "subject": []}]},
        "at '/clients/0': missing property 'subjects'",
    ),
    "text for a number": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "too many": ({"replicas": 10}, "at '/replicas': maximum: got 10, want 9"),
    "a namespace that cannot be": ({"watchNamespaces": ["RL"]}, "at '/watchNamespaces/0': 'RL' does not match pattern"),
    "a namespace twice": ({"watchNamespaces": ["rl", "rl"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
    "a list that is none": ({"watchNamespaces": "rl"}, "at '/watchNamespaces': got string, want array"),
    "a relative path": ({"hostModelPrefixes": ["models"]}, "at '/hostModelPrefixes/0': 'models' does not match"),
    "a low port": ({"metrics": {"port": 80}}, "at '/metrics/port': minimum: got 80, want 1,024"),
    "an unknown level": ({"log": {"level": "TRACE"}}, "value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
    "an unknown subject": (
        {"clients": [{"namespace": "rl", "subjects": [{"kind": "Robot", "name": "r2"}]}]},
        "value must be one of 'ServiceAccount', 'User', 'Group'",
    ),
    "clients without anybody": (
        {"clients": [{"namespace": "rl", "subjects": []}]},
        "at '/clients/0/subjects': minItems: got 0, want 1",
    ),
    "clients of a namespace twice": (
        {"clients": [{"namespace": "rl", "subjects": [{"kind": "User", "name": n}]} for n in "ab"]},
        "clients: namespace rl is listed twice; write all its subjects in one entry",
    ),
    "clients outside the watched namespaces": (
        {"watchNamespaces": ["a", "b"], "clients": [{"namespace": "c", "subjects": [{"kind": "User", "name": "x"}]}]},
        "clients: the operator does not watch namespace c, only a, b; add it to watchNamespaces",
    ),
    "a gateway of a namespace twice": (
        {"gateways": [{"namespace": "rl"}, {"namespace": "rl"}]},
        "gateways: namespace rl is listed twice; one gateway serves all models of a namespace",
    ),
    "a gateway outside the watched namespaces": (
        {"watchNamespaces": ["a"], "gateways": [{"namespace": "b"}]},
        "gateways: the operator does not watch namespace b, only a; add it to watchNamespaces",
    ),
    "a gateway of nothing": ({"gateways": [{}]}, "at '/gateways/0': missing property 'namespace'"),
    "a gateway with a typo": (
        {"gateways": [{"namespace": "rl", "replica": 3}]},
        "at '/gateways/0': additional properties 'replica' not allowed",
    ),
    "a test without a namespace": (
        {"test": {"rewardModel": "judge"}},
        "at '/test/rewardModel': 'judge' does not match",
    ),
    "a test outside the watched namespaces": (
        {"watchNamespaces": ["a"], "test": {"rewardModel": "rl/judge"}},
        "test.rewardModel: the operator does not watch namespace rl, only a; add it to watchNamespaces",
    ),
    "a peer that is none": (
        {"networkPolicy": {"monitoring": [{"namespace": "monitoring"}]}},
        "at '/networkPolicy/monitoring/0': additional properties 'namespace' not allowed",
    ),
    "a Secret's value where its name belongs": (
        {"masterKey": {"key": "0123456789abcdef"}},
        "at '/masterKey': additional properties 'key' not allowed",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_refused_with_the_place_and_what_is_wrong(case: str) -> None:
    values, sentence = BAD[case]
    assert sentence in said(values)


def test_every_value_that_the_chart_has_is_in_its_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    missing = [path for path in _paths(values) if not _described(schema, schema, path)]
    assert not missing, f"values.schema.json does not know {missing}"


def _paths(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _described(root: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a value has a schema of its own, or lies where Kubernetes' own types begin."""
    while "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    if not path:
        return True
    if "properties" not in schema:
        return schema.get("type") == "object"
    assert schema["additionalProperties"] is False, f"{schema} lets typos pass"
    below = schema["properties"].get(path[0])
    return below is not None and _described(root, below, path[1:])


def test_namespaced_mode_makes_nothing_of_the_whole_cluster_but_the_crds_and_the_policies() -> None:
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    whole_cluster = policies | {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    kinds = {kind for kind, _ in render(watchNamespaces=["rl", "lab"])}
    assert kinds & whole_cluster == policies | {"CustomResourceDefinition"}
    off: dict[str, Any] = {"crds": {"install": False}, "admissionPolicies": {"enabled": False}}
    assert not {kind for kind, _ in render(watchNamespaces=["rl"], **off)} & whole_cluster


def test_two_releases_of_one_name_in_two_namespaces_share_no_object_of_the_whole_cluster() -> None:
    named = {name for kind, name in render(watchNamespaces=["rl"]) if kind.startswith("ValidatingAdmissionPolicy")}
    assert named and all("genrm-system" in name for name in named)


def test_no_rule_grants_everything_or_touches_secrets() -> None:
    rendered = render(watchNamespaces=["rl"]) | render()
    rules = [rule for (kind, _), m in rendered.items() if kind in ("Role", "ClusterRole") for rule in m["rules"]]
    assert len(rules) > 10
    for rule in rules:
        words = [word for words in rule.values() for word in words]
        assert "*" not in words and "secrets" not in words, rule


def test_the_suites_of_helm_unittest_pass() -> None:
    program = toolchain.bin_dir(toolchain.CHART_TOOLS) / "helm-unittest"
    if not program.exists():
        pytest.skip("helm-unittest is not built yet; `make test` does it")
    done = subprocess.run([str(program), "--color=false", str(CHART)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    suites = len(list((CHART / "tests").glob("*_test.yaml")))
    assert re.search(rf"Test Suites: {suites} passed, {suites} total", done.stdout), done.stdout
