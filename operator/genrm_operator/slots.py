"""Who may have a slot's GPUs: pure, from the RewardModels as the API server has them and what their pods said last.

Several models may name the same GPUs; at most one of them has its memory up. A model that is to be awake asks for its
slots, each on its own, and queues; one that is not asks for none, and rests. A slot is given only when it is seen to be
free: whoever had it sleeps and has given its memory back, waits at its start gate, or its container is gone. What
cannot be seen is not free. What counts is what runs: pods, and not what a RewardModel says now.

The queue (`precedence`): who has a slot keeps it while it asks. Behind it comes who has the higher priority (its runs'
word), then who asked first. Nobody waits for ever: once somebody has waited for a turn, whoever has had the slot for a
turn gives it back, and those who have waited for a turn come before all priorities. A trainer's turn does not end; runs
that no order could help are told so at once (`deadlocks`).

Two names that are the same GPU are the same slot: places say what a name stands for.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genrm_api.leases import DemandLease
from genrm_api.status import Reason

from genrm_operator import deadlocks
from genrm_operator.claims import Claim, Owner
from genrm_operator.deadlocks import Refusal
from genrm_operator.night import Night
from genrm_operator.observed import Door, DoorState, Place, Pod
from genrm_operator.precedence import in_order


@dataclass(frozen=True, slots=True)
class Holding:
    """What one RewardModel names: by slot, the GPUs."""

    namespace: str
    name: str
    slots: Mapping[str, frozenset[Place]]
    twice: str | None
    """A sentence, where two slots of its own are the same GPU."""

    @property
    def owner(self) -> Owner:
        return self.namespace, self.name

    @property
    def places(self) -> frozenset[Place]:
        return frozenset[Place]().union(*self.slots.values())

    def places_of(self, slots: Iterable[str]) -> frozenset[Place] | None:
        """The GPUs of these slots together; `None` if it does not name all of them."""
        named = set(slots)
        return frozenset[Place]().union(*(self.slots[slot] for slot in named)) if named <= self.slots.keys() else None


def holding(obj: Mapping[str, Any]) -> Holding | None:
    """What a RewardModel, as the API server has it, names; `None` if it names no slot."""
    meta, gpu = obj["metadata"], obj.get("spec", {}).get("gpu") or {}
    slots: dict[str, frozenset[Place]] = {}
    found: dict[Place, str] = {}
    twice = None
    for slot in gpu.get("slots") or ():
        name = slot["name"]
        if "node" in slot:
            places = frozenset(("device", slot["node"], str(device)) for device in slot.get("devices") or ())
        else:
            places = frozenset({("claim", meta["namespace"], name)})
        for place in sorted(places & found.keys()):
            twice = twice or (
                f"spec.gpu.slots: {name} is {_words(place)}, and so is {found[place]}; write another device into one "
                "of them"
            )
        found |= dict.fromkeys(places - found.keys(), name)
        slots[name] = places
    return Holding(meta["namespace"], meta["name"], slots, twice) if slots else None


def trainer(lease: DemandLease) -> Owner:
    """What a Lease that is for the GPUs themselves is called in the queue; no RewardModel is called so."""
    return lease.namespace, f"run {lease.run} (Lease {lease.name})"


class Use(enum.Enum):
    """Whether the memory of a slot's GPUs is taken by one of those who share it."""

    FREE = "free"
    TAKEN = "taken"
    UNKNOWN = "unknown"
    """Nobody can see it, so it may be."""


@dataclass(frozen=True, slots=True)
class Taker:
    """A pod that has a slot's GPUs, or could have them."""

    owner: Owner
    uid: str
    places: frozenset[Place]
    use: Use
    because: str
    """What it does, in words that follow its name."""


def asks(mine: Holding, pods: Iterable[Pod], wanting: Sequence[DemandLease], starts: float = 0.0) -> list[Claim]:
    """What a model asks for that is to be awake: the slots of its pods, but for those that may not score its run.

    Args:
        wanting: the Leases for which, none where a person wants it.
        starts: seconds that the start of its engine may take.
    """
    held = {pod.slot for pod in pods if pod.held and not pod.deleting}
    runs, priority = frozenset(lease.run for lease in wanting), max((lease.priority for lease in wanting), default=0)
    return [
        Claim(mine.owner, slot, places, runs, priority, starts=starts)
        for slot, places in mine.slots.items()
        if slot not in held
    ]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a claim gets. `waits` is a sentence for who does not have the slot."""

    given: bool
    waits: str | None = None
    blocked: bool = False
    """Nobody can see that the slot is free."""
    deadlock: bool = False
    """All runs that ask are refused."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why a run that asks gets nothing as things are, by run."""
    look_again_at: float | None = None
    """When this may be different without any event."""


def turns(
    claims: Sequence[Claim], takers: Sequence[Taker], now: float, turn_seconds: float
) -> dict[tuple[Owner, str], Turn]:
    """What each claim gets. Of all that share a place at most one is given it, and none while another has it.

    A run that is refused is not counted among those who ask.
    """
    found = deadlocks.find(claims, now)
    result = {}
    queue = []
    for claim in claims:
        if claim.runs and claim.runs == found.of(claim).keys():
            result[claim.key] = _not_queued(claim, found.of(claim), now)
        else:
            queue.append(dataclasses.replace(claim, runs=claim.runs - found.of(claim).keys()))
    for claim, before in in_order(queue, now, turn_seconds).values():
        if before is None:
            turn = _when_free(claim, claims, takers)
            turn = dataclasses.replace(turn, look_again_at=_turn_ends(claim, queue, turn_seconds))
        else:
            until = "as long as it is asked for or until its turn is over"
            if before.given_at is not None and not before.ends:
                until = "until it says that it does not need it: a trainer has no turn that ends"
            turn = Turn(given=False, waits=f"slot {claim.slot} is {before.name}'s, {until}")
        refusals = found.of(claim).values()
        dues = (turn.look_again_at, found.look_again.get(claim.key), *(r.at for r in refusals if r.at > now))
        result[claim.key] = dataclasses.replace(
            turn,
            refused=_told(found.of(claim), now),
            look_again_at=min((d for d in dues if d is not None), default=None),
        )
    return result


def _not_queued(claim: Claim, refusals: Mapping[str, Refusal], now: float) -> Turn:
    """Who has what it waits for waits for itself, and takes no turn from itself."""
    told, first = _told(refusals, now), min(refusals.values(), key=lambda refusal: refusal.at)
    if len(told) == len(refusals):
        waits = "; ".join(dict.fromkeys(told[run] for run in sorted(told)))
        return Turn(given=False, waits=waits, blocked=True, deadlock=True, refused=told)
    due = min(refusal.at for refusal in refusals.values() if refusal.at > now)
    waits = f"slot {claim.slot} is {first.holder}'s, for the same run"
    return Turn(given=False, waits=waits, refused=told, look_again_at=due)


def refusals(turns: Iterable[Turn]) -> dict[str, str]:
    """What each run is told that is refused, by run."""
    return {run: f"{Reason.SLOT_DEADLOCK}: {why}" for turn in turns for run, why in turn.refused.items()}


def _told(refusals: Mapping[str, Refusal], now: float) -> dict[str, str]:
    return {run: refusal.sentence for run, refusal in refusals.items() if refusal.at <= now}


def _turn_ends(claim: Claim, waiting: Iterable[Claim], turn_seconds: float) -> float | None:
    """When who has a slot is to give it back, because somebody has waited for long."""
    since = [o.since for o in waiting if o.given_at is None and claim.shares(o.owner, o.places)]
    if not since or claim.given_at is None:
        return None
    return max(claim.turn_ends(turn_seconds), min(since) + turn_seconds)


def _when_free(claim: Claim, claims: Iterable[Claim], takers: Sequence[Taker]) -> Turn:
    """Whose turn it is gets the slot when nobody else has it."""
    mine = (t for t in takers if t.owner == claim.owner and not t.places.isdisjoint(claim.places))
    if claim.given_at is not None and any(taker.use is not Use.FREE for taker in mine):
        return Turn(given=True)  # it is up: whoever else is up goes to rest
    rivals = [t for t in takers if t.use is not Use.FREE and claim.shares(t.owner, t.places)]
    given = [c for c in claims if c.given_at is not None and claim.shares(c.owner, c.places)]
    unseen = next((rival for rival in rivals if rival.use is Use.UNKNOWN), None)
    if unseen is not None:
        who = "/".join(unseen.owner)
        waits = f"slot {claim.slot} is not seen to be free: {who}, which names the same GPUs, {unseen.because}"
        return Turn(given=False, waits=waits, blocked=True)
    if rivals or given:
        before = rivals[0].owner if rivals else given[0].owner
        return Turn(given=False, waits=f"slot {claim.slot} is next, when {'/'.join(before)} rests")
    return Turn(given=True)


@dataclass(slots=True)
class Book:
    """Who asks for which slot, and what was seen of who has one. Losing it costs a look at each model, never a slot."""

    turn_seconds: float
    claims: dict[Owner, tuple[Claim, ...]] = field(default_factory=dict)
    seen: dict[str, Taker] = field(default_factory=dict)
    """By uid of the pod, as of its model's last look."""
    told: dict[tuple[Owner, str], frozenset[str]] = field(default_factory=dict)
    """By claim: the runs that were refused, as of the last look at any model."""

    def settle(
        self, mine: Holding, asks: Iterable[Claim], looked_at: Iterable[Pod], nights: Mapping[str, Night],
        pods: Iterable[Pod], trainers: Iterable[Taker], wanting: Callable[[Owner], frozenset[str]], now: float,
    ) -> tuple[dict[str, Turn], frozenset[Place]]:  # fmt: skip
        """Enter what was seen of a model, and give it what it gets: its turns by slot, and on which places others care.

        `asks` are its claims now. `looked_at` are its pods, with what their doors say; `pods` are all that have a slot,
        and `trainers` who has GPUs and is no pod of a model.
        `wanting` tells which runs want another model now, which may not have been looked at since they do not any more.
        What is given is entered at once, so that nobody else is given it.
        """
        old_claims, old_seen = self.claims.get(mine.owner, ()), dict(self.seen)
        for pod in looked_at:
            self.seen[pod.uid] = taker(pod, nights.get(pod.uid))
        takers = [self.seen.get(pod.uid) or taker(pod, None) for pod in pods]
        self.seen = {uid: self.seen[uid] for uid in {t.uid for t in takers} & self.seen.keys()}
        takers += trainers
        before = {claim.slot: claim for claim in old_claims}
        up = [t for t in takers if t.owner == mine.owner and t.use is Use.TAKEN]
        serve = [pod.places for pod in looked_at if pod.serving]
        entered = [_continued(claim, before.get(claim.slot), up, serve, now) for claim in asks]
        beside = [
            dataclasses.replace(claim, runs=claim.runs & wanting(owner))
            for owner, theirs in self.claims.items()
            if owner != mine.owner
            for claim in theirs
        ]
        found = turns([*entered, *beside], takers, now, self.turn_seconds)
        told = {claim.key: frozenset(found[claim.key].refused) for claim in (*entered, *beside)}
        # In a circle it may be somebody else who is to be told, on other GPUs.
        news = [c.places for c in beside if told[c.key] != self.told.get(c.key, frozenset())]
        self.told = {key: runs for key, runs in told.items() if runs}
        given = {claim.slot: found[claim.key] for claim in entered}
        self.claims[mine.owner] = tuple(_given(claim, given[claim.slot], now) for claim in entered)
        if not entered:
            del self.claims[mine.owner]
        if (old_claims, old_seen) != (self.claims.get(mine.owner, ()), self.seen):
            news.append(mine.places)
        return given, frozenset[Place]().union(*news)

    def forget(self, owner: Owner) -> frozenset[Place]:
        """The model is gone; for which places somebody else may be waiting.

        What its pods said last counts no more: nobody looks at them from now on.
        """
        self.seen = {uid: taker for uid, taker in self.seen.items() if taker.owner != owner}
        return frozenset[Place]().union(*(claim.places for claim in self.claims.pop(owner, ())))


def _continued(
    claim: Claim, before: Claim | None, up: Iterable[Taker], serve: Iterable[frozenset[Place]], now: float
) -> Claim:
    """When it began to ask, and whether it was given the slot, is known from before.

    In a new operator process nobody was given anything: who asks, and is up, goes on.
    """
    serves = any(not places.isdisjoint(claim.places) for places in serve)
    joined = {run: now if before is None else before.joined.get(run, now) for run in claim.runs}
    claim = dataclasses.replace(claim, joined=joined)
    if before is not None:
        served_at = before.served_at or (now if serves and before.given_at is not None else None)
        return dataclasses.replace(claim, since=before.since, given_at=before.given_at, served_at=served_at)
    has = any(not taker.places.isdisjoint(claim.places) for taker in up)
    return dataclasses.replace(claim, since=now, given_at=now if has else None, served_at=now if serves else None)


def _given(claim: Claim, turn: Turn, now: float) -> Claim:
    if turn.given:
        return claim if claim.given_at is not None else dataclasses.replace(claim, given_at=now)
    since = claim.since if claim.given_at is None else now  # who had it waits from now on
    return dataclasses.replace(claim, given_at=None, served_at=None, since=since)


def taker(pod: Pod, night: Night | None) -> Taker:
    use, because = _use(pod, night)
    return Taker((pod.namespace, pod.reward_model), pod.uid, pod.places, use, f"has pod {pod.name}, which {because}")


def _use(pod: Pod, night: Night | None) -> tuple[Use, str]:
    if not pod.runs:
        return Use.FREE, "has no container"
    if pod.busy is not None:
        return Use.TAKEN, "is on its way up or down"  # an order may be on its way, too
    door = pod.door
    if door is None:
        if pod.released_boot_id is None:
            return Use.FREE, "was never let past its gate"
        return Use.UNKNOWN, "is being deleted" if pod.deleting else "does not answer"
    if door.state is DoorState.GATED:
        return Use.FREE, "waits at its gate"
    if door.state is DoorState.ASLEEP and door.engine_asleep is None:
        return Use.UNKNOWN, "does not say whether it sleeps"
    if not _sleeps(door):
        return Use.TAKEN, "is up"
    if night is not None and night.effective is False:
        bytes_ = f"{(night.after or 0) / (1 << 30):.1f} of {(night.before or 0) / (1 << 30):.1f} GiB"
        kept = bytes_ if night.before else "most of its memory"
        return Use.UNKNOWN, f"sleeps and keeps {kept}: spec.lifecycle.sleep.mode: Restart gives all of it back"
    return Use.FREE, "sleeps"


def _sleeps(door: Door) -> bool:
    """And nobody has given it an order whose end is not known."""
    return door.state is DoorState.ASLEEP and door.engine_asleep is True and not door.ordered and not door.holds_memory


def let_in(pods: Sequence[Pod], given: Mapping[str, Turn], mine: Holding) -> list[Pod]:
    """The pods, with whether each may have its slot: its model was given it, and it is the one of its own that may.

    That is one which is up, or may be; else the one that was there first.
    """

    def order(pod: Pod) -> tuple[bool, bool, str]:
        return _use(pod, None)[0] is Use.FREE, pod.deleting, pod.uid

    def may_have(pod: Pod) -> bool:
        slot = next((name for name, places in mine.slots.items() if places == pod.places), None)
        turn = given.get(slot or "")
        there = (other for other in pods if not other.places.isdisjoint(pod.places))
        return turn is not None and turn.given and min(there, key=order).uid == pod.uid

    return [dataclasses.replace(pod, may_be_up=may_have(pod)) for pod in pods]


def _words(place: Place) -> str:
    return f"device {place[2]} of node {place[1]}"
