"""What of vLLM's memory is released, as far as the calls that went through the door tell.

vLLM says itself whether it sleeps (`/is_sleeping`), so this is no second truth about that. It is what vLLM does not
say: at which level it sleeps, and what of it is up again after a wake by tags. And it keeps vLLM from one lie: asked to
sleep at level 2 while it sleeps at level 1 it answers 200, and keeps the weights in host memory.

Repeating a call is harmless, and passes: an engine that took an order without obeying it is asked again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from genrm_door.memory import Order
from genrm_door.record import Refused

SLEEP = "/sleep"
WAKE = "/wake_up"

TAGS = frozenset({"kv_cache", "weights"})


class VllmMemory:
    """The engine starts running and with all its memory."""

    def __init__(self) -> None:
        self.paused = False
        self.released: frozenset[str] = frozenset()
        self.level: int | None = None
        self.known = True

    @property
    def asleep(self) -> bool | None:
        return (self.paused or bool(self.released)) if self.known else None

    def document(self) -> dict[str, Any] | None:
        if not self.known:
            return None
        return {"paused": self.paused, "released": sorted(self.released), "level": self.level}

    def judge(self, path: str, query: bytes, body: bytes, inside: int) -> Order | None:
        """The order that may be passed on.

        Raises:
            Refused: vLLM would say that it did what it does not do.
        """
        asked = parse_qs(query.decode("latin-1"))
        if path == WAKE:
            tags = frozenset(asked.get("tags", ()))
            if self.known and tags & self.released and (up := (tags & TAGS) - self.released):
                raise Refused(f"{', '.join(sorted(up))} is up already, and vLLM would wake nothing and say yes")
            return Order(path, tags)
        if path != SLEEP:
            return Order(path)
        level = _number(asked.get("level", ["1"])[-1])
        if self.known and level in (1, 2) and self.released and level != self.level:
            raise Refused(f"the engine sleeps at level {self.level}, and says yes to any other: wake it first")
        return Order(path, level=level)

    def note(self, order: Order, status: int | None) -> None:
        """Remember how a passed call ended. What vLLM refuses (4xx) changed nothing; what broke, nobody knows."""
        if order.path not in (SLEEP, WAKE) or (status is not None and 400 <= status < 500):
            return
        if status != 200 or (order.path == SLEEP and order.level is None):
            self.known = False
        elif order.path == SLEEP:
            self.known, self.paused, self.level = True, True, order.level
            self.released = TAGS if order.level else frozenset()
        else:
            self.released = self.released - order.tags if order.tags else frozenset()
            self.known = self.known or not order.tags
            if not self.released:
                self.paused, self.level = False, None


def _number(text: str) -> int | None:
    return int(text) if text in ("0", "1", "2") else None
