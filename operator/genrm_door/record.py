"""What the door remembers: its state, who is inside, and what it let an admin do.

The record lives as long as the engine's server process and is told apart from the next one by its boot id. After a
crash of the operator it is the truth about this engine. No I/O and no awaiting happens here, so every method is atomic
on the event loop: a request that was admitted is counted before anybody can set the door to draining, and after that
nobody is admitted.

States and their changes (asking for the present state again changes nothing and is fine):

    gated     -> closed                       the engine has not been started (see `gate`)
    closed    -> serving | asleep | gated     the first state; nobody scores but the operator
    serving   -> draining | closed
    draining  -> serving | asleep | closed | gated    nobody enters, those inside finish
    asleep    -> serving | closed | gated

On the way to `gated` the engine ends: its container waits for a release anew, under another boot id (see `rebirth`).

A pod that *terminates* never serves again: of the ways above those to `serving` are shut for it.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

DOCUMENT_VERSION = 2
LEDGER_LENGTH = 64


class State(str, enum.Enum):
    GATED = "gated"
    CLOSED = "closed"
    SERVING = "serving"
    DRAINING = "draining"
    ASLEEP = "asleep"


CHANGES: Mapping[State, frozenset[State]] = {
    State.GATED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset({State.SERVING, State.ASLEEP, State.GATED}),
    State.SERVING: frozenset({State.DRAINING, State.CLOSED}),
    State.DRAINING: frozenset({State.SERVING, State.ASLEEP, State.CLOSED, State.GATED}),
    State.ASLEEP: frozenset({State.SERVING, State.CLOSED, State.GATED}),
}


class Refused(Exception):
    """The door does not do what an admin asked; the text is a sentence for the one who asked."""


@dataclass
class Entry:
    """One line of the ledger. `status` and `seconds` are None while the call runs."""

    at: float
    call: str
    status: int | None = None
    seconds: float | None = None


@dataclass
class Night:
    """What a sleep gave back: bytes in use on the engine's GPUs, by whomever, as somebody asked for them.

    None is what could not be measured, or was not yet.
    """

    before: int | None = None
    """The most while the engine was awake and out of service."""
    after: int | None = None
    """The least since: the engine keeps that much at most, whoever else has memory there."""


class Record:
    """The memory of one door. Times are wall-clock seconds, written out in UTC."""

    def __init__(
        self,
        boot_id: str,
        engine: str,
        revision: str,
        *,
        weights: Mapping[str, Any] | None = None,
        device: str | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.boot_id = boot_id
        self.engine = engine
        self.revision = revision
        self.weights = weights
        """What the launcher found out of the model's files (see `weights`); None where none looked."""
        self.device = device
        """What the engine computes on (see `device`)."""
        self.state = State.CLOSED
        self.inside = 0
        self.served = 0
        self.started_at = now()
        self.last_request_at: float | None = None
        self.ledger: deque[Entry] = deque(maxlen=LEDGER_LENGTH)
        self.running: Entry | None = None
        self.night: Night | None = None
        """The sleep that it is in, or on its way to; None while it serves."""
        self.terminating = False
        """Whether the pod's preStop hook has said that it ends."""
        self.epoch: int | None = None
        """The newest leadership that has changed something here; None while none has said its number."""
        self._now = now
        self._monotonic = monotonic
        self._clients = 0
        self._busy_at = monotonic()

    # -- scoring

    def enter(self, *, operator: bool) -> None:
        """Count one request in. The operator's own ones are inside like any other, but they are nobody's demand."""
        self.inside += 1
        if not operator:
            self._clients += 1
            self.last_request_at = self._now()

    def leave(self, *, operator: bool) -> None:
        self.inside -= 1
        if not operator:
            self._clients -= 1
            self.served += 1
            self._busy_at = self._monotonic()

    @property
    def idle_seconds(self) -> float:
        """Since the last client's request ended, or since the start; 0 while one is inside."""
        return 0.0 if self._clients else self._monotonic() - self._busy_at

    # -- administration

    def meant(self, boot_ids: Sequence[bytes]) -> None:
        """Take an order that is for this boot of the server, or does not say for which.

        Raises:
            Refused: it is for another one. Who gave it saw this container before it started anew.
        """
        if any(boot_id != self.boot_id.encode() for boot_id in boot_ids):
            meant = b", ".join(boot_ids)[:60].decode("ascii", "replace")
            raise Refused(f"the order is for boot {meant}, and this is boot {self.boot_id}: look again")

    def obey(self, epoch: int | None) -> None:
        """Take an order from the operator of this leadership.

        Raises:
            Refused: a later leader has been here. Who was deposed may not know it yet.
        """
        if self.epoch is not None and (epoch is None or epoch < self.epoch):
            who = "an operator without a leadership" if epoch is None else f"the leader of epoch {epoch}"
            raise Refused(f"{who} was deposed: epoch {self.epoch} gives the orders here")
        self.epoch = epoch

    @contextmanager
    def turn(self, call: str) -> Iterator[Entry]:
        """Let one admin call through, alone, and write it down.

        Who comes second is refused rather than queued: a queued repeat would do again what was just done.

        Raises:
            Refused: another call is running.
        """
        if self.running is not None:
            raise Refused(f"{self.running.call} is running since {stamp(self.running.at)}: wait for it and look again")
        entry = self.running = Entry(self._now(), call)
        self.ledger.append(entry)
        began = self._monotonic()
        try:
            yield entry
        finally:
            entry.seconds = round(self._monotonic() - began, 6)
            self.running = None

    def check(self, state: State) -> None:
        """Raise `Refused` if the door may not go from its present state to `state`."""
        if self.terminating and state is not self.state and (state is State.SERVING or self.state is State.GATED):
            raise Refused(f"the pod is being deleted: the door stays {self.state.value}")
        if state is not self.state and state not in CHANGES[self.state]:
            ways = " or ".join(sorted(s.value for s in CHANGES[self.state]))
            raise Refused(f"the door is {self.state.value} and cannot become {state.value}: from here it can be {ways}")

    def note(self, call: str, status: int) -> None:
        """Write down a call that took no time."""
        self.ledger.append(Entry(self._now(), call, status, 0.0))

    def terminate(self, *, admit: bool) -> None:
        """The pod ends. Whoever is told late may still enter while `admit`; who is inside finishes in any case."""
        if not self.terminating:
            self.terminating = True
            self.note("terminate", 200)
        if not admit and self.state is State.SERVING:
            self.state = State.DRAINING
            self.note("terminate: draining", 200)

    def measured(self, used: int | None, asleep: bool | None) -> None:
        """Somebody asked how much of the GPUs is in use, which says what a sleep gave back to whoever asks later.

        `asleep`: the engine's own word. At the gate there is no engine any more that could keep something.
        """
        if self.state is State.SERVING:
            return
        if asleep is False:
            before = self.night.before if self.night is not None else None
            self.night = Night(used if before is None or used is None else max(before, used))
        elif self.night is not None and used is not None and (asleep or self.state is State.GATED):
            self.night.after = used if self.night.after is None else min(self.night.after, used)

    def hand_over(self) -> dict[str, Any]:
        """What the next door of this container must know: the engine's of the time at the gate, or the other way."""
        ledger = [[e.at, e.call, e.status, e.seconds] for e in self.ledger]
        night = None if self.night is None else asdict(self.night)
        return {"epoch": self.epoch, "terminating": self.terminating, "night": night, "ledger": ledger}

    def take_over(self, past: Mapping[str, Any]) -> None:
        """Remember what was handed over."""
        self.epoch = past.get("epoch")
        self.terminating = bool(past.get("terminating"))
        self.night = None if (night := past.get("night")) is None else Night(**night)
        self.ledger.extend(Entry(*line) for line in past.get("ledger", ()))

    def document(self, asleep: bool | None, memory: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The document of `GET /genrm/door`.

        `asleep` is the engine's own word, None if it did not say. `memory` is what the door let the operator release
        of it, None if nobody knows.
        """
        return {
            "version": DOCUMENT_VERSION,
            "state": self.state.value,
            "inside": self.inside,
            "bootId": self.boot_id,
            "engine": self.engine,
            "revision": self.revision,
            "weights": self.weights,
            "device": self.device,
            "asleep": asleep,
            "memory": memory,
            "night": None if self.night is None else asdict(self.night),
            "epoch": self.epoch,
            "terminating": self.terminating,
            "startedAt": stamp(self.started_at),
            "lastRequestAt": None if self.last_request_at is None else stamp(self.last_request_at),
            "idleSeconds": round(self.idle_seconds, 3),
            "served": self.served,
            "ledger": [
                {"at": stamp(e.at), "call": e.call, "status": e.status, "seconds": e.seconds} for e in self.ledger
            ],
        }


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    milliseconds = round(seconds * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"
