"""A work queue of keys: each key at most once in it, at most one worker on a key, and a key can be asked for later.

The shape is client-go's workqueue: many events about one object become one look at it, and an event that comes while
the object is being looked at leads to exactly one more look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._later: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """Ask for a look at `key` as soon as a worker is free."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.put_nowait(key)

    def add_at(self, key: K, when: float) -> None:
        """Ask for a look at loop time `when`, unless an earlier one is already due."""
        if key in self._dirty:
            return
        timer = self._later.get(key)
        if timer is not None and timer.when() <= when:
            return
        if timer is not None:
            timer.cancel()
        self._later[key] = asyncio.get_running_loop().call_at(when, self.add, key)

    async def get(self) -> K:
        key = await self._ready.get()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker has finished its look; another one follows if something happened meanwhile."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.put_nowait(key)

    def __len__(self) -> int:
        return self._ready.qsize()
