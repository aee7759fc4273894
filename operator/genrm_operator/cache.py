"""What the watches have told us, as projections: the newest of each object, by key.

Handlers write, the reconciler reads. Nothing here decides or waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from genrm_api.leases import DemandLease
from genrm_api.names import LABEL_REWARD_MODEL

from genrm_operator.observed import Pod

Key = tuple[str, str]
"""(namespace, name) of a RewardModel."""


@dataclass(slots=True)
class Cache:
    reward_models: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Whole objects: spec and status are both read."""
    pods: defaultdict[Key, dict[str, Pod]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then pod uid."""
    leases: defaultdict[Key, dict[str, DemandLease]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then Lease name."""
    children: defaultdict[Key, dict[tuple[str, str], str]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then (kind, name): a fingerprint that changes when somebody changes the object."""
    _versions: dict[str, int] = field(default_factory=dict)
    """uid → newest resourceVersion seen. We also store answers to our own writes, and the watch lags behind these."""

    def put_reward_model(self, obj: Mapping[str, Any], *, deleted: bool) -> Key:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if deleted:
            self.reward_models.pop(key, None)
            self._versions.pop(obj["metadata"]["uid"], None)
        elif self._is_news(obj):
            self.reward_models[key] = dict(obj)
        return key

    def put_pod(self, obj: Mapping[str, Any], *, deleted: bool) -> Key:
        pod = Pod.from_object(obj)
        key = (pod.namespace, pod.reward_model)
        if deleted:
            self.pods[key].pop(pod.uid, None)
            self._versions.pop(obj["metadata"]["uid"], None)
        elif self._is_news(obj):
            self.pods[key][pod.uid] = pod
        return key

    def put_lease(self, obj: Mapping[str, Any], *, deleted: bool) -> Key:
        lease = DemandLease.from_object(obj)
        key = (lease.namespace, lease.reward_model)
        if deleted:
            self.leases[key].pop(lease.name, None)
            self._versions.pop(obj["metadata"]["uid"], None)
        elif self._is_news(obj):
            self.leases[key][lease.name] = lease
        return key

    def child_putter(self, kind: str) -> Putter:
        """How children of one kind are stored."""

        def put(obj: Mapping[str, Any], *, deleted: bool) -> Key:
            meta = obj["metadata"]
            key = (meta["namespace"], (meta.get("labels") or {}).get(LABEL_REWARD_MODEL, ""))
            if deleted:
                self.children[key].pop((kind, meta["name"]), None)
            else:
                self.children[key][kind, meta["name"]] = fingerprint(obj)
            return key

        return put

    def _is_news(self, obj: Mapping[str, Any]) -> bool:
        """False for an object older than what is known: resource versions of one kind are ordered (KEP-5504)."""
        uid, version = obj["metadata"]["uid"], int(obj["metadata"]["resourceVersion"])
        if version < self._versions.get(uid, 0):
            return False
        self._versions[uid] = version
        return True

    def tidy(self, key: Key) -> None:
        """Drop the empty shelves of a RewardModel that is gone; what still exists leaves by its own deletion."""
        for store in (self.pods, self.leases, self.children):
            if not store[key]:
                del store[key]


class Putter(Protocol):
    """Stores an object as the watch shows it, and names the RewardModel that it belongs to."""

    def __call__(self, obj: Mapping[str, Any], *, deleted: bool) -> Key: ...


def fingerprint(obj: Mapping[str, Any]) -> str:
    """Changes when the object's desired state changes; a Deployment's status, for one, does not count."""
    meta = obj["metadata"]
    return f"{meta['uid']}/{meta.get('generation') or meta.get('resourceVersion')}"
