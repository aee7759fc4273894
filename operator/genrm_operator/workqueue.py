"""A work queue of keys: each key at most once in it, at most one worker on a key, and a key can be asked for later.

The shape is client-go's workqueue: many events about one object become one look at it, and an event that comes while
the object is being looked at leads to exactly one more look.

It also knows how it fares: how long the oldest key has waited, how long a worker has been busy with one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """`waited` is told the seconds that each key was ready before a worker took it."""

    def __init__(self, waited: Callable[[float], None] | None = None) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._ready_since: dict[K, float] = {}
        self._dirty: set[K] = set()
        self._processing: dict[K, float] = {}
        self._idle_workers = 0
        self._waited = waited
        self._later: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """Ask for a look at `key` as soon as a worker is free."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._make_ready(key)

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
        self._idle_workers += 1
        try:
            key = await self._ready.get()
        finally:
            self._idle_workers -= 1
        now = _now()
        since = self._ready_since.pop(key, now)
        if self._waited is not None:
            self._waited(now - since)
        self._dirty.discard(key)
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """The worker has finished its look; another one follows if something happened meanwhile."""
        self._processing.pop(key, None)
        if key in self._dirty:
            self._make_ready(key)

    def __len__(self) -> int:
        return self._ready.qsize()

    def longest_look(self) -> tuple[K, float] | None:
        """The key that a worker has been busy with for longest, and the seconds."""
        return _oldest(self._processing)

    def longest_wait_while_idle(self) -> tuple[K, float] | None:
        """The key that has been ready for longest although a worker has nothing to do: seconds of this are a bug."""
        return _oldest(self._ready_since) if self._idle_workers else None

    def _make_ready(self, key: K) -> None:
        self._ready_since[key] = _now()
        self._ready.put_nowait(key)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _oldest(since: dict[K, float]) -> tuple[K, float] | None:
    if not since:
        return None
    key = min(since, key=since.__getitem__)
    return key, _now() - since[key]
