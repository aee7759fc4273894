"""Which pods are deleted so that better ones come: pure.

A pod that started with other weights than its model's will never serve (`pinning`), nor will one whose engine does not
wake, or computes other scores than those like it. Their successors may be no better, so it is done seldom, and between
two times the status says what is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from genrm_operator.observed import Pod

MOST_REPLACED: Final = 3
REPLACED_SECONDS: Final = 600.0
"""In this time at most so many pods of one model."""


def room(past: deque[float], now: float) -> int:
    """How many more may be deleted now; `past` (monotonic seconds, when others were) loses what no longer counts."""
    while past and past[0] <= now - REPLACED_SECONDS:
        past.popleft()
    return max(MOST_REPLACED - len(past), 0)


def unfit(pods: Iterable[Pod], failed: Mapping[str, int], most: int) -> list[Pod]:
    """The pods that were tried often enough, by name; `failed` is how often, by uid."""
    found = (p for p in pods if not p.deleting and p.busy is None and failed.get(p.uid, 0) >= most)
    return sorted(found, key=lambda pod: pod.name)
