"""Code of rules that lies in ConfigMaps of the cluster, for runs that approve it.

Whoever may write such a ConfigMap could otherwise run what he likes in every training run that names the fleet. So a
run says which texts it has read, by their SHA-256; any other is refused, and its hash is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from genrm_api.answer_rules import FunctionSource
from genrm_api.rewardfleet import RewardFleet

from genrm_scoring.cluster import CONFIG_MAPS, Cluster
from genrm_scoring.errors import ConfigurationError, NotFound

Code = Mapping[str, str]
"""`place` of a ConfigMap's key → the text of the module."""


def place(source: FunctionSource) -> str:
    return f"{source.name}/{source.key}"


async def approved_code(cluster: Cluster, fleet: RewardFleet, allowed: Collection[str], field: str) -> dict[str, str]:
    """The code that a fleet's rules name.

    Args:
        allowed: SHA-256 of texts, as hexadecimal digits.
        field: what approves them, for messages.

    Raises:
        ConfigurationError: it is not there, or not approved.
        ClusterError
    """
    found: dict[str, str] = {}
    for term in fleet.spec.terms:
        if term.rule is None or (source := term.rule.config_map) is None:
            continue
        where = f"RewardFleet {fleet.name} spec.terms {term.name} rule.configMap"
        try:
            held = await cluster.get(CONFIG_MAPS, fleet.namespace, source.name)
        except NotFound:
            raise ConfigurationError(where, f"there is no ConfigMap {fleet.namespace}/{source.name}") from None
        data = held.get("data") or {}
        if (text := data.get(source.key)) is None:
            keys = ", ".join(sorted(data)) or "none"
            raise ConfigurationError(where, f"ConfigMap {source.name} has no key {source.key}; it has {keys}")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in allowed:
            raise ConfigurationError(
                where,
                f"its code would run with the rights of this run: read it (kubectl -n {fleet.namespace} get configmap "
                f"{source.name} -o yaml), and write {field}={digest}",
            )
        found[place(source)] = text
    return found
