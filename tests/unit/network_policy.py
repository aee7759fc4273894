"""What a set of NetworkPolicies means: who may connect to whom.

The meaning is the one of the API's documentation, for ingress: a pod that no policy selects lets everybody in; a pod
that some select lets in what one of them allows. No enforcer runs here; the double of one that the e2e tier has
(`tests.e2e.policy_double`) takes the meaning from here. A source outside the pod network (a node, a pod
with the node's network, the world) is an address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """Named container ports."""

    @property
    def all_namespace_labels(self) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def may_connect(policies: Iterable[Policy], source: Pod | str, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether `source`, a pod or an address, may open a connection to a port of `target`."""
    own = isolating(policies, target)
    if not own:
        return True
    rules = [(policy, rule) for policy in own for rule in policy["spec"].get("ingress") or []]
    return any(
        _port_matches(rule.get("ports"), target, port, protocol)
        and _peers_match(rule.get("from"), policy["metadata"]["namespace"], source)
        for policy, rule in rules
    )


def isolating(policies: Iterable[Policy], target: Pod) -> list[Policy]:
    """The policies that select a pod for ingress; none: everybody may connect."""
    return [policy for policy in policies if _selects(policy, target)]


def _selects(policy: Policy, pod: Pod) -> bool:
    spec = policy["spec"]
    return (
        policy["metadata"]["namespace"] == pod.namespace
        and "Ingress" in (spec.get("policyTypes") or ["Ingress"])
        and matches(spec["podSelector"], pod.labels)
    )


def _port_matches(ports: list[dict[str, Any]] | None, target: Pod, port: int, protocol: str) -> bool:
    return not ports or any(
        entry.get("protocol", "TCP") == protocol and _in_range(entry, target, port) for entry in ports
    )


def _in_range(entry: Mapping[str, Any], target: Pod, port: int) -> bool:
    wanted = entry.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return target.ports.get(wanted) == port
    return bool(wanted <= port <= entry.get("endPort", wanted))


def _peers_match(peers: list[dict[str, Any]] | None, namespace: str, source: Pod | str) -> bool:
    return not peers or any(_peer_matches(peer, namespace, source) for peer in peers)


def _peer_matches(peer: Mapping[str, Any], namespace: str, source: Pod | str) -> bool:
    if (block := peer.get("ipBlock")) is not None:
        return isinstance(source, str) and _in_block(block, source)
    if isinstance(source, str):
        return False
    if (selector := peer.get("namespaceSelector")) is not None:
        in_namespace = matches(selector, source.all_namespace_labels)
    else:
        in_namespace = source.namespace == namespace
    return in_namespace and matches(peer.get("podSelector") or {}, source.labels)


def _in_block(block: Mapping[str, Any], source: str) -> bool:
    address = ipaddress.ip_address(source)
    inside = [address in ipaddress.ip_network(net) for net in (block["cidr"], *(block.get("except") or []))]
    return inside[0] and not any(inside[1:])


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one matches everything."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"no operator {other}")
