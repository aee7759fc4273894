"""Runs that want a slot's GPUs for themselves: trainers, whose own engines have memory there for a part of each step.

Such a Lease names slots of a RewardModel, and queues with the models that name the same GPUs (`slots`). Nobody can
look into a trainer, so its word counts. It is granted all of its GPUs together, once every engine on them rests, and
has them until it says `idle`; it is not asked to give them back before. One that stops renewing has died, or was cut
off, and its memory may still be there: nobody gets the GPUs until the pods that its Lease names have ended or are gone,
or somebody deletes the Lease.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from genrm_api.leases import DemandLease, Sighting
from genrm_api.names import ANNOTATION_GRANTED, ANNOTATION_REFUSED

from genrm_operator.cache import Cache, Key
from genrm_operator.claims import Claim, Owner
from genrm_operator.errors import ApiError, NotFound
from genrm_operator.kube import Kube
from genrm_operator.observed import Place
from genrm_operator.slots import Book, Holding, Taker, Turn, Use, refusals, trainer

log = logging.getLogger(__name__)

NOT_ASKED: Final = Turn(given=False)
AGAIN_SECONDS: Final = 5.0
"""Until a Lease that could not be written is written again."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a Lease says of its slots' GPUs, at one moment."""

    lease: DemandLease
    places: frozenset[Place]
    expired: bool
    gone: bool = False
    """Its pods have ended, or do not exist any more."""

    @property
    def owner(self) -> Owner:
        return trainer(self.lease)

    @property
    def holding(self) -> Holding:
        namespace, name = self.owner
        return Holding(namespace, name, {self.together: self.places}, None)

    @property
    def together(self) -> str:
        """Its slots as one: it has no use for a part of them."""
        return ", ".join(self.lease.slots)

    @property
    def asks(self) -> list[Claim]:
        lease = self.lease
        if self.expired or not wants(lease):
            return []
        # It has no turn that ends: nobody could put it to rest.
        runs = frozenset({lease.run})
        return [Claim(self.owner, self.together, self.places, runs, lease.priority, starts=math.inf)]

    @property
    def taker(self) -> Taker:
        use, because = Use.FREE, "has given them back"
        if has(self.lease) and not self.gone:
            use, because = Use.TAKEN, "has them until it says that it does not need them"
            if self.expired:
                use = Use.UNKNOWN
                because = (
                    "has them and renews its Lease no more: they are free when the pods that it names have ended, or, "
                    "if you know that its processes have ended, when you delete the Lease"
                )
        return Taker(self.owner, self.lease.name, self.places, use, because)


def wants(lease: DemandLease) -> bool:
    return lease.phase.wants_awake and lease.asked is not None


def has(lease: DemandLease) -> bool:
    """Whether it was granted what it asks for now, by this or an earlier operator."""
    return wants(lease) and lease.granted == lease.asked


class Trainers:
    """Enters these Leases into the queue, and tells each what it got."""

    def __init__(self, kube: Kube, cache: Cache, book: Book, share: Callable[[Key, frozenset[Place]], None]) -> None:
        """`share`: has those looked at who share these places."""
        self._kube, self._cache, self._book, self._share = kube, cache, book, share
        self._sightings: dict[Key, dict[str, Sighting]] = {}
        self._entered: defaultdict[Key, dict[Owner, Taker]] = defaultdict(dict)
        """As of the last look at the RewardModel whose slot it is."""

    def takers(self) -> list[Taker]:
        """All of them. Whose RewardModel has not been looked at yet has what an earlier operator granted it."""
        found = {who: taker for entered in self._entered.values() for who, taker in entered.items()}
        for key, leases in self._cache.trainers.items():
            if (mine := self._cache.holdings.get(key)) is not None:
                for lease in leases.values():
                    if (places := mine.places_of(lease.slots)) is not None:
                        found.setdefault(trainer(lease), Wish(lease, places, expired=False).taker)
        return list(found.values())

    async def settle(self, key: Key, now: float) -> float | None:
        """Take a look at a RewardModel's slots; return when the answer may change without an event.

        It may be gone: who has some of its GPUs has them until he gives them back.
        """
        self.drop_the_gone(key)
        if not (leases := self._cache.trainers.get(key)):
            self._sightings.pop(key, None)
            return None
        before = self._sightings.get(key, {})
        self._sightings[key] = {
            name: before[name].update(lease, now) if name in before else Sighting.first(lease, now)
            for name, lease in leases.items()
        }
        ends = []
        for lease in list(leases.values()):
            if (places := self._places_of(key, lease)) is None:
                self._drop(key, trainer(lease))
                if key in self._cache.reward_models and not await self._tell(lease, None, self._unnamed(key, lease)):
                    ends.append(now + AGAIN_SECONDS)
                continue
            expires_at = self._sightings[key][lease.name].expires_at(lease)
            if wants(lease) and expires_at > now:
                ends.append(expires_at)
            wish = Wish(lease, places, expired=expires_at <= now)
            if wish.expired and has(lease) and lease.pods:
                wish = Wish(lease, places, expired=True, gone=not await self._there(lease))
            turn = self._enter(key, wish, now)
            granted = lease.asked if turn.given or (wish.expired and has(lease) and not wish.gone) else None
            if not await self._tell(lease, granted, refusals([turn]).get(lease.run)):
                ends.append(now + AGAIN_SECONDS)
            if turn.look_again_at is not None:
                ends.append(turn.look_again_at)
        return min(ends, default=None)

    def _places_of(self, key: Key, lease: DemandLease) -> frozenset[Place] | None:
        """Of slots that its RewardModel names. What a trainer has it has, whatever became of the spec since."""
        if has(lease) and (before := self._entered.get(key, {}).get(trainer(lease))) is not None:
            return before.places
        mine = self._cache.holdings.get(key)
        return None if mine is None else mine.places_of(lease.slots)

    def _unnamed(self, key: Key, lease: DemandLease) -> str:
        mine = self._cache.holdings.get(key)
        there = {} if mine is None else mine.slots
        missing = next(slot for slot in lease.slots if slot not in there)
        return f"RewardModel {key[1]} names no slot {missing}; it names {', '.join(there) or 'none'}"

    def drop_the_gone(self, key: Key) -> None:
        """Whose Lease was deleted has no GPUs any more: that is what it means."""
        there = {trainer(lease) for lease in self._cache.trainers.get(key, {}).values()}
        for gone in self._entered.get(key, {}).keys() - there:
            self._drop(key, gone)

    def _drop(self, key: Key, who: Owner) -> None:
        if (taker := self._entered.get(key, {}).pop(who, None)) is not None:
            self._book.forget(who)
            self._share(key, taker.places)
            if not self._entered[key]:
                del self._entered[key]

    def _enter(self, key: Key, wish: Wish, now: float) -> Turn:
        before = self._entered[key].get(wish.owner)
        self._entered[key][wish.owner] = wish.taker
        placed, wanting = self._cache.placed.values(), self._cache.wanting
        turns, news = self._book.settle(wish.holding, wish.asks, [], {}, placed, self.takers(), wanting, now)
        if before != wish.taker:
            news |= wish.places
        if news:
            self._share(key, news)
        return turns.get(wish.together, NOT_ASKED)

    async def _there(self, lease: DemandLease) -> bool:
        """Whether one of its pods may have memory."""
        return not (await self._kube.unended_pods(lease.namespace)).isdisjoint(lease.pods)

    async def _tell(self, lease: DemandLease, granted: str | None, refused: str | None) -> bool:
        """Whether it is told; what keeps one Lease from being written keeps no engine from its orders."""
        refused = refused if wants(lease) else None
        if (granted, refused) == (lease.granted, lease.refused):
            return True
        patch = {"metadata": {"annotations": {ANNOTATION_GRANTED: granted, ANNOTATION_REFUSED: refused}}}
        try:
            answer = await self._kube.merge_patch("Lease", lease.namespace, lease.name, patch)
        except NotFound:
            return True
        except ApiError as error:
            log.warning("a Lease is not told what it got lease=%s/%s %s", lease.namespace, lease.name, error)
            return False
        self._cache.put_answered_lease(answer)
        return True
