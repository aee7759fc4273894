"""Who may connect to an engine and to the operator, by the meaning of the NetworkPolicies that we make."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.effective import effective_spec
from genrm_api.names import ENGINE_PORT, engine_selector
from genrm_api.rewardmodel import RewardModel
from genrm_operator.children.guards import network_policy

from tests.unit.network_policy import Pod, may_connect
from tests.unit.rendering import render

ENGINE = Pod("rl", engine_selector("judge"))
OTHER_ENGINE = Pod("rl", engine_selector("other"))
OPERATOR = Pod("genrm-system", {"app.kubernetes.io/name": "genrm-operator", "app.kubernetes.io/instance": "judges"})
TRAINER = Pod("rl", {"app": "verl"})
STRANGER = Pod("web", {"app": "verl"})
PROMETHEUS = Pod("monitoring", {"app": "prometheus"}, {"team": "platform"})
IMPOSTOR = Pod("web", OPERATOR.labels)
NODE = "192.168.7.4"


def policy(access: dict[str, Any] | None = None, operator_namespace: str = "genrm-system") -> dict[str, Any]:
    spec: dict[str, Any] = {"model": {"uri": "hf://a/b"}}
    if access is not None:
        spec["access"] = access
    rm = RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": spec})
    return network_policy(rm, effective_spec(rm), operator_namespace)


# ---------------------------------------------------------------------- the evaluator


def of(ingress: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "rl"}, "spec": {"podSelector": {}, "ingress": ingress, **spec}}


RULES: dict[str, tuple[list[dict[str, Any]], Pod | str, bool]] = {
    "no policy lets everybody in": ([], STRANGER, True),
    "a policy without a rule lets nobody in": ([of([])], TRAINER, False),
    "an empty rule lets everybody in": ([of([{}])], NODE, True),
    "an empty from is no from": ([of([{"from": []}])], STRANGER, True),
    "a bare podSelector is of the policy's namespace": ([of([{"from": [{"podSelector": {}}]}])], STRANGER, False),
    "and lets its pods in": ([of([{"from": [{"podSelector": {}}]}])], TRAINER, True),
    "an empty namespaceSelector is every pod": ([of([{"from": [{"namespaceSelector": {}}]}])], STRANGER, True),
    "but no address": ([of([{"from": [{"namespaceSelector": {}}]}])], NODE, False),
    "both selectors of one peer must match": (
        [of([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}]}])],
        STRANGER,
        False,
    ),
    "of two peers one is enough": (
        [of([{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}, {"podSelector": {}}]}])],
        TRAINER,
        True,
    ),
    "of two policies one is enough": ([of([]), of([{}])], TRAINER, True),
    "another port is not let in": ([of([{"ports": [{"port": 22}]}])], TRAINER, False),
    "another protocol neither": ([of([{"ports": [{"port": 8000, "protocol": "UDP"}]}])], TRAINER, False),
    "a range of ports is": ([of([{"ports": [{"port": 7000, "endPort": 9000}]}])], TRAINER, True),
    "an address in the block is let in": ([of([{"from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}])], NODE, True),
    "but not in an exception": (
        [of([{"from": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.7.0/24"]}}]}])],
        NODE,
        False,
    ),
    "a policy for other pods says nothing": ([of([], podSelector={"matchLabels": {"app": "x"}})], STRANGER, True),
    "a policy for egress says nothing": ([of([], policyTypes=["Egress"])], STRANGER, True),
    "NotIn matches who has no such label": (
        [of([{"from": [{"podSelector": {"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v"]}]}}]}])],
        TRAINER,
        True,
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_the_evaluator_reads_policies_as_the_api_means_them(case: str) -> None:
    policies, source, allowed = RULES[case]
    assert may_connect(policies, source, ENGINE, 8000) is allowed


# ---------------------------------------------------------------------- engines

NAMED = {"clients": [{"namespaceSelector": {"matchLabels": {"team": "platform"}}}]}
TO_ENGINES: dict[str, tuple[dict[str, Any] | None, dict[str, bool]]] = {
    "without access: the own namespace, and the operator": (
        None,
        {"trainer": True, "operator": True, "stranger": False, "prometheus": False, "node": False, "impostor": False},
    ),
    "clients: who is named, and the own namespace no more": (
        NAMED,
        {"trainer": False, "operator": True, "stranger": False, "prometheus": True, "node": False, "impostor": False},
    ),
    "nobody as client: the operator alone": (
        {"clients": []},
        {"trainer": False, "operator": True, "stranger": False, "prometheus": False, "node": False, "impostor": False},
    ),
    "monitoring: comes beside the own namespace": (
        {"monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
        {"trainer": True, "operator": True, "stranger": False, "prometheus": True, "node": False, "impostor": False},
    ),
    "a trainer on its node's network: an ipBlock": (
        {"clients": [{"ipBlock": {"cidr": "192.168.7.0/24"}}]},
        {"trainer": False, "operator": True, "stranger": False, "prometheus": False, "node": True, "impostor": False},
    ),
}
SOURCES: dict[str, Pod | str] = {
    "trainer": TRAINER,
    "operator": OPERATOR,
    "stranger": STRANGER,
    "prometheus": PROMETHEUS,
    "node": NODE,
    "impostor": IMPOSTOR,
}


@pytest.mark.parametrize("case", TO_ENGINES)
def test_who_may_reach_an_engine(case: str) -> None:
    access, expected = TO_ENGINES[case]
    made = policy(access)
    assert {name: may_connect([made], s, ENGINE, ENGINE_PORT) for name, s in SOURCES.items()} == expected


@pytest.mark.parametrize("source", SOURCES)
def test_nobody_reaches_an_engine_on_another_port(source: str) -> None:
    assert not may_connect([policy(NAMED), policy()], SOURCES[source], ENGINE, ENGINE_PORT + 1)


def test_the_policy_of_one_model_opens_no_other() -> None:
    other = policy({"clients": []})
    other["spec"]["podSelector"] = {"matchLabels": engine_selector("other")}
    assert may_connect([policy(), other], TRAINER, ENGINE, ENGINE_PORT)
    assert not may_connect([policy(), other], TRAINER, OTHER_ENGINE, ENGINE_PORT)


def test_an_operator_outside_the_cluster_is_recognised_by_label_alone() -> None:
    assert may_connect([policy(operator_namespace="")], IMPOSTOR, ENGINE, ENGINE_PORT)


# ---------------------------------------------------------------------- the chart


def test_the_operators_pods_are_the_ones_that_engines_let_in() -> None:
    labels = render()["Deployment", "genrm-operator"]["spec"]["template"]["metadata"]["labels"]
    assert may_connect([policy()], Pod("genrm-system", labels), ENGINE, ENGINE_PORT)


def test_the_pod_of_helm_test_is_a_client_like_others_and_no_operator() -> None:
    pod = render(test={"rewardModel": "rl/judge"})["Pod", "genrm-operator-test"]
    source = Pod(pod["metadata"]["namespace"], pod["metadata"]["labels"])
    assert may_connect([policy()], source, ENGINE, ENGINE_PORT)
    assert not may_connect([policy({"clients": []})], source, ENGINE, ENGINE_PORT)


@pytest.mark.parametrize(
    ("monitoring", "source", "port", "allowed"),
    [
        ([], PROMETHEUS, 9090, True),
        ([], NODE, 9090, True),
        ([], PROMETHEUS, 22, False),
        ([{"namespaceSelector": {"matchLabels": {"team": "platform"}}}], PROMETHEUS, 9090, True),
        ([{"namespaceSelector": {"matchLabels": {"team": "platform"}}}], STRANGER, 9090, False),
    ],
)
def test_who_may_reach_the_operator(
    monitoring: list[dict[str, Any]], source: Pod | str, port: int, allowed: bool
) -> None:
    rendered = render(networkPolicy={"monitoring": monitoring})
    made = rendered["NetworkPolicy", "genrm-operator"]
    labels = rendered["Deployment", "genrm-operator"]["spec"]["template"]["metadata"]["labels"]
    assert may_connect([made], source, Pod("genrm-system", labels), port) is allowed
    assert made["spec"]["policyTypes"] == ["Ingress"], "egress is open: the API server has no label"
