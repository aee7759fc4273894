"""What protects running engines: who may open a connection to them, and how many may be evicted at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from genrm_api.effective import EffectiveSpec
from genrm_api.lifecycle import RoutingMode
from genrm_api.names import (
    COMPONENT_ENGINE,
    COMPONENT_WORKER,
    ENGINE_PORT,
    LABEL_COMPONENT,
    LABEL_REWARD_MODEL,
    WARDEN_PORT,
    engine_selector,
    leader_worker_set_name,
    router_name,
    router_selector,
    worker_selector,
)
from genrm_api.rewardmodel import RewardModel

from genrm_operator.children.metadata import metadata

OPERATOR_LABELS: Final = {"app.kubernetes.io/name": "genrm-operator"}
"""On the operator's own pods; the chart writes it."""
GATEWAY: Final = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "genrm-gateway"}}}
"""The chart's gateway of the model's namespace."""


def network_policy(rm: RewardModel, effective: EffectiveSpec, operator_namespace: str) -> dict[str, Any]:
    """Let in, on the engine's port and no other: clients, monitoring, and always operator and gateway.

    `operator_namespace` empty: the operator does not know where it runs (it was started outside the cluster), and its
    label counts in every namespace.
    """
    # An empty `from` would let everybody in; the operator's place in it keeps the list from ever being empty.
    peers = [_operator(operator_namespace), GATEWAY, *_allowed(effective)]
    if rm.spec.routing.mode is RoutingMode.ROUTER:
        peers.append({"podSelector": {"matchLabels": router_selector(rm.name)}})
    rules = [_on(ENGINE_PORT, peers)]
    if effective.nodes > 1:
        rules.append(_among_ranks(rm))
    return _policy(rm, rm.name, engine_selector(rm.name), rules)


def worker_network_policy(rm: RewardModel) -> dict[str, Any]:
    """Let in to the other parts of an engine that spans nodes nobody but its parts."""
    return _policy(rm, leader_worker_set_name(rm.name), worker_selector(rm.name), [_among_ranks(rm)])


def _among_ranks(rm: RewardModel) -> dict[str, Any]:
    """On all ports: where the ranks of an engine meet they agree among themselves."""
    parts = (engine_selector(rm.name), worker_selector(rm.name))
    return {"from": [{"podSelector": {"matchLabels": part}} for part in parts]}


def router_network_policy(rm: RewardModel, effective: EffectiveSpec, operator_namespace: str) -> dict[str, Any]:
    """Let clients in to the router, and to its warden nobody but the operator."""
    operator = _operator(operator_namespace)
    rules = [_on(ENGINE_PORT, [operator, GATEWAY, *_allowed(effective)]), _on(WARDEN_PORT, [operator])]
    return _policy(rm, router_name(rm.name), router_selector(rm.name), rules)


def _operator(namespace: str) -> dict[str, Any]:
    where = {"matchLabels": {"kubernetes.io/metadata.name": namespace}} if namespace else {}
    return {"namespaceSelector": where, "podSelector": {"matchLabels": OPERATOR_LABELS}}


def _allowed(effective: EffectiveSpec) -> list[dict[str, Any]]:
    return [peer.manifest() for peer in (*effective.clients, *effective.monitoring)]


def _on(port: int, peers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ports": [{"port": port, "protocol": "TCP"}], "from": peers}


def _policy(rm: RewardModel, name: str, pods: Mapping[str, str], ingress: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(rm, name),
        "spec": {"podSelector": {"matchLabels": dict(pods)}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def disruption_budget(rm: RewardModel, effective: EffectiveSpec) -> dict[str, Any]:
    """One engine at a time, and those that do not run anyway at any time: a broken one must not hold up a drain."""
    selector: dict[str, Any] = {"matchLabels": engine_selector(rm.name)}
    if effective.nodes > 1:  # with any of its pods an engine that spans nodes is gone
        parts = {"key": LABEL_COMPONENT, "operator": "In", "values": [COMPONENT_ENGINE, COMPONENT_WORKER]}
        selector = {"matchLabels": {LABEL_REWARD_MODEL: rm.name}, "matchExpressions": [parts]}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(rm, rm.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": selector,
        },
    }
