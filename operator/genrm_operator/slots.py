"""Who holds which slot: pure, from the RewardModels as the API server has them.

Two models that name the same GPUs would be awake on them together, because nothing hands a slot from one to the other
yet. So the older one holds it (by creation, then by uid), and the younger one gets no pods until that one is gone or
names other slots. The word of a RewardModel is what counts: a model in state Off holds its slots too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str, str, str]
"""What a slot stands for: ("claim", namespace, its name), or ("device", node, number)."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one RewardModel names."""

    namespace: str
    name: str
    age: tuple[str, str]
    """Creation and uid: the smaller is the older."""
    places: Mapping[Place, str]
    """What for, and the name of the slot."""
    twice: str | None
    """A sentence, where two slots of its own are the same GPU."""

    def shares_with(self, other: Holding) -> bool:
        return self.age != other.age and not self.places.keys().isdisjoint(other.places)


def holding(obj: Mapping[str, Any]) -> Holding | None:
    """What a RewardModel, as the API server has it, names; `None` if it names no slot."""
    meta, gpu = obj["metadata"], obj.get("spec", {}).get("gpu") or {}
    places: dict[Place, str] = {}
    twice = None
    for slot in gpu.get("slots") or ():
        if "node" not in slot:
            places["claim", meta["namespace"], slot["name"]] = slot["name"]
            continue
        for device in slot.get("devices") or ():
            place = ("device", slot["node"], str(device))
            if place in places and twice is None:
                twice = (
                    f"spec.gpu.slots: {slot['name']} is {_words(place)}, and so is {places[place]}; write another "
                    "device into one of them"
                )
            places.setdefault(place, slot["name"])
    if not places:
        return None
    age = (str(meta.get("creationTimestamp", "")), str(meta["uid"]))
    return Holding(meta["namespace"], meta["name"], age, places, twice)


def taken(mine: Holding, all_: Iterable[Holding]) -> str | None:
    """Why the model `mine` gets no pods, in a sentence; `None` if all that it names is its own."""
    if mine.twice is not None:
        return mine.twice
    older = sorted((o for o in all_ if o.age < mine.age and mine.shares_with(o)), key=lambda o: o.age)
    for holder in older:
        place, slot = next((place, slot) for place, slot in mine.places.items() if place in holder.places)
        what = f"{slot}, {_words(place)}," if place[0] == "device" else slot
        return (
            f"spec.gpu.slots: {what} is held by RewardModel {holder.namespace}/{holder.name}, which is older; name "
            "another slot, or wait until that one is deleted or names others: this version of the operator hands no "
            "slot over"
        )
    return None


def _words(place: Place) -> str:
    return f"device {place[2]} of node {place[1]}"
