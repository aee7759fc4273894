"""Taking over the Lease that a process of the same run left behind: one that was killed, or could not delete it.

Nobody deletes such a Lease, and a run that begins anew under its old name must not be refused for it. Whether its
holder lives is seen as the operator sees it: by renewals, on the clock of whoever looks. It is taken by a write that
fails if anybody else has written meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from genrm_api.leases import DemandLease
from genrm_api.names import (
    ANNOTATION_ASKED,
    ANNOTATION_EXPIRED,
    ANNOTATION_GRANTED,
    ANNOTATION_NEEDED_IN,
    ANNOTATION_REFUSED,
)

from genrm_scoring.cluster import LEASES, Cluster, Object
from genrm_scoring.errors import AlreadyExists, LeaseTaken, NotFound

log = logging.getLogger(__name__)

LOOKS: Final = 30
"""Within its TTL."""
WORDS: Final = (ANNOTATION_ASKED, ANNOTATION_EXPIRED, ANNOTATION_GRANTED, ANNOTATION_NEEDED_IN, ANNOTATION_REFUSED)
"""What was said to the one before."""


async def take_over(cluster: Cluster, found: Object, manifest: dict[str, Any]) -> None:
    """Make of the Lease that was `found` the one that `manifest` says, once it has expired.

    Raises:
        LeaseTaken: it is renewed, or nobody knows that the GPUs which it was granted are free.
        ClusterError
    """
    lease = DemandLease.from_object(found)
    if lease.slots and lease.granted is not None and lease.granted == lease.asked:
        raise LeaseTaken(lease.name, lease.run, "it was given GPUs and has not given them back")
    try:
        if not lease.has_expired:
            log.warning("lease %s/%s is there already: waiting up to %d s to see whether the process of run %s that "
                        "holds it lives", lease.namespace, lease.name, lease.ttl_seconds, lease.run)  # fmt: skip
            found = await _outlived(cluster, found, lease)
        meta = manifest["metadata"]
        taken = {
            **meta,
            "annotations": dict.fromkeys(WORDS) | meta["annotations"],
            "resourceVersion": found["metadata"]["resourceVersion"],
        }
        await cluster.patch(LEASES, lease.namespace, lease.name, {**manifest, "metadata": taken})
    except NotFound:
        await cluster.create(LEASES, lease.namespace, manifest)
    except AlreadyExists:
        raise LeaseTaken(lease.name, lease.run, "another process was faster") from None
    log.warning("lease %s/%s is taken over from a process that renews it no more", lease.namespace, lease.name)


async def _outlived(cluster: Cluster, found: Object, lease: DemandLease) -> Object:
    """The Lease as it is after a TTL without a renewal."""
    for _ in range(LOOKS):
        await asyncio.sleep(lease.ttl_seconds / LOOKS)
        found = await cluster.get(LEASES, lease.namespace, lease.name)
        now = DemandLease.from_object(found)
        if now.renewal != lease.renewal:
            raise LeaseTaken(lease.name, lease.run, "it is renewed")
        if now.has_expired:
            break
    return found
