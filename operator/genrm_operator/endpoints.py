"""That clients learn of all pods of a wake, not of most of them a second before the last.

Kubernetes' EndpointSlice controller looks at a Service when the label of a pod changes. Where it wrote a slice a moment
ago that its own cache does not show yet, it gives that look up, and tries again after one second (`defaultSyncBackOff`
in `pkg/controller/endpointslice`). The labels of a wake come within a few ms of each other: with 64 pods one wake in
ten met this. It takes another look as soon as anything of the Service changes; so that is done, once its cache is up to
date again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.leases import micro_time
from genrm_api.names import ANNOTATION_LABELLED, LABEL_SERVING

from genrm_operator.apply import put
from genrm_operator.cache import Cache, Key
from genrm_operator.errors import ApiError
from genrm_operator.kube import Kube
from genrm_operator.memory import Memory

AFTER_SECONDS: Final = 0.1
"""Beyond the last label. The controller's watch tells it of its own write within a few ms."""


async def settle(kube: Kube, cache: Cache, key: Key, memory: Memory, now: float) -> float | None:
    """Touch the Services whose pods were labelled, when it is time.

    Returns:
        Monotonic seconds at which that will be; `None`: there is nothing to do.
    """
    if memory.relabelled is None or memory.made is None:
        return None
    if len(cache.pods[key]) < 2:
        memory.relabelled = None  # one label: there is no later one that could be missed
        return None
    if now < (due := memory.relabelled + AFTER_SECONDS):
        return due
    date = micro_time(datetime.now(UTC))
    for manifest, digest in zip(memory.made.manifests, memory.made.digests, strict=True):
        child = (manifest["kind"], manifest["metadata"]["name"])
        there = cache.children[key].get(child)
        if (
            not _leads_to_who_serves(manifest)
            or there is None
            or memory.applied.get(child) != (digest, there.fingerprint)
        ):
            continue  # one that was refused, or touched by others, is applied in its own time
        # It was deleted since, and none comes of this; or it cannot be written: then they are late by that second.
        with contextlib.suppress(ApiError):
            await put(kube, cache, memory, _touched(manifest, there.uid, date), digest)
    memory.relabelled = None
    return None


def _touched(service: Mapping[str, Any], uid: str, date: str) -> dict[str, Any]:
    meta = service["metadata"]
    notes = {**meta.get("annotations", {}), ANNOTATION_LABELLED: date}
    return {**service, "metadata": {**meta, "uid": uid, "annotations": notes}}


def _leads_to_who_serves(manifest: Mapping[str, Any]) -> bool:
    return manifest["kind"] == "Service" and LABEL_SERVING in (manifest["spec"].get("selector") or {})
