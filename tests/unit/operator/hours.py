"""A loop for which hours pass in a moment: whenever everybody waits, it is as late as the next one wants it to be."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Final

MOST_TURNS: Final = 20_000
"""Of the loop at one and the same time: whoever needs more goes in a circle."""


class _Clock(selectors.SelectSelector):
    """Nobody here listens to anything but timers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nobody for a time: nothing will ever happen again")
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > MOST_TURNS:
            raise AssertionError(f"it goes in a circle at {self.now}, and no time passes")
        self.now += max(timeout, 0.0)
        return []


class Hours(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """At once, and not in a thread, which would take its own time."""
        done = self.create_future()
        done.set_result(func(*args))
        return done

    def pass_by(self, seconds: float) -> None:
        self.run_until_complete(_sleep(seconds))


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
