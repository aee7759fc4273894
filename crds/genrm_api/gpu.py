"""The GPUs of a replica: its own, or a slot that several holders take in turns."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from genrm_api.pods import ObjectName
from genrm_api.rules import ApiModel, Rule, quoted, rule, with_found
from genrm_api.values import Int


class Sharing(enum.StrEnum):
    EXCLUSIVE = "Exclusive"
    SHARED_CLAIM = "SharedClaim"
    COLOCATED = "Colocated"


class Slot(ApiModel):
    """One replica's GPUs. RewardModels that name the same slot share it."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)] = Field(
        description="Name of the slot. Under SharedClaim also that of its ResourceClaim in the model's namespace."
    )
    node: ObjectName | None = Field(None, description="Colocated only: the node where the GPUs are.")
    devices: Annotated[list[Annotated[Int, Field(ge=0, le=255)]], Field(min_length=1, max_length=16)] | None = Field(
        None, description="Colocated only: numbers of the GPUs on that node."
    )

    rules: ClassVar = (
        Rule(
            cel="!has(self.devices) || self.devices.all(a, self.devices.exists_one(b, a == b))",
            message="'spec.gpu.slots: ' + self.name + ' names a device twice; write each once'",
            found_wrong=lambda s: (
                f"spec.gpu.slots: {s.name} names a device twice; write each once"
                if s.devices is not None and len(set(s.devices)) < len(s.devices)
                else None
            ),
        ),
    )


def _first(gpu: Gpu, wrong: str) -> str | None:
    """The name of the first slot that has, or lacks, a place."""
    for slot in gpu.slots or ():
        placed = slot.node is not None and slot.devices is not None
        unplaced = slot.node is None and slot.devices is None
        if not (placed if wrong == "unplaced" else unplaced):
            return slot.name
    return None


def _twice(gpu: Gpu) -> str | None:
    names = [slot.name for slot in gpu.slots or ()]
    return next((name for name in names if names.count(name) > 1), None)


_NO_PLACE = "!(has(s.node) && has(s.devices))"
_WRITE_PLACE = " has no place; write node and devices"
_NO_PLACE_HERE = " has node or devices, which its claim decides; remove them"
_A_PLACE = "has(s.node) || has(s.devices)"
_ONE_NODE = ", whose slots lie on one node each; remove it, or write sharing: Exclusive"


class Gpu(ApiModel):
    resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] = Field(
        "nvidia.com/gpu",
        description="Extended resource to ask for under sharing Exclusive; each replica gets tensorParallel x "
        "pipelineParallel x dataParallel of it.",
    )
    sharing: Sharing = Field(
        Sharing.EXCLUSIVE,
        description="Exclusive: each pod has GPUs of its own, also while it sleeps. SharedClaim: each slot is a "
        "ResourceClaim that several pods name. Colocated: each slot is GPUs of a named node.",
    )
    slots: Annotated[list[Slot], Field(min_length=1, max_length=64)] | None = Field(
        None,
        description="One for each replica, under SharedClaim and Colocated. At most one holder of a slot is awake.",
    )
    nodes: Int = Field(
        1,
        ge=1,
        le=64,
        description="Nodes that one replica spans, under sharing Exclusive: so many pods, each with its part of the "
        "replica's GPUs. More than 1 needs LeaderWorkerSet in the cluster, and such engines never sleep; at most their "
        "pods go (lifecycle.sleep.mode: ScaleToZero).",
    )

    rules: ClassVar = (
        Rule(
            cel="self.sharing == 'Exclusive' || has(self.slots)",
            message="'spec.gpu.slots: missing with sharing ' + self.sharing + '; write one for each replica'",
            found_wrong=lambda g: (
                f"spec.gpu.slots: missing with sharing {g.sharing}; write one for each replica"
                if g.sharing is not Sharing.EXCLUSIVE and g.slots is None
                else None
            ),
        ),
        Rule(
            cel="self.nodes == 1 || self.sharing == 'Exclusive'",
            message=f"'spec.gpu.nodes: more than 1 with sharing ' + self.sharing + {quoted(_ONE_NODE)}",
            found_wrong=lambda g: (
                f"spec.gpu.nodes: more than 1 with sharing {g.sharing}{_ONE_NODE}"
                if g.nodes > 1 and g.sharing is not Sharing.EXCLUSIVE
                else None
            ),
        ),
        rule(
            "self.sharing != 'Exclusive' || !has(self.slots)",
            "spec.gpu.slots: found with sharing Exclusive, where each pod has its own GPUs; remove them, or write "
            "SharedClaim or Colocated",
            lambda g: g.sharing is Sharing.EXCLUSIVE and g.slots is not None,
        ),
        Rule(
            cel="!has(self.slots) || self.slots.all(a, self.slots.exists_one(b, a.name == b.name))",
            message="'spec.gpu.slots: ' + self.slots.map(s, s.name).filter(n, !self.slots.exists_one(b, b.name "
            "== n))[0]"
            " + ' is there more than once; write it once'",
            found_wrong=lambda g: (
                None
                if (name := _twice(g)) is None
                else f"spec.gpu.slots: {name} is there more than once; write it once"
            ),
        ),
        Rule(
            cel=f"self.sharing != 'Colocated' || !has(self.slots) || !self.slots.exists(s, {_NO_PLACE})",
            message=with_found(f"spec.gpu.slots: %d{_WRITE_PLACE}", f"self.slots.filter(s, {_NO_PLACE})[0].name"),
            found_wrong=lambda g: (
                f"spec.gpu.slots: {name}{_WRITE_PLACE}"
                if g.sharing is Sharing.COLOCATED and (name := _first(g, "unplaced")) is not None
                else None
            ),
        ),
        Rule(
            cel=f"self.sharing == 'Colocated' || !has(self.slots) || !self.slots.exists(s, {_A_PLACE})",
            message=with_found(f"spec.gpu.slots: %d{_NO_PLACE_HERE}", f"self.slots.filter(s, {_A_PLACE})[0].name"),
            found_wrong=lambda g: (
                f"spec.gpu.slots: {name}{_NO_PLACE_HERE}"
                if g.sharing is not Sharing.COLOCATED and (name := _first(g, "placed")) is not None
                else None
            ),
        ),
    )
