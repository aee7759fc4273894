"""A call that is held on its way: its sender may be gone when it is delivered, or when it is answered.

*Before*: nobody has heard of the call yet; it is delivered when it is let go, whoever has sent it and whatever came in
between. *After*: it is done, and its answer waits. A hold takes one call, the first of its name after `skip` others: a
repeat of it, by the same sender or by its successor, passes.

Whoever carries calls (the fleet's listener, the proxy before an API server) asks `takes`, and then `carry`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class When(enum.StrEnum):
    BEFORE = "before"
    AFTER = "after"


class Hold:
    def __init__(self, call: str, when: When, skip: int = 0) -> None:
        self.call, self.when = call, when
        self.taken = False
        self.reached = False
        """It waits to be let go."""
        self.delivered = False
        self.status: int | None = None
        """What it was answered, as far as whoever carries it knows."""
        self._skip = skip
        self._let_go = asyncio.Event()

    def takes(self, call: str) -> bool:
        """Whether this is the one; it is asked once for each call."""
        if self.taken or call != self.call:
            return False
        if self._skip:
            self._skip -= 1
            return False
        self.taken = True
        return True

    async def carry(self, deliver: Callable[[], Awaitable[T]]) -> T:
        """Deliver the call that was taken, and return its answer, when each may be."""
        if self.when is When.BEFORE:
            await self._wait()
        answer = await deliver()
        self.delivered = True
        if self.when is When.AFTER:
            await self._wait()
        return answer

    async def _wait(self) -> None:
        self.reached = True
        await self._let_go.wait()

    def let_go(self) -> None:
        self._let_go.set()
