"""Make a RewardModel's children equal to what is wanted: applied where they differ, removed where nobody wants them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from genrm_api.names import golden_configmap_name

from genrm_operator.cache import Cache, Existing, Key
from genrm_operator.errors import NotFound
from genrm_operator.kube import Kube
from genrm_operator.memory import Made, Memory

log = logging.getLogger(__name__)

Child = tuple[str, str]
"""(kind, name)."""


async def settle(kube: Kube, cache: Cache, key: Key, owner: str, memory: Memory, wanted: Made) -> None:
    """Apply the children that differ from what we applied last, or that somebody else has touched since.

    Args:
        owner: uid of the RewardModel. Only what it owns is ever removed.

    Raises:
        ApiError: the API server refused a child.
        NotFound: the RewardModel is not there any more.
    """
    missed = any(cache.children[key].get(child) is None for child in memory.applied.keys() & set(_children(wanted)))
    if missed and not await _is_there(kube, key, owner):
        raise NotFound("GET RewardModel", 404, "its children are gone with it")
    for manifest, digest in zip(wanted.manifests, wanted.digests, strict=True):
        child = (manifest["kind"], manifest["metadata"]["name"])
        before = cache.children[key].get(child)
        if before is not None and memory.applied.get(child) == (digest, before.fingerprint):
            continue
        if await put(kube, cache, memory, manifest, digest) != before:
            log.info("applied %s namespace=%s name=%s", child[0], key[0], child[1])
    mounted = (name for pod in cache.pods[key].values() for name in (pod.door_map, pod.pin_map))
    in_use = {name for name in mounted if name is not None} | {golden_configmap_name(key[1])}
    there = dict(cache.children[key])  # one may be gone before it is its turn
    for kind, name in unwanted(there, _children(wanted), owner, in_use):
        with contextlib.suppress(NotFound):
            await kube.delete(kind, key[0], name, there[kind, name].uid)
        cache.children[key].pop((kind, name), None)
        memory.applied.pop((kind, name), None)
        log.info("removed %s namespace=%s name=%s: no longer wanted", kind, key[0], name)


async def put(kube: Kube, cache: Cache, memory: Memory, manifest: Mapping[str, Any], digest: str) -> Existing:
    """Apply one child, and remember that it is what this digest stands for.

    Raises:
        ApiError: the API server refused it.
    """
    kind = manifest["kind"]
    applied = await kube.apply(manifest)
    cache.child_putter(kind)(applied, deleted=False)
    now = Existing.of(applied)
    memory.applied[kind, manifest["metadata"]["name"]] = (digest, now.fingerprint)
    return now


def _children(wanted: Made) -> list[Child]:
    return [(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted.manifests]


async def _is_there(kube: Kube, key: Key, uid: str) -> bool:
    """Ask the API server itself: of a deletion the watch of the children may tell before that of their owner, and what
    is made for an owner that is gone lives until the garbage collector has seen it."""
    found = [obj["metadata"] for obj in await kube.list("RewardModel", key[0], "", name=key[1])]
    return any(meta["uid"] == uid and not meta.get("deletionTimestamp") for meta in found)


def unwanted(
    there: Mapping[Child, Existing], wanted: Iterable[Child], owner: str, in_use: Collection[str]
) -> list[Child]:
    """What exists, belongs to the RewardModel `owner`, and has no place in it any more.

    A ConfigMap that a pod mounts stays for as long as there is the pod: its container may start again. That of the
    golden rows stays as long as the model.
    """
    keep = set(wanted) | {("ConfigMap", name) for name in in_use}
    return sorted(child for child, existing in there.items() if existing.owner == owner and child not in keep)
