"""What the watches have told us, as projections: the newest of each object, by key.

Handlers write, the reconciler reads. Nothing here decides or waits.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from genrm_api.leases import DemandLease
from genrm_api.names import COMPONENT_ROUTER, COMPONENT_WORKER, LABEL_COMPONENT, LABEL_REWARD_MODEL

from genrm_operator import scaling, slots
from genrm_operator.observed import Place, Pod, SidePod
from genrm_operator.rollout import Kept, has_arrived
from genrm_operator.slots import Holding
from genrm_operator.surging import Rolling
from genrm_operator.trouble import Trouble, of_deployment

K = TypeVar("K")
V = TypeVar("V")
P = TypeVar("P", Pod, SidePod)

ENDED: Final = 4096
"""Of so many objects that were deleted last the versions are remembered."""

Key = tuple[str, str]
"""(namespace, name) of a RewardModel."""

Object = tuple[str, str]
"""(namespace, uid) of a RewardModel or a pod, whose names are used again; (namespace, name) of anything else."""


def identity(kind: str, obj: Mapping[str, Any]) -> Object:
    meta = obj["metadata"]
    return meta["namespace"], meta["uid" if kind in ("RewardModel", "Pod") else "name"]


class Put(NamedTuple):
    """The RewardModel that the object belongs to, and whether a look would see anything that it did not see before.

    Half of what watches bring is the echo of our own writes, whose answers are here already.
    """

    key: Key
    news: bool
    others: frozenset[Key] = frozenset()
    """RewardModels for which it is news too: those that name the same slots."""


@dataclass(frozen=True, slots=True)
class Existing:
    """A child as the API server has it.

    `fingerprint` changes when its desired state changes; a Deployment's status, for one, does not count. `owner` is the
    uid of the object that controls it: what a user has only labelled like a child of ours is not ours.
    """

    uid: str
    fingerprint: str
    owner: str | None

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Self:
        meta = obj["metadata"]
        owners = [o["uid"] for o in meta.get("ownerReferences") or [] if o.get("controller")]
        version = meta.get("generation") or meta.get("resourceVersion")
        return cls(meta["uid"], f"{meta['uid']}/{version}", owners[0] if owners else None)


@dataclass(slots=True)
class Cache:
    reward_models: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Whole objects: spec and status are both read."""
    pods: defaultdict[Key, dict[str, Pod]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then pod uid."""
    routers: defaultdict[Key, dict[str, SidePod]] = field(default_factory=lambda: defaultdict(dict))
    """The same of the pods of its router."""
    workers: defaultdict[Key, dict[str, SidePod]] = field(default_factory=lambda: defaultdict(dict))
    """The same of the pods that its engine pods lead, where an engine spans nodes."""
    holdings: dict[Key, Holding] = field(default_factory=dict)
    """Of RewardModels that name slots."""
    placed: dict[str, Pod] = field(default_factory=dict)
    """By uid: pods on GPUs that they share, whether their RewardModel still exists or not."""
    leases: defaultdict[Key, dict[str, DemandLease]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then Lease name."""
    trainers: defaultdict[Key, dict[str, DemandLease]] = field(default_factory=lambda: defaultdict(dict))
    """The same of Leases by which runs want its slots' GPUs for themselves."""
    children: defaultdict[Key, dict[tuple[str, str], Existing]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then (kind, name)."""
    kept: defaultdict[Key, dict[str, Kept]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then name of the Deployment or LeaderWorkerSet: what runs, and what it was made from."""
    asked: defaultdict[Key, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then name of the Deployment or LeaderWorkerSet: for how many pods it was asked last."""
    arrived: defaultdict[Key, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then name of a slot's Deployment: its pod runs, as the Deployment now wants it."""
    rolling: defaultdict[Key, dict[str, Rolling]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then Deployment name: what its pods should be, and how they become that."""
    refusals: defaultdict[Key, dict[str, Trouble]] = field(default_factory=lambda: defaultdict(dict))
    """By RewardModel, then Deployment name: why the cluster makes no pods for it."""
    _versions: dict[str, int] = field(default_factory=dict)
    """uid → newest resourceVersion seen. We also store answers to our own writes, and the watch lags behind these."""
    _ended: deque[str] = field(default_factory=deque)
    """Whose deletion was heard of, by uid: the answer to a write from before may come after that."""

    def put_reward_model(self, obj: Mapping[str, Any], *, deleted: bool) -> Put:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        before = self.reward_models.get(key)
        if deleted:
            # Kopf tells of each uid by itself: of the end of one its successor of the same name may have been heard.
            if before is not None and before["metadata"]["uid"] == obj["metadata"]["uid"]:
                del self.reward_models[key]
            self._end(obj)
        elif self._is_newer(obj):
            metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
            self.reward_models[key] = {
                **obj,
                "metadata": metadata,
            }  # nobody here reads the rest, which is the larger part
        now = self.reward_models.get(key)
        if (news := _what_counts(before) != _what_counts(now)) is False:
            return Put(key, news)
        held = self.holdings.get(key)
        holds = None if now is None else slots.holding(now)
        moved = _keep(self.holdings, key, holds)
        places = frozenset[Place]().union(*(h.places for h in (held, holds) if h is not None and moved))
        return Put(key, news, self.naming(places) - {key})

    def wanting(self, key: Key) -> frozenset[str]:
        """Runs whose Leases say that they want a model awake, or GPUs for themselves, expired or not."""
        beside = (
            lease for leases in self.trainers.values() for lease in leases.values() if slots.trainer(lease) == key
        )
        asking = (*self.leases.get(key, {}).values(), *beside)
        return frozenset(lease.run for lease in asking if lease.phase.wants_awake)

    def naming(self, places: frozenset[Place]) -> frozenset[Key]:
        """RewardModels that name one of these."""
        return frozenset(key for key, held in self.holdings.items() if not places.isdisjoint(held.places))

    def put_pod(self, obj: Mapping[str, Any], *, deleted: bool) -> Put:
        component = (obj["metadata"].get("labels") or {}).get(LABEL_COMPONENT)
        if component in (COMPONENT_ROUTER, COMPONENT_WORKER):
            side, shelves = SidePod.from_object(obj), self.routers if component == COMPONENT_ROUTER else self.workers
            return self._put_pod(shelves[side.namespace, side.reward_model], side, obj, deleted)
        pod = Pod.from_object(obj)
        key = (pod.namespace, pod.reward_model)
        put = self._put_pod(self.pods[key], pod, obj, deleted)
        now = self.pods[key].get(pod.uid)
        moved = _keep(self.placed, pod.uid, now if now is not None and now.places else None)
        # Its model may be gone, and then nobody looks at it: those who wait for its GPUs do.
        return Put(key, put.news, self.naming(pod.places) - {key} if moved else frozenset())

    def _put_pod(self, shelf: dict[str, P], pod: P, obj: Mapping[str, Any], deleted: bool) -> Put:
        before = shelf.get(pod.uid)
        if deleted:
            shelf.pop(pod.uid, None)
            self._end(obj)
        elif self._is_newer(obj):
            shelf[pod.uid] = pod
        return Put((pod.namespace, pod.reward_model), before != shelf.get(pod.uid))

    def put_lease(self, obj: Mapping[str, Any], *, deleted: bool) -> Put:
        lease = DemandLease.from_object(obj)
        key = (lease.namespace, lease.reward_model)
        shelf = (self.trainers if lease.slots else self.leases)[key]
        before = shelf.get(lease.name)
        if deleted:
            shelf.pop(lease.name, None)
            self._end(obj)
        elif self._is_newer(obj):
            shelf[lease.name] = lease
        return Put(key, before != shelf.get(lease.name))

    def put_answered_lease(self, obj: Mapping[str, Any]) -> Key:
        """As `put_lease`, of the answer to a write of ours: a Lease that was deleted meanwhile stays so. No event would
        take it away again."""
        lease = DemandLease.from_object(obj)
        key = (lease.namespace, lease.reward_model)
        if lease.name in (self.trainers if lease.slots else self.leases)[key]:
            self.put_lease(obj, deleted=False)
        return key

    def child_putter(self, kind: str) -> Putter:
        """How children of one kind are stored."""

        def put(obj: Mapping[str, Any], *, deleted: bool) -> Put:
            meta = obj["metadata"]
            key = (meta["namespace"], (meta.get("labels") or {}).get(LABEL_REWARD_MODEL, ""))
            if deleted:
                self._end(obj)
            elif not self._is_newer(obj):
                return Put(key, news=False)
            news = _keep(self.children[key], (kind, meta["name"]), None if deleted else Existing.of(obj))
            if kind in ("Deployment", "LeaderWorkerSet"):
                news |= _keep(self.kept[key], meta["name"], None if deleted else Kept.of(obj))
                news |= _keep(self.asked[key], meta["name"], None if deleted else scaling.asked(obj))
                news |= _keep(self.rolling[key], meta["name"], None if deleted else Rolling.of(obj))
            if kind == "Deployment":
                news |= _keep(self.arrived[key], meta["name"], (not deleted and has_arrived(obj)) or None)
                news |= _keep(self.refusals[key], meta["name"], None if deleted else of_deployment(obj))
            return Put(key, news)

        return put

    def drop_children(self, kind: str, there: Collection[tuple[str, str]]) -> set[Key]:
        """Forget the children of one kind but those that are `there`, as (namespace, name); return whose they were."""
        gone = [
            (key, child)
            for key, children in self.children.items()
            for child in children
            if child[0] == kind and (key[0], child[1]) not in there
        ]
        return {other for key, child in gone for other in self.forget(kind, key, child[1])}

    def known(self, kind: str, namespace: str) -> dict[Object, tuple[Key, Any]]:
        """What there is of one kind, in one namespace or (if that is empty) in all: whose it is, and what is kept."""
        shelves: Iterable[tuple[Key, Mapping[str, Any]]]
        match kind:
            case "RewardModel":
                shelves = [(key, {obj["metadata"]["uid"]: obj}) for key, obj in self.reward_models.items()]
            case "Pod":
                shelves = [item for store in (self.pods, self.routers, self.workers) for item in store.items()]
            case "Lease":
                shelves = [item for store in (self.leases, self.trainers) for item in store.items()]
            case _:
                children = self.children.items()
                shelves = [
                    (key, {name: it for (of, name), it in shelf.items() if of == kind}) for key, shelf in children
                ]
        return {
            (key[0], name): (key, kept)
            for key, shelf in shelves
            if namespace in ("", key[0])
            for name, kept in shelf.items()
        }

    def forget(self, kind: str, key: Key, name: str) -> frozenset[Key]:
        """Drop an object that is gone, by its name as `known` has it; return for which RewardModels that is news."""
        match kind:
            case "RewardModel":
                put = self.put_reward_model(self.reward_models[key], deleted=True)
                return put.others | {key}
            case "Pod":
                for store in (self.pods, self.routers, self.workers):
                    store[key].pop(name, None)
                self._versions.pop(name, None)
                placed = self.placed.pop(name, None)
                return frozenset({key}) | (self.naming(placed.places) if placed is not None else frozenset())
            case "Lease":
                self.leases[key].pop(name, None)
                self.trainers[key].pop(name, None)
            case _:
                if (child := self.children[key].pop((kind, name), None)) is not None:
                    self._versions.pop(child.uid, None)
                for shelf in (self.kept, self.asked, self.arrived, self.rolling, self.refusals):
                    shelf[key].pop(name, None)
        return frozenset({key})

    def _is_newer(self, obj: Mapping[str, Any]) -> bool:
        """False for an object older than what is known: resource versions of one kind are ordered (KEP-5504)."""
        uid, version = obj["metadata"]["uid"], int(obj["metadata"]["resourceVersion"])
        if version < self._versions.get(uid, 0):
            return False
        self._versions[uid] = version
        return True

    def _end(self, obj: Mapping[str, Any]) -> None:
        """It is gone. Only what is newer than its end brings it back: a label that it had lost, and has again."""
        uid, version = obj["metadata"]["uid"], int(obj["metadata"].get("resourceVersion") or 0)
        self._versions[uid] = max(version, self._versions.get(uid, 0))
        self._ended.append(uid)
        if len(self._ended) > ENDED:
            self._versions.pop(self._ended.popleft(), None)

    def tidy(self, key: Key) -> None:
        """Drop the empty shelves of a RewardModel that is gone; what still exists leaves by its own deletion."""
        for store in (
            self.pods,
            self.routers,
            self.workers,
            self.leases,
            self.trainers,
            self.children,
            self.kept,
            self.asked,
            self.arrived,
            self.rolling,
            self.refusals,
        ):
            if not store[key]:
                del store[key]


def _what_counts(reward_model: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """Of a RewardModel, what a look would see differently."""
    if reward_model is None:
        return None
    meta = reward_model["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp"), reward_model.get("status")


def _keep(shelf: dict[K, V], name: K, found: V | None) -> bool:
    """Put `found` on the shelf; return whether it was not there like this."""
    before = shelf.get(name)
    if found is None:
        shelf.pop(name, None)
    else:
        shelf[name] = found
    return before != found


class Putter(Protocol):
    """Stores an object as the watch shows it."""

    def __call__(self, obj: Mapping[str, Any], *, deleted: bool) -> Put: ...
