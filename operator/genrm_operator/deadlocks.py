"""Runs that wait for themselves, or for each other in a circle: which of them is told so, and what. Pure.

A trainer keeps its GPUs while its run waits for others, and has no turn that ends. So a run waits for ever that waits
for GPUs which its own trainer has; and so do two runs, or more, of which each has what the next one waits for. No order
of the queue helps. Who waits for itself is refused. Of a circle one is, and the others go on when it has given back
what it has: the one with the least priority, and of several the one that asked last.

It is a run that is refused, and not what it asks for: another run may want the same model, and has to wait only until
the trainer gives the GPUs back. Models close no circle, since their turns end. But a run that has a slot by one model
and asks for another one on the same GPUs, which nobody else wants, is refused like one that waits for its own trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from genrm_operator.claims import Claim, Owner

DEADLOCK_SECONDS: Final = 2.0
"""A run writes one Lease after another: for so long it may ask for the next GPUs before it has given the last back."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A run does not get what it asks for while things are as they are."""

    sentence: str
    at: float
    """When it is told so."""
    holder: str


@dataclass(slots=True)
class Found:
    refusals: dict[tuple[Owner, str], dict[str, Refusal]] = field(default_factory=dict)
    """By claim and run."""
    look_again: dict[tuple[Owner, str], float] = field(default_factory=dict)
    """Claims for which there may be a refusal at that time."""

    def of(self, claim: Claim) -> Mapping[str, Refusal]:
        return self.refusals.get(claim.key, {})

    def refuse(self, claim: Claim, run: str, refusal: Refusal) -> None:
        self.refusals.setdefault(claim.key, {})[run] = refusal


@dataclass(frozen=True, slots=True)
class _Wait:
    """A run waits for GPUs that a trainer has."""

    run: str
    claim: Claim
    holder: Claim

    @property
    def sure_at(self) -> float:
        return _sure_at(self.run, self.claim, self.holder)

    @property
    def words(self) -> str:
        return f"run {self.run} waits for {_words(self.claim)}, which {self.holder.name} has"


def find(claims: Sequence[Claim], now: float) -> Found:
    found = Found()
    given = [claim for claim in claims if claim.given_at is not None]
    waiting = [claim for claim in claims if claim.given_at is None and claim.runs]
    waits = []
    for claim in waiting:
        holders = [holder for holder in given if claim.shares(holder.owner, holder.places)]
        for wait in [_Wait(run, claim, h) for h in holders if not h.ends for run in sorted(claim.runs)]:
            if wait.run in wait.holder.runs:
                found.refuse(claim, wait.run, _own(wait.run, claim, wait.holder))
            else:
                waits.append(wait)
        others = claim.runs - found.of(claim).keys()
        if others and (holder := next((h for h in holders if h.ends and others <= h.runs), None)) is not None:
            for run in others:
                found.refuse(claim, run, _own(run, claim, holder))
    waits = [wait for wait in waits if wait.run not in found.of(wait.claim)]
    _break_circles([wait for wait in waits if wait.sure_at <= now], found)
    having = {run for claim in given if not claim.ends for run in claim.runs}
    for wait in waits:
        if wait.sure_at > now and wait.run in having:
            key = wait.claim.key
            found.look_again[key] = min(wait.sure_at, found.look_again.get(key, wait.sure_at))
    return found


def _break_circles(waits: list[_Wait], found: Found) -> None:
    while circle := _circle(waits):
        last = min(circle, key=lambda w: (w.claim.priority, -w.claim.asked_at(w.run), w.run, w.claim.key))
        words = ", and ".join(wait.words for wait in circle)
        found.refuse(last.claim, last.run, Refusal(
            f"{words}: none of them would end; give back what run {last.run} has, and name all slots that it needs in "
            "one Lease, or take them one after the other in an order that is the same in all runs",
            max(wait.sure_at for wait in circle), last.holder.name,
        ))  # fmt: skip
        waits = [wait for wait in waits if (wait.run, wait.claim.key) != (last.run, last.claim.key)]


def _circle(waits: Iterable[_Wait]) -> list[_Wait]:
    """Waits of which each is for the run of the next one, and the last for that of the first."""
    by_run: dict[str, list[_Wait]] = {}
    for wait in sorted(waits, key=lambda w: (w.run, w.claim.key, w.holder.key)):
        by_run.setdefault(wait.run, []).append(wait)
    over: set[str] = set()

    def follow(run: str, path: list[_Wait]) -> list[_Wait]:
        if (begins := next((i for i, wait in enumerate(path) if wait.run == run), None)) is not None:
            return path[begins:]
        if run in over:
            return []
        for wait in by_run.get(run, ()):
            for holder in sorted(wait.holder.runs):
                if circle := follow(holder, [*path, wait]):
                    return circle
        over.add(run)
        return []

    return next((circle for run in by_run if (circle := follow(run, []))), [])


def _sure_at(run: str, claim: Claim, holder: Claim) -> float:
    assert holder.given_at is not None, "who holds was given it"
    return max(claim.asked_at(run), holder.given_at) + DEADLOCK_SECONDS


def _own(run: str, claim: Claim, holder: Claim) -> Refusal:
    return Refusal(
        f"run {run} holds slot {claim.slot} by {holder.name} and waits for {claim.name}, on the same GPUs, before it "
        "gives it back: neither would end; score with one after the other, or after the rollout if it is the trainer "
        "that has them, or name different slots",
        _sure_at(run, claim, holder), holder.name,
    )  # fmt: skip


def _words(claim: Claim) -> str:
    return f"{claim.name} on slot {claim.slot}" if claim.ends else f"slot {claim.slot}"
