"""A cluster for the whole story: an API server's objects, who else writes them, and operators that come and go.

The operator is the real one from its queue on: `Reconciler`, cache and `Doors`. What a cluster does by itself is done
here in as few words as possible: Deployments have pods, a kubelet starts containers and says whether they are ready,
who watches hears of each change a moment later.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, cast

from genrm_api.leases import DemandLease
from genrm_api.names import ANNOTATION_BOOT_ID, CONDITION_VERIFIED, LABEL_REWARD_MODEL, LABEL_SERVING
from genrm_operator.informers import INFORMED
from genrm_operator.kube import Kube
from genrm_operator.metrics import Metrics
from genrm_operator.observed import Place
from genrm_operator.reconciler import Reconciler
from genrm_operator.routers import Routers
from genrm_operator.settings import Settings
from genrm_operator.trainers import has

from tests.unit.operator import deployments
from tests.unit.operator.api_server import Api, Obj, Writes
from tests.unit.operator.hours import Hours
from tests.unit.operator.machines import TOOK, Network, Replica, StoryDoors

NAMESPACE: Final = "rl"
SETTINGS: Final = Settings(master_key=b"k" * 32, engine_images={"vllm": "vllm:test"}, slot_turn_seconds=20.0)
METRICS: Final = Metrics()
"""Nobody reads them."""
GRACE_SECONDS: Final = 3.0
RENEW_SECONDS: Final = 10.0
PUTS: Final = {what.kind: what.put for what in INFORMED}
BEGAN: Final = datetime(2026, 11, 22, tzinfo=UTC)


class NoRouters:
    async def follow_all(self, *_: Any) -> None:
        """There are none."""


class Operator:
    """One process. What it has sent goes on its way when it dies; what it knows does not."""

    def __init__(self, world: World, epoch: int) -> None:
        self.world = world
        self.network = Network(world)
        doors = StoryDoors(epoch, self.network)
        self.deposed = False
        kube = cast(Kube, Writes(world.api, self))
        self.reconciler = Reconciler(kube, doors, cast(Routers, NoRouters()), SETTINGS, METRICS)
        for kind in ("RewardModel", *PUTS):
            for obj in filter(partial(_is_watched, kind), world.api.of(kind)):
                self.sees(kind, obj, deleted=False)
        self.task = world.loop.create_task(self.reconciler.run())

    def sees(self, kind: str, obj: Obj, *, deleted: bool) -> None:
        cache, queue = self.reconciler.cache, self.reconciler.queue
        put = cache.put_reward_model if kind == "RewardModel" else PUTS[kind](cache)
        found = put(obj, deleted=deleted)
        for key in (*found.others, *((found.key,) if found.news or deleted else ())):
            queue.add(key)

    def dies(self) -> None:
        self.network.dead = True
        self.reconciler.stop()
        self.task.cancel()

    @property
    def running(self) -> Iterator[tuple[str, asyncio.Task[None]]]:
        for memory in self.reconciler._memory.values():
            for uid, running in memory.running.items():
                yield f"{running.transition} of {uid}", running.task


class World:
    def __init__(self, models: Sequence[Obj], *, measurable: bool) -> None:
        self.measurable = measurable
        self.stranger = 0
        """Bytes that a process of which nobody here knows has on every GPU."""
        self.loop = Hours()
        self.broken: list[str] = []
        self.api = Api(self)
        self.replicas: dict[str, Replica] = {}
        """By name of the pod."""
        self.operator: Operator | None = None
        """The one that leads."""
        self.watch_lag = 0.01
        self.alive: set[str] = set()
        """Runs whose processes renew their Leases."""
        self.calls_left: int | None = None
        """Of the operator, before one gets no answer: it is killed then, or the answer is lost."""
        self.dies_then = True
        self.late = 0.0
        """So many seconds the last call of who is killed is on the road."""
        self._heard_at = 0.0
        self._places: dict[str, frozenset[Place]] = {}
        self._is_deploying = False
        self._epochs, self._numbers = itertools.count(1), itertools.count(1)
        self._tasks = [self.loop.create_task(self._kubelet()), self.loop.create_task(self._renewals())]
        for model in models:
            self.api.put("RewardModel", model)
        self.starts()

    def close(self) -> None:
        self.operator_dies()
        for replica in self.replicas.values():
            replica.dies()
        self.loop.run_until_complete(_all_end())
        self.loop.close()

    def broke(self, what: str) -> None:
        self.broken.append(f"{what} (at {self.loop.time() - 1000.0:.3f})")

    # -- the operator

    def starts(self) -> None:
        async def start() -> Operator:
            return Operator(self, next(self._epochs))

        self.operator = self.loop.run_until_complete(start())

    def operator_dies(self) -> None:
        if self.operator is not None:
            self.operator.dies()
            self.operator = None

    def gets_an_answer(self) -> bool:
        """The operator sends something to a pod."""
        if self.calls_left is None or (left := self.calls_left - 1) > 0:
            self.calls_left = None if self.calls_left is None else left
            return True
        self.calls_left = None
        if self.dies_then:
            self.operator_dies()
        return False

    def hears(self, kind: str, obj: Obj, *, deleted: bool) -> None:
        """Whoever watches, in the order in which it happened."""
        if kind in ("Deployment", "Pod"):
            self._deploys()
        if not _is_watched(kind, obj) or (operator := self.operator) is None:
            return
        self._heard_at = max(self._heard_at + 1e-6, self.loop.time() + self.watch_lag)
        self.loop.call_at(self._heard_at, lambda: operator.sees(kind, obj, deleted=deleted))

    # -- Deployments and kubelets

    def _deploys(self) -> None:
        if not self._is_deploying:
            self._is_deploying = True
            self.loop.call_later(0.05, self._deployed)

    def _deployed(self) -> None:
        self._is_deploying = False
        for deployment in self.api.of("Deployment"):
            deployments.settle(self, deployment)

    def schedule(self, owner: str, template: Mapping[str, Any]) -> None:
        number = next(self._numbers)
        name, ip = f"{owner}-{number}", f"10.0.0.{number}"
        obj = {
            "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE, "uid": f"uid-{number}"},
            "spec": {**template["spec"], "nodeName": "n"},
            "status": {"conditions": [], "containerStatuses": []},
        }
        replica = self.replicas[name] = Replica(self, obj, ip, owner)
        self.api.put("Pod", obj)
        self.loop.call_later(0.5, self._start, replica)

    def _start(self, replica: Replica) -> None:
        if self.replicas.get(replica.name) is replica and replica.container is None:
            replica.starts()

    def delete(self, kind: str, name: str) -> None:
        """With a grace period, if it is a pod of an engine."""
        replica = self.replicas.get(name) if kind == "Pod" else None
        if replica is None:
            return self.api.remove(kind, name)
        if replica.deleting:
            return
        replica.deleting = True
        pod = self.api.there["Pod", name]
        self.api.put("Pod", {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-11-22T00:00:00Z"}})
        if replica.container is not None and (front := replica.container.gate or replica.container.door) is not None:
            front.record.terminate(admit=False)
        self.loop.call_later(GRACE_SECONDS, self._gone, name)

    def _gone(self, name: str) -> None:
        replica = self.replicas.pop(name)
        replica.dies()
        replica.reachable.set()
        self.api.remove("Pod", name)

    def restart(self, replica: Replica) -> None:
        """Its container ends, and another one starts in its place."""
        replica.dies()
        self._tell(replica)
        self.loop.call_later(0.7, self._start, replica)

    async def _kubelet(self) -> None:
        while True:
            for replica in list(self.replicas.values()):
                self._tell(replica)
            await asyncio.sleep(0.5)

    def _tell(self, replica: Replica) -> None:
        """What the kubelet sees of a container."""
        pod = self.api.there["Pod", replica.name]
        ready = "True" if replica.ready else "False"
        status = {
            "name": "engine", "imageID": "vllm@sha256:1", "restartCount": max(replica.restarts, 0),
            "state": {"waiting": {}} if replica.container is None else {"running": {}},
        }  # fmt: skip
        said = next((c["status"] for c in pod["status"]["conditions"] if c["type"] == "ContainersReady"), None)
        if (said, pod["status"]["containerStatuses"]) != (ready, [status]):
            self.api.put(
                "Pod", {**pod, "status": {**pod["status"], "podIP": replica.ip, "containerStatuses": [status]}}
            )
            self.api.condition(replica.name, {"type": "ContainersReady", "status": ready})

    # -- runs

    async def _renewals(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for obj in self.api.of("Lease"):
                if DemandLease.from_object(obj).run in self.alive:
                    self.renew(obj)

    def renew(self, obj: Obj) -> Obj:
        at = (BEGAN + timedelta(seconds=self.loop.time())).isoformat()
        return self.api.put("Lease", {**obj, "spec": {**obj["spec"], "renewTime": at}})

    @property
    def leases(self) -> list[DemandLease]:
        return [DemandLease.from_object(obj) for obj in self.api.of("Lease")]

    # -- who has what

    def at(self, ip: str) -> Replica | None:
        return next((replica for replica in self.replicas.values() if replica.ip == ip), None)

    def places_of(self, lease: DemandLease) -> frozenset[Place]:
        """What its slots stood for when it was given them; or stand for now."""
        if has(lease) and lease.name in self._places:
            return self._places[lease.name]
        spec = self.api.there.get(("RewardModel", lease.reward_model), {}).get("spec", {})
        slots = [slot for slot in spec.get("gpu", {}).get("slots", ()) if slot["name"] in lease.slots]
        if slots:
            places = frozenset(("device", slot["node"], str(d)) for slot in slots for d in slot["devices"])
            self._places[lease.name] = places
        return self._places[lease.name]

    def taken(self, places: frozenset[Place]) -> list[tuple[str, int, bool]]:
        """Who has memory on these GPUs: a name, bytes, and whether that could be known."""
        found = [
            (replica.name, c.used, not c.strayed and (self.measurable or not (c.engine.asleep and not c.starting)))
            for replica in self.replicas.values()
            if (c := replica.container) is not None and not places.isdisjoint(replica.places)
        ]
        trainers = [
            lease for lease in self.leases
            if lease.slots and has(lease) and any(("Pod", pod) in self.api.there for pod in lease.pods)
        ]  # fmt: skip
        found += [(lease.name, TOOK, True) for lease in trainers if not places.isdisjoint(self.places_of(lease))]
        return [*found, ("a stranger", self.stranger, False)]

    # -- what must never be

    def labelled(self, name: str) -> None:
        """Somebody has written the labels of a pod."""
        if (replica := self.replicas.get(name)) is not None and (wrong := self.serves_wrongly(replica)) is not None:
            self.broke(f"{name}: {wrong}")

    def serves_wrongly(self, replica: Replica) -> str | None:
        """What is wrong with a pod that Services send clients to."""
        meta = self.api.there["Pod", replica.name]["metadata"]
        container, boot = replica.container, (meta.get("annotations") or {}).get(ANNOTATION_BOOT_ID)
        labelled = meta["labels"].get(LABEL_SERVING) is not None
        if not labelled or container is None or boot != container.boot_id:
            return None  # of another boot it means nothing
        conditions = self.api.there["Pod", replica.name]["status"]["conditions"]
        if not any(c["type"] == CONDITION_VERIFIED and c.get("message") == boot for c in conditions):
            return "serves, and is not verified under its present boot id"
        if container.state != "serving" and not replica.deleting:
            return f"is labelled, and its door is {container.state.value}"
        return None

    def granted(self, lease: DemandLease) -> None:
        """Somebody has written a Lease."""
        if lease.slots and has(lease):
            for who, taken, known in self.taken(self.places_of(lease)):
                if who != lease.name and taken > TOOK // 4 and known:
                    self.broke(f"{lease.name} is given GPUs that {who} has")


async def _all_end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _is_watched(kind: str, obj: Obj) -> bool:
    return kind == "RewardModel" or (kind in PUTS and LABEL_REWARD_MODEL in obj["metadata"].get("labels", {}))
