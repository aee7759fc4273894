"""What of SGLang's memory is released, and which admin calls it survives.

SGLang does not say whether it sleeps, and it believes every order: a release while a request runs, a release of what is
released, a resume of what is not, a `continue` on released memory each kill its scheduler, and with it the server. All
orders come through the door, so the door knows what was done, and it answers here, without the engine, whatever would
repeat or break it. The safe order is pause, release, resume of the same tags, continue.

Each call is *judged* before it is passed on and *noted* after it has ended. A call that did not end well leaves nobody
knowing what is released: then the engine is as good as lost, and nothing but a new start clears it up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from genrm_door.memory import Order
from genrm_door.record import Refused

PAUSE = "/pause_generation"
RELEASE = "/release_memory_occupation"
RESUME = "/resume_memory_occupation"
CONTINUE = "/continue_generation"

TAGS = frozenset({"kv_cache", "weights", "cuda_graph"})


class SglangMemory:
    """The engine starts running and with all its memory."""

    def __init__(self) -> None:
        self.paused = False
        self.released: frozenset[str] = frozenset()
        self.known = True

    @property
    def asleep(self) -> bool | None:
        """Whether a request would find no engine to run it; None if nobody knows."""
        return (self.paused or bool(self.released)) if self.known else None

    def document(self) -> dict[str, Any] | None:
        return {"paused": self.paused, "released": sorted(self.released), "level": None} if self.known else None

    def judge(self, path: str, query: bytes, body: bytes, inside: int) -> Order | None:
        """The order that may be passed on; None if it is carried out already.

        Raises:
            Refused: the engine would die of it, or nobody could tell afterwards what it did.
        """
        if not self.known:
            raise Refused("an earlier call failed, and nobody knows what memory the engine holds: restart it")
        if path == PAUSE:
            if _object(body).get("mode") != "abort":
                raise Refused(
                    'write {"mode": "abort"}: any other leaves requests in an engine that is to lose its memory'
                )
            return Order(path)
        if path == CONTINUE:
            if self.released:
                raise Refused(f"{_words(self.released)} is released, and a request would find it gone: resume it first")
            return Order(path)
        tags = _tags(body)
        if path == RELEASE:
            if tags <= self.released:
                return None
            if tags & self.released:
                raise Refused(f"{_words(tags & self.released)} is released already: release the others alone")
            if not self.paused or inside:
                what = f"{inside} requests are inside" if inside else "the engine is not paused"
                raise Refused(f"{what}: a release would kill it, so drain and {PAUSE} first")
            # An answer leaves before its batch does, and SGLang's scheduler dies of a release in between. What was
            # released once had nothing to compute, and nothing came since.
            return Order(path, tags, when_idle=not self.released)
        if not tags & self.released:
            return None
        if not tags <= self.released:
            raise Refused(f"{_words(tags - self.released)} is not released: resume {_words(self.released)}")
        return Order(path, tags)

    def note(self, order: Order, status: int | None) -> None:
        """Remember how a passed call ended."""
        if status != 200:
            # A pause or a continue that failed changed one flag or none, and may be repeated.
            self.known = order.path in (PAUSE, CONTINUE) and self.known
        elif order.path == PAUSE:
            self.paused = True
        elif order.path == CONTINUE:
            self.paused = False
        elif order.path == RELEASE:
            self.released |= order.tags
        else:
            self.released -= order.tags


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused("the body is no JSON object")
    return document


def _tags(body: bytes) -> frozenset[str]:
    """No tags would mean all of them, and one too many kills: they must be named."""
    tags = _object(body).get("tags")
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) for tag in tags) or set(tags) - TAGS:
        raise Refused(f'write {{"tags": [...]}} with some of {_words(TAGS)}')
    return frozenset(tags)


def _words(tags: frozenset[str]) -> str:
    return ", ".join(sorted(tags))
