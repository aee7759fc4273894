"""What a Deployment controller does, in as few words as possible: pods of the newest template, in its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genrm_api.names import ANNOTATION_REVISION, CONDITION_VERIFIED

from tests.unit.operator.machines import Replica

if TYPE_CHECKING:
    from tests.unit.operator.world import World

Obj = Mapping[str, Any]


def settle(world: World, deployment: Obj) -> None:
    """Make and delete what is due now; it is asked again after every change."""
    meta, spec = deployment["metadata"], deployment["spec"]
    name, wanted, template = meta["name"], spec["replicas"], spec["template"]
    target = template["metadata"]["annotations"][ANNOTATION_REVISION]
    mine = [replica for replica in world.replicas.values() if replica.owner == name]
    there = [replica for replica in mine if not replica.deleting]
    new = [replica for replica in there if revision(world, replica) == target]
    old = [replica for replica in there if replica not in new]
    up = [replica for replica in there if _is_available(world, replica)]
    if spec["strategy"]["type"] == "Recreate":
        going = old
        due = wanted - len(new) if all(revision(world, replica) == target for replica in mine) else 0
    else:
        rolls = spec["strategy"]["rollingUpdate"]
        due = min(wanted + rolls["maxSurge"] - len(there), wanted - len(new))
        least = wanted - rolls["maxUnavailable"]
        spare = len(there) - least - sum(replica not in up for replica in new)
        sick = [replica for replica in old if replica not in up][: max(spare, 0)]
        going = sick + [replica for replica in old if replica in up][: max(len(up) - least, 0)]
    for replica in [*going, *new[wanted:]]:
        world.delete("Pod", replica.name)
    for _ in range(due):
        world.schedule(name, template)
    status = {
        "observedGeneration": meta["generation"], "updatedReplicas": len(new), "availableReplicas": len(up),
    }  # fmt: skip
    if deployment.get("status") != status:
        world.api.put("Deployment", {**deployment, "status": status})


def revision(world: World, replica: Replica) -> str:
    found: str = world.api.there["Pod", replica.name]["metadata"]["annotations"][ANNOTATION_REVISION]
    return found


def _is_available(world: World, replica: Replica) -> bool:
    conditions = world.api.there["Pod", replica.name]["status"]["conditions"]
    return replica.ready and any(c["type"] == CONDITION_VERIFIED and c["status"] == "True" for c in conditions)
