"""What the doors say happened, laid beside what clients saw.

A door counts whom it lets in (`served`), and its ledger says from when to when it let anybody in. A client knows when
it sent a request, and by the stamp on the answer which boot of which engine gave it. If both tell the truth, and nobody
ever reached an engine that did not serve, the numbers are equal and every answer falls into a time of serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Any

import httpx

Document = Mapping[str, Any]
ROUNDED = 0.001
"""Seconds to which a ledger's times are rounded."""
SHUTS = ("PUT draining", "PUT closed", "terminate: draining")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as its client saw it; times are Unix seconds.

    `status` is None where no answer came. `boot_id` is the stamp of the door that let it in; one that turns a request
    away stamps nothing.
    """

    url: str
    sent: float
    ended: float
    status: int | None
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class Hours:
    """A door let clients in from `opened` to `shut` (Unix seconds; infinite: it still does)."""

    opened: float
    shut: float

    def may_have_let_in(self, attempt: Attempt) -> bool:
        return attempt.sent < self.shut + ROUNDED and attempt.ended > self.opened - ROUNDED


def hours(ledger: Iterable[Mapping[str, Any]]) -> list[Hours]:
    """When a door served, by its ledger."""
    found: list[Hours] = []
    opened: float | None = None
    for entry in ledger:
        at = datetime.fromisoformat(entry["at"]).timestamp()
        if entry["call"] == "PUT serving" and entry["status"] == 200:
            opened = at + entry["seconds"]
        elif entry["call"] in SHUTS and opened is not None:
            found.append(Hours(opened, at))
            opened = None
    return found if opened is None else [*found, Hours(opened, inf)]


@dataclass
class Witnessed:
    """One boot of one engine: its door's newest document, and its ledger from the first look on."""

    address: str
    document: Document
    before: int
    """How many clients it had let in before the account begins."""
    ledger: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """By time and call, in order: a document holds only the last entries."""

    def hear(self, document: Document) -> None:
        self.document = document
        self.ledger |= {(entry["at"], entry["call"]): entry for entry in document["ledger"]}

    @property
    def boot_id(self) -> str:
        return str(self.document["bootId"])

    @property
    def let_in(self) -> int:
        return int(self.document["served"]) - self.before

    def contradicts(self, answered: Sequence[Attempt]) -> list[str]:
        """Where this door and the clients that have answers from behind it do not agree."""
        who, found = f"door {self.boot_id} at {self.address}", []
        if self.let_in != len(answered):
            found.append(f"{who} let {self.let_in} in, and clients have {len(answered)} answers")
        open_ = hours(self.ledger.values())
        outside = [attempt for attempt in answered if not any(h.may_have_let_in(attempt) for h in open_)]
        return found + [f"{who} served {open_}, and answered {attempt}" for attempt in outside]


class Doors:
    """The doors of one model, asked as the operator asks them."""

    def __init__(self, token: str) -> None:
        self.by_boot: dict[str, Witnessed] = {}
        self._http = httpx.Client(timeout=10, trust_env=False, headers={"Authorization": f"Bearer {token}"})

    def look(self, address: str, *, at_first: bool = False) -> Witnessed:
        """Ask one. `at_first`: the account begins here; whoever is heard of later began to serve within it."""
        document = self._http.get(f"http://{address}:8000/genrm/door").raise_for_status().json()
        boot, before = document["bootId"], document["served"] if at_first else 0
        door = self.by_boot.setdefault(boot, Witnessed(address, document, before))
        door.hear(document)
        return door

    def close(self) -> None:
        self._http.close()
