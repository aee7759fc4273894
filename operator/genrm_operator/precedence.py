"""Who comes before whom in the queue for GPUs. Pure.

First who has them, as long as his turn lasts or nobody has waited for one; then who has waited for a turn; then who has
the higher priority; then who asked first. All slots follow this one order, so that no two models wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrm_operator.claims import Claim, Owner
from genrm_operator.observed import Place


def in_order(
    queue: Sequence[Claim], now: float, turn_seconds: float
) -> dict[tuple[Owner, str], tuple[Claim, Claim | None]]:
    """The claims in the order of the queue, each with who is before it; `None`: it is its turn.

    Who waits for a run's trainer, himself or behind others, does not stand before what that run waits for: the trainer
    would keep its GPUs, and both would wait for ever.
    """
    ranked = sorted(queue, key=lambda claim: _rank(claim, queue, now, turn_seconds))
    having = {run for claim in queue if claim.given_at is not None and not claim.ends for run in claim.runs}
    behind: dict[str, frozenset[str]] = {}  # runs that have trainers: the runs whose trainers they wait for
    while True:
        found: dict[tuple[Owner, str], tuple[Claim, Claim | None]] = {}
        held_up: dict[tuple[Owner, str], frozenset[str]] = {}
        taken: dict[Place, Claim] = {}
        for claim in ranked:
            ahead = {taken[place].key: taken[place] for place in sorted(claim.places) if place in taken}
            before = [o for o in ahead.values() if o.given_at is not None or claim.runs.isdisjoint(held_up[o.key])]
            found[claim.key] = claim, next(iter(before), None)
            waits_for = [held_up[o.key] if o.given_at is None else frozenset() if o.ends else o.runs for o in before]
            held_up[claim.key] = _all_behind(frozenset().union(*waits_for), behind)
            if not before:
                taken |= dict.fromkeys(claim.places, claim)
            elif claim.given_at is None and now - claim.since >= turn_seconds:
                # Of several GPUs that it needs together some are free: nobody else takes them first.
                taken |= {place: claim for place in claim.places if place not in taken}
        longer = dict(behind)
        for claim in ranked:
            for run in claim.runs & having if held_up[claim.key] else ():
                longer[run] = longer.get(run, frozenset()) | held_up[claim.key]
        if longer == behind:
            return found
        behind = longer


def _all_behind(runs: frozenset[str], behind: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The runs, and whom they wait for, and whom these wait for."""
    found, more = frozenset[str](), runs
    while more:
        found |= more
        more = frozenset[str]().union(*(behind.get(run, frozenset()) for run in more)) - found
    return found


def _rank(claim: Claim, queue: Sequence[Claim], now: float, turn_seconds: float) -> tuple[int, int, float, Any]:
    """Its place in the queue: the smaller comes first."""
    if claim.given_at is not None:
        rivals = (o for o in queue if o.given_at is None and claim.shares(o.owner, o.places))
        waiting = any(now - rival.since >= turn_seconds for rival in rivals)
        return (3 if waiting and now >= claim.turn_ends(turn_seconds) else 0), 0, claim.given_at, claim.key
    if now - claim.since >= turn_seconds:
        return 1, 0, claim.since, claim.key
    return 2, -claim.priority, claim.since, claim.key
