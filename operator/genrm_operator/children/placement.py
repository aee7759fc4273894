"""Where the pod of a slot runs: on the slot's own GPUs, whatever else its template says.

`SharedClaim`: the pod names the slot's ResourceClaim, and the scheduler goes where that is allocated. `Colocated`: the
pod goes to the slot's node, by the name of the Node object, which nobody can give to another one as they can a label;
and the container runtime shows it the slot's devices. These become devices 0, 1, … inside, so that CUDA_VISIBLE_DEVICES
would choose among them again: it is left alone, and refused to users. Either way somebody else may have the GPUs'
memory, so the engine waits at its start gate until it is let in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from genrm_api.gpu import Sharing, Slot
from genrm_api.names import LABEL_SLOT
from genrm_api.status import Reason

from genrm_operator.errors import Impossible
from genrm_operator.observed import CLAIM, ENGINE_CONTAINER, START_GATE_ENV, VISIBLE


def in_slot(template: Mapping[str, Any], slot: Slot, sharing: Sharing) -> dict[str, Any]:
    """The pod template of one slot. Its stamp stays: the same model answers, wherever it runs.

    Raises:
        Impossible: the user's overlay chooses the GPUs itself.
    """
    out = copy.deepcopy(dict(template))
    out["metadata"]["labels"][LABEL_SLOT] = slot.name
    spec = out["spec"]
    engine = next(c for c in spec["containers"] if c["name"] == ENGINE_CONTAINER)
    _refuse_other_choices(spec, engine)
    engine["env"].append({"name": START_GATE_ENV, "value": "1"})
    if sharing is Sharing.SHARED_CLAIM:
        spec["resourceClaims"] = [*(spec.get("resourceClaims") or ()), {"name": CLAIM, "resourceClaimName": slot.name}]
        resources = engine["resources"] = dict(engine.get("resources") or {})
        resources["claims"] = [*(resources.get("claims") or ()), {"name": CLAIM}]
        return out
    assert slot.node is not None and slot.devices is not None, "the CRD's rules require both"
    _pin(spec, slot.node)
    engine["env"].append({"name": VISIBLE, "value": ",".join(map(str, slot.devices))})
    return out


def _pin(spec: dict[str, Any], node: str) -> None:
    """Add to what the user's affinity asks for; of several terms one has to hold, so that each of them gets it."""
    ours = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = spec["affinity"] = dict(spec.get("affinity") or {})
    to_nodes = affinity["nodeAffinity"] = dict(affinity.get("nodeAffinity") or {})
    required = to_nodes.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [{**term, "matchFields": [*(term.get("matchFields") or ()), ours]} for term in _terms(required)]
    to_nodes["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}


def _terms(required: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(required.get("nodeSelectorTerms") or ({},))


def _refuse_other_choices(spec: Mapping[str, Any], engine: Mapping[str, Any]) -> None:
    where = "spec.podTemplate.spec"
    if "nodeName" in spec:
        raise _refused(
            f"{where}.nodeName", "passes by the scheduler, and spec.gpu.slots says where pods run; remove it"
        )
    if any(claim.get("name") == CLAIM for claim in spec.get("resourceClaims") or ()):
        raise _refused(f"{where}.resourceClaims[{CLAIM}]", "is the slot's; use another name")
    for variable in engine["env"]:
        if variable["name"] in (VISIBLE, "CUDA_VISIBLE_DEVICES"):
            path = f"{where}.containers[{ENGINE_CONTAINER}].env[{variable['name']}]"
            raise _refused(path, "chooses GPUs, which spec.gpu.slots does; remove it")


def _refused(where: str, advice: str) -> Impossible:
    return Impossible(Reason.POD_TEMPLATE_REFUSED, f"{where}: {advice}")
