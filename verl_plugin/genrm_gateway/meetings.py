"""Groups whose members come in requests of their own: which target each began with, and that it stays ready.

The demand for a target begins with a group's first member, so that the wake takes place while siblings are still being
generated; and what changes in a cluster meanwhile counts for the groups after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from genrm_gateway.catalog import Target


@dataclass(slots=True)
class _Meeting:
    target: Target
    came: int = 0
    inside: int = 0


class Meetings:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._held: dict[str, _Meeting] = {}

    @property
    def waiting(self) -> int:
        """Groups that are not complete."""
        return len(self._held)

    @asynccontextmanager
    async def joined(self, group: str, size: int, target: Target) -> AsyncIterator[Target]:
        """The target with which this member and its siblings are scored: the one that the first of them was given."""
        meeting = self._held.setdefault(group, _Meeting(target))
        meeting.came += 1
        if meeting.came >= size:
            del self._held[group]  # what comes now under this name is another group
        meeting.inside += 1
        try:
            async with meeting.target.used():
                yield meeting.target
        finally:
            meeting.inside -= 1
            if not meeting.inside and self._held.get(group) is meeting:
                del self._held[group]
