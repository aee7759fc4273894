"""The API server of the whole story: objects by kind and name, and what the operator calls of `Kube`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from genrm_api.leases import DemandLease
from genrm_operator.errors import ApiError, Deposed, NotFound

if TYPE_CHECKING:
    from tests.unit.operator.world import Operator, World

API_SECONDS: Final = 0.02

Obj = dict[str, Any]


class Api:
    """Objects are never changed, only replaced."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.there: dict[tuple[str, str], Obj] = {}
        self.away_until = 0.0
        self._version = itertools.count(1)

    # -- what the operator calls: `Kube`

    async def apply(self, manifest: Mapping[str, Any]) -> Obj:
        await self._call()
        kind, meta = manifest["kind"], manifest["metadata"]
        before = self.there.get((kind, meta["name"]))
        if before is None:
            return self.put(kind, {**manifest, "metadata": {**meta, "uid": f"{kind}/{meta['name']}", "generation": 1}})
        kept = {name: before["metadata"].get(name) for name in ("uid", "generation", "resourceVersion")}
        same = all(before.get(part) == manifest.get(part) for part in manifest if part != "metadata")
        if same and before["metadata"].get("annotations") == meta.get("annotations"):
            return before
        kept["generation"] += not same
        return self.put(kind, {**before, **manifest, "metadata": {**meta, **kept}})

    async def apply_status(self, manifest: Mapping[str, Any]) -> Obj:
        await self._call()
        return self.put("RewardModel", {**self._the("RewardModel", manifest["metadata"]["name"]),
                                        "status": manifest["status"]})  # fmt: skip

    async def merge_patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Obj:
        await self._call()
        return self.annotate(kind, name, **patch["metadata"])

    async def set_pod_condition(self, namespace: str, name: str, condition: Mapping[str, Any]) -> Obj:
        await self._call()
        return self.condition(name, condition)

    async def get(self, kind: str, namespace: str, name: str) -> Obj:
        await self._call()
        return self._the(kind, name)

    async def list(self, kind: str, namespace: str, selector: str, *, name: str | None = None) -> list[Obj]:
        await self._call()
        return [obj for (of, its), obj in self.there.items() if of == kind and name in (None, its)]

    async def unended_pods(self, namespace: str) -> set[str]:
        return {pod["metadata"]["name"] for pod in await self.list("Pod", namespace, "")}

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        await self._call()
        if self._the(kind, name)["metadata"]["uid"] == uid:
            self.world.delete(kind, name)

    async def create_event(self, *_: Any, **__: Any) -> None:
        """Nobody reads it."""

    async def _call(self) -> None:
        await asyncio.sleep(API_SECONDS)
        if self.world.loop.time() < self.away_until:
            raise ApiError("PATCH", 0, "no answer")

    # -- what everybody does

    def put(self, kind: str, obj: Mapping[str, Any]) -> Obj:
        meta = {**obj["metadata"], "resourceVersion": str(next(self._version))}
        found = self.there[kind, meta["name"]] = {**obj, "kind": kind, "metadata": meta}
        self.world.hears(kind, found, deleted=False)
        return found

    def annotate(
        self, kind: str, name: str, labels: Mapping[str, Any] = {}, annotations: Mapping[str, Any] = {}
    ) -> Obj:
        obj = self._the(kind, name)
        meta = dict(obj["metadata"])
        for part, said in (("labels", labels), ("annotations", annotations)):
            meta[part] = {k: v for k, v in {**meta.get(part, {}), **said}.items() if v is not None}
        found = self.put(kind, {**obj, "metadata": meta})
        if kind == "Pod":
            self.world.labelled(name)
        elif kind == "Lease":
            self.world.granted(DemandLease.from_object(found))
        return found

    def condition(self, name: str, condition: Mapping[str, Any]) -> Obj:
        obj = self._the("Pod", name)
        kept = [c for c in obj["status"]["conditions"] if c["type"] != condition["type"]]
        return self.put("Pod", {**obj, "status": {**obj["status"], "conditions": [*kept, dict(condition)]}})

    def remove(self, kind: str, name: str) -> None:
        obj = self.there.pop((kind, name), None)
        if obj is not None:
            meta = {**obj["metadata"], "resourceVersion": str(next(self._version))}
            self.world.hears(kind, {**obj, "metadata": meta}, deleted=True)

    def of(self, kind: str) -> list[Obj]:
        return [obj for (its, _), obj in self.there.items() if its == kind]

    def _the(self, kind: str, name: str) -> Obj:
        if (obj := self.there.get((kind, name))) is None:
            raise NotFound(f"GET {kind}", 404, f"{name} not found")
        return obj


class Writes:
    """`Kube.guarded`: who was deposed writes nothing."""

    def __init__(self, api: Api, operator: Operator) -> None:
        self._api, self._operator = api, operator

    def __getattr__(self, name: str) -> Any:
        if self._operator.deposed and name not in ("get", "list"):
            raise Deposed("another one leads")
        return getattr(self._api, name)
