"""All responses of a group in one question: in which orders they are shown, and what the rankings say.

The first order is by the texts' hashes, which nobody chose, or as they were sampled, which a judge who favours the top
rewards. Further votes show it turned and reversed: every second one
is the reverse of the one before, so that a judge who favours the top, or the end, evenly along the list, favours nobody
over two votes; each further two start elsewhere. Equal texts are shown once and share what is said of them.

A ranking says something about every pair: it becomes comparisons, and any rule of a tournament applies. By win rate
that is the Borda count, the mean share of the others that a response is ranked above, in [0, 1].
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from genrm_api.comparing import Order

from genrm_scoring.tournaments.comparisons import Comparison


def presentations(texts: Sequence[bytes], votes: int, order: Order = Order.HASH) -> list[tuple[int, ...]]:
    """In which order each vote shows the responses (by number; of equal texts, the lowest). `texts` may be digests,
    `order` is `hash` or `given`.

    A group without two different texts takes no question: [].
    """
    shown = {text: u for u, text in reversed(list(enumerate(texts)))}
    if len(shown) < 2:
        return []
    if order is Order.GIVEN:
        first = tuple(sorted(shown.values()))
    else:
        first = tuple(shown[text] for text in sorted(shown, key=lambda text: hashlib.sha256(text).digest()))
    turns = -(-votes // 2)
    found = []
    for vote in range(votes):
        start = vote // 2 * len(first) // turns
        turned = first[start:] + first[:start]
        found.append(turned[::-1] if vote % 2 else turned)
    return found


def compared(texts: Sequence[bytes], shown: Sequence[int], ranking: Sequence[int]) -> list[Comparison]:
    """What one ranking says of all pairs; `ranking` holds places in `shown`, the best first.

    Raises:
        ValueError: the ranking is not one of exactly the responses that were shown.
    """
    if sorted(ranking) != list(range(len(shown))):
        raise ValueError(f"ranking {list(ranking)} of {len(shown)} responses; it must hold 0 to {len(shown) - 1} once")
    rank = {texts[shown[place]]: at for at, place in enumerate(ranking)}
    place = {texts[u]: at for at, u in enumerate(shown)}
    found = []
    for u, v in itertools.combinations(range(len(texts)), 2):
        if texts[u] == texts[v]:
            found.append(Comparison(u, v, 0.5, asked=False))
        elif place[texts[u]] < place[texts[v]]:
            found.append(Comparison(u, v, float(rank[texts[u]] < rank[texts[v]])))
        else:
            found.append(Comparison(v, u, float(rank[texts[v]] < rank[texts[u]])))
    return found
