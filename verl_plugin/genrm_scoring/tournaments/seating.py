"""Who is shown first in a question about two responses.

A judge likes one of the two places. If the response with the lower number always came first, that liking would be a
reward for a number. Order `balanced` seats the players of a group around a table, in an order drawn from the group's
seed; of two, the one comes first from whom the way to the other, clockwise, is the shorter one. So each is first in
half of its pairs (with an even number of players, one more or one less, and which is the draw's). It needs to know no
text, so a question can be asked as soon as its two responses exist.

`both` asks both ways round, `hash` throws one coin a pair, made of the two texts, `given` shows the lower number first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from genrm_api.comparing import Order

Question = tuple[int, int]
"""Two responses by number, the first one shown first."""


def numbers(sampled: Sequence[int | None]) -> list[int]:
    """Which number each response has, 0 to n - 1: by when it was sampled, if that is known of all, however they come;
    else in the order in which they came."""
    known = [at for at in sampled if at is not None]
    if len(set(known)) < len(sampled):
        return list(range(len(sampled)))
    return [sorted(known).index(at) for at in known]


def seats(players: int, seed: bytes) -> list[int]:
    """The seat of each player, 0 to `players` - 1: a permutation that anyone with the seed draws again."""
    drawn = sorted(range(players), key=lambda u: hashlib.sha256(b"%d %s" % (u, seed)).digest())
    seat = [0] * players
    for at, player in enumerate(drawn):
        seat[player] = at
    return seat


def questions(order: Order, u: int, v: int, seat: Sequence[int], text_u: bytes, text_v: bytes) -> list[Question]:
    """The questions that one pair takes: two under `both`, else one. The texts may be digests."""
    if order is Order.BOTH:
        return [(u, v), (v, u)]
    if order is Order.GIVEN:
        return [(min(u, v), max(u, v))]
    if order is Order.HASH:
        (lower, a), (higher, b) = sorted([(text_u, u), (text_v, v)])
        heads = hashlib.sha256(hashlib.sha256(lower).digest() + hashlib.sha256(higher).digest()).digest()[0] & 1
        return [(a, b) if heads else (b, a)]
    return [(u, v) if _clockwise(seat[u], seat[v], len(seat)) else (v, u)]


def _clockwise(a: int, b: int, seats_in_all: int) -> bool:
    way = 2 * ((b - a) % seats_in_all)
    if way == seats_in_all:  # opposite each other: every second pair the other way
        return (min(a, b) % 2 == 0) == (a < b)
    return way < seats_in_all
