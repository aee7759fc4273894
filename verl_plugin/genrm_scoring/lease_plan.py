"""What to write to one Lease next. Pure: time is a parameter, and `leases` does the writing.

Everything is level-triggered: what is wanted is written until it is there, and a newer wish replaces an older one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from genrm_api.leases import Phase


class Write(enum.Enum):
    CREATE = "create"
    RENEW = "renew"
    PHASE = "phase"


@dataclass(frozen=True, slots=True)
class Step:
    """What to write and when; `write` is None if there is nothing to do until somebody wants something."""

    write: Write | None
    at: float


@dataclass(frozen=True, slots=True)
class Wish:
    phase: Phase
    needed_at: float | None = None
    """With phase `prewake`: when the engines must be awake, on the caller's clock; `None`: now."""
    asked: str | None = None
    """Of a wish for a slot's GPUs: a word that comes back with its answer."""


@dataclass(slots=True)
class LeasePlan:
    """What to write to one Lease next. `holds`: whether this process is the holder."""

    ttl: float
    holds: bool
    wanted: Wish | None = None
    written: Wish | None = None
    exists: bool = False
    due: dict[Write, float] = field(default_factory=dict)
    failures: int = 0

    def want(self, phase: Phase, now: float, needed_at: float | None = None, asked: str | None = None) -> None:
        if (wish := Wish(phase, needed_at, asked)) != self.wanted:
            self.wanted = wish
            self.due[Write.PHASE] = now

    def next(self, now: float) -> Step:
        if self.holds and not self.exists:
            return Step(Write.CREATE, self.due.get(Write.CREATE, now))
        writes = [Write.PHASE] if self.wanted is not None else []
        if self.holds:
            writes.append(Write.RENEW)
        if not writes:
            return Step(None, float("inf"))
        first = min(writes, key=lambda write: self.due.get(write, now))
        return Step(first, self.due.get(first, now))

    @property
    def settled(self) -> bool:
        """Whether everything that is wanted is there."""
        return (self.exists or not self.holds) and self.written == self.wanted

    @property
    def rests(self) -> bool:
        """Whether what is there asks for nothing to be awake."""
        return self.written is None or not self.written.phase.wants_awake

    def succeeded(self, write: Write, wish: Wish | None, now: float) -> None:
        """`write` is done; `wish` is what was written with it, if anything."""
        self.failures = 0
        again = now + self.ttl / 3
        if write is Write.CREATE:
            self.exists = True
            self.due = {Write.RENEW: again, Write.PHASE: again}
            if wish == self.wanted:
                self.written = wish
            else:
                self.due[Write.PHASE] = now
        elif write is Write.RENEW:
            self.due[Write.RENEW] = again
        else:
            self.written = wish
            self.due[Write.PHASE] = again if wish == self.wanted else now

    def failed(self, write: Write, now: float) -> None:
        """`write` did not happen: soon again, ever less soon, but several times within the TTL."""
        pause = min(0.1 * 2.0**self.failures, self.ttl / 15, 2.0)
        self.failures += 1
        self.due[write] = now + pause

    def vanished(self, write: Write, now: float) -> None:
        """The Lease is not there. The holder makes it anew; anybody else waits for that."""
        if self.holds:
            self.exists = False
            self.due = {Write.CREATE: now}
        else:
            self.failed(write, now)
