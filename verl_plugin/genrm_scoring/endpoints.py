"""Who can be asked right now.

An `Endpoint` is one engine pod (or one server named by hand). `Endpoints` is a source of them that changes under us:
a caller takes a `Snapshot`, and when it finds nobody there it waits for the next one. A source that no longer knows
says so in `Snapshot.problem` instead of handing out a list that may be long gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` has no trailing slash. `pod` and `uid` are empty for a server that is no pod."""

    url: str
    pod: str = ""
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.pod} ({self.url})" if self.pod else self.url


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The endpoints that serve, as of `version`. With a `problem` the list is empty because nobody knows, and why."""

    version: int
    endpoints: tuple[Endpoint, ...]
    problem: str | None = None


class Endpoints(Protocol):
    """A source of endpoints."""

    def snapshot(self) -> Snapshot: ...

    async def wait_for_change(self, version: int, timeout: float) -> None:
        """Return once the snapshot is newer than `version`, or after `timeout` seconds."""
        ...


class StaticEndpoints:
    """Endpoints that a person wrote down; they never change."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._snapshot = Snapshot(1, tuple(Endpoint(url.rstrip("/")) for url in urls))

    def snapshot(self) -> Snapshot:
        return self._snapshot

    async def wait_for_change(self, version: int, timeout: float) -> None:
        await asyncio.sleep(max(0.0, timeout))
