"""A test double: it enforces NetworkPolicies on the embedded node, which has no enforcer.

None that exists can be built from what is to be had here. This one reads pods, namespaces and policies from the API
server and writes nftables rules into the node's network namespace, where all traffic between pods is forwarded. What a
policy means it takes from `tests.unit.network_policy`: it asks for each pair, source and pod, and writes the answers
down. So it shows that the policies, with that meaning, cut off and let in real connections; not that some CNI plugin
has the same meaning.

What a real one does and this does not: it looks once, at `enforce`; IPv4, TCP and ingress only; a port that neither a
container nor a policy names is shut. As on real nodes, a node reaches its own pods whatever the policies say.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from dev.cluster import Cluster
from tests.unit.network_policy import Pod, Policy, isolating, may_connect

TABLE: Final = "genrm_policy_double"
_RULES: Final = """
table ip {table} {{
  set isolated {{ type ipv4_addr; {isolated} }}
  set let_in {{ type ipv4_addr . ipv4_addr . inet_service; {let_in} }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ip saddr . ip daddr . tcp dport @let_in accept
    ip daddr @isolated reject with icmp type admin-prohibited
  }}
}}
"""


class PolicyDouble:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def enforce(self) -> None:
        """Hold the node to the policies that there are now."""
        reader = self._cluster.reader
        labels = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in reader.list("namespaces")}
        found = [p for p in reader.list("pods") if p["status"].get("podIP") and not p["spec"].get("hostNetwork")]
        pods = {str(p["status"]["podIP"]): _pod(p, labels[p["metadata"]["namespace"]]) for p in found}
        outside = [self._cluster.settings.host_address]
        self._nft(rules(reader.list("networkpolicies"), pods, outside))

    def lift(self) -> None:
        self._nft("")

    def _nft(self, wanted: str) -> None:
        """Replace our table by what is wanted, at once."""
        script = f"add table ip {TABLE}\ndelete table ip {TABLE}\n{wanted}"
        nft = self._cluster.popen_in_box(
            ["nft", "-f", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said, _ = nft.communicate(script, timeout=30)
        assert nft.returncode == 0, f"{said}\n{script}"


@contextmanager
def enforced(cluster: Cluster) -> Iterator[PolicyDouble]:
    """A double that has looked once; afterwards everybody may connect again."""
    double = PolicyDouble(cluster)
    try:
        double.enforce()
        yield double
    finally:
        double.lift()


def rules(policies: Sequence[Policy], pods: Mapping[str, Pod], outside: Iterable[str]) -> str:
    """The table for these pods, by address; `outside` are the addresses beyond the pod network."""
    sources: dict[str, Pod | str] = {**pods, **{address: address for address in outside}}
    isolated = [address for address, pod in pods.items() if isolating(policies, pod)]
    let_in = [
        f"{source} . {target} . {port}"
        for target in isolated
        for port in _ports(policies, pods[target])
        for source, who in sources.items()
        if may_connect(policies, who, pods[target], port)
    ]
    return _RULES.format(table=TABLE, isolated=_elements(isolated), let_in=_elements(let_in))


def _elements(found: Iterable[str]) -> str:
    listed = ", ".join(sorted(found))
    return f"elements = {{ {listed} }}" if listed else ""


def _ports(policies: Sequence[Policy], pod: Pod) -> list[int]:
    entries = (e for p in policies for rule in p["spec"].get("ingress") or [] for e in rule.get("ports") or [])
    return sorted({e["port"] for e in entries if isinstance(e.get("port"), int)} | set(pod.ports.values()))


def _pod(found: Mapping[str, Any], namespace_labels: Mapping[str, str]) -> Pod:
    listed = [port for container in found["spec"]["containers"] for port in container.get("ports") or []]
    ports = {str(port.get("name", port["containerPort"])): int(port["containerPort"]) for port in listed}
    meta = found["metadata"]
    return Pod(meta["namespace"], meta.get("labels") or {}, namespace_labels, ports)
