"""What the door must know of an engine's memory, engine by engine: what both sides of `Door._admin` speak.

An admin call is *judged* before it is passed on and *noted* after it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Order:
    """One admin call, read: `tags` are empty where the route has none, or where none is named."""

    path: str
    tags: frozenset[str] = frozenset()
    level: int | None = None
    when_idle: bool = False
    """It may be passed on only when the engine itself has finished: that nobody is inside is not enough."""


class Memory(Protocol):
    """One engine's memory. It starts with everything up."""

    @property
    def asleep(self) -> bool | None:
        """Whether a request would find no engine to run it; None if nobody knows."""

    def document(self) -> dict[str, Any] | None:
        """What is paused and released; None if nobody knows."""

    def judge(self, path: str, query: bytes, body: bytes, inside: int) -> Order | None:
        """The order that may be passed on; None if it is carried out already.

        Raises:
            Refused: the engine would die of it, or say that it did what it did not.
        """

    def note(self, order: Order, status: int | None) -> None:
        """Remember how a passed call ended."""
