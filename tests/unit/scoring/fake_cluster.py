"""A `Cluster` in memory: objects by resource and name, watches, and the failures a test asks for."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from genrm_scoring.cluster import Listing, Object, Resource, WatchEvent
from genrm_scoring.errors import AlreadyExists, ClusterError, NotFound


class FakeCluster:
    """`fail` is raised by every call while it is set. `calls` is what was asked, in order."""

    where = "https://fake:6443 (test)"
    namespace = "rl"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.fail: ClusterError | None = None
        self.calls: list[tuple[str, str]] = []
        self.patches: list[Object] = []
        self._version = 0
        self._writes = itertools.count(1)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []
        self._watches: list[asyncio.Queue[WatchEvent | None]] = []

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until `condition` holds; looked at after every call."""
        reached = asyncio.Event()
        self._waiting.append((condition, reached))
        self._look()
        await asyncio.wait_for(reached.wait(), seconds)

    async def put(self, resource: Resource, obj: dict[str, Any]) -> None:
        key = (str(resource), obj["metadata"]["namespace"], obj["metadata"]["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self._version += 1
        self.objects[key] = obj
        for watch in self._watches:
            watch.put_nowait(WatchEvent(kind, obj))

    async def remove(self, resource: Resource, namespace: str, name: str) -> None:
        obj = self.objects.pop((str(resource), namespace, name))
        for watch in self._watches:
            watch.put_nowait(WatchEvent("DELETED", obj))

    def end_watches(self) -> None:
        for watch in self._watches:
            watch.put_nowait(None)

    async def username(self) -> str:
        return "system:serviceaccount:rl:trainer"

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        await self._called("get", name)
        return copy.deepcopy(self._found(resource, namespace, name))

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> Listing:
        await self._called("list", selector)
        items = [o for (r, ns, _), o in self.objects.items() if (r, ns) == (str(resource), namespace)]
        return Listing(tuple(copy.deepcopy(items)), str(self._version))

    async def watch(
        self, resource: Resource, namespace: str, selector: str, resource_version: str, seconds: int
    ) -> AsyncIterator[WatchEvent]:
        await self._called("watch", resource_version)
        queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        self._watches.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._watches.remove(queue)

    async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
        name = obj["metadata"]["name"]
        await self._called("create", name)
        if (str(resource), namespace, name) in self.objects:
            raise AlreadyExists(name)
        made = self.objects[str(resource), namespace, name] = copy.deepcopy(dict(obj))
        self._written(made)
        return obj

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        await self._called("patch", name)
        found = self._found(resource, namespace, name)
        seen = patch["metadata"].get("resourceVersion") if "metadata" in patch else None
        if seen not in (None, found["metadata"].get("resourceVersion")):
            raise AlreadyExists(name)
        _merge(found, patch)
        self._written(found)
        self.patches.append(patch)
        return found

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        await self._called("delete", name)
        self._found(resource, namespace, name)
        del self.objects[str(resource), namespace, name]

    def _written(self, obj: dict[str, Any]) -> None:
        obj["metadata"]["resourceVersion"] = str(next(self._writes))

    def _found(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[str(resource), namespace, name]
        except KeyError:
            raise NotFound(str(resource), namespace, name) from None

    async def _called(self, verb: str, what: str) -> None:
        self.calls.append((verb, what))
        asyncio.get_running_loop().call_soon(self._look)
        if self.fail is not None:
            raise self.fail

    def _look(self) -> None:
        for condition, reached in self._waiting:
            if condition():
                reached.set()


def _merge(target: dict[str, Any], patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value
