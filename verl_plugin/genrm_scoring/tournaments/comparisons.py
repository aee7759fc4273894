"""What was said about the pairs of one group, and the table that comes of it.

A *comparison* is the verdict on one question about two responses: who was shown first, and how far the judge prefers
that one. 1 is a win, 0 a loss, 0.5 a tie; a probability read from log-probabilities lies anywhere between. A pair may
have none (never asked, or the judgement failed), one, or several (both ways round, votes).

`tally` reads them into one *margin* a pair: the mean over the two ways round of the mean over each way's verdicts, so
two hard verdicts that contradict each other are a tie and a lost vote tilts nothing. Margins are integers, a million to
a win. Sums and comparisons of integers are exact, so no score depends on how responses are numbered or which verdict
came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

WIN: Final = 1_000_000
"""The margin of a pair that one response wins without doubt."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One verdict on the responses with numbers `first` and `second`, shown in this order.

    `preference` for the first one is in [0, 1]. `asked` is false for what is known without a judge (the texts are
    equal): it counts as a verdict, but says nothing of how the judge judges.

    Raises:
        ValueError: the two are one, or the preference is no number in [0, 1].
    """

    first: int
    second: int
    preference: float
    asked: bool = True

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise ValueError(f"comparison of response {self.first} with itself; a pair has two")
        if not 0 <= self.preference <= 1:
            raise ValueError(
                f"comparison ({self.first}, {self.second}): preference {self.preference}; it must be in [0, 1]"
            )


@dataclass(frozen=True, slots=True)
class Tally:
    """The verdicts of one group, counted.

    `margins[u][v]` is how far u was preferred to v, in [-WIN, WIN]; it is there exactly if the pair has a verdict, and
    `margins[v][u]` is its negative. `pairs` have a verdict; of these `ties` have margin 0 although they were asked, and
    `identical` were not asked. `both_ways` were asked both ways round, `disagreements` of them named two winners.
    `first_preferred` is the mean preference for who was shown first: 0.5 if order is balanced and means nothing to the
    judge. `circular_triads` counts the triples a > b > c > a (Kendall and Babington Smith, Biometrika 1940).
    """

    margins: tuple[dict[int, int], ...]
    pairs: int
    ties: int
    identical: int
    both_ways: int
    disagreements: int
    first_preferred: float | None
    circular_triads: int

    @property
    def players(self) -> int:
        return len(self.margins)


def tally(players: int, comparisons: Sequence[Comparison]) -> Tally:
    """Count the verdicts of a group with responses 0 to `players` - 1.

    Raises:
        ValueError: a comparison names a response that the group does not have.
    """
    ways: dict[tuple[int, int], list[int]] = {}
    asked: set[tuple[int, int]] = set()
    for comparison in comparisons:
        pair = comparison.first, comparison.second
        if min(pair) < 0 or max(pair) >= players:
            raise ValueError(f"comparison {pair}: a group of {players} has responses 0 to {players - 1}")
        ways.setdefault(pair, []).append(round((2 * comparison.preference - 1) * WIN))
        if comparison.asked:
            asked.add((min(pair), max(pair)))
    margins: tuple[dict[int, int], ...] = tuple({} for _ in range(players))
    both_ways = disagreements = ties = 0
    for u, v in sorted({(min(pair), max(pair)) for pair in ways}):
        there, back = ways.get((u, v), []), ways.get((v, u), [])
        if there and back:
            both_ways += (u, v) in asked
            disagreements += sum(there) * sum(back) > 0
            margin = _rounded(sum(there) * len(back) - sum(back) * len(there), 2 * len(there) * len(back))
        else:
            margin = _rounded(sum(there) - sum(back), len(there) + len(back))
        margins[u][v], margins[v][u] = margin, -margin
        ties += margin == 0 and (u, v) in asked
    judged = sum(map(len, margins)) // 2
    said = [round(c.preference * WIN) for c in comparisons if c.asked]
    return Tally(
        margins=margins,
        pairs=judged,
        ties=ties,
        identical=judged - len(asked),
        both_ways=both_ways,
        disagreements=disagreements,
        first_preferred=sum(said) / (WIN * len(said)) if said else None,
        circular_triads=_circular_triads(margins),
    )


def _rounded(total: int, among: int) -> int:
    """The nearest integer to total / among, halves to the even one: the same seen from either response."""
    whole, rest = divmod(total, among)
    return whole + (2 * rest > among or (2 * rest == among and whole % 2 == 1))


def _circular_triads(margins: Iterable[dict[int, int]]) -> int:
    beats = [sum(1 << v for v, margin in row.items() if margin > 0) for row in margins]
    beaten_by = [0] * len(beats)
    for u, mask in enumerate(beats):
        for v in range(len(beats)):
            if mask >> v & 1:
                beaten_by[v] |= 1 << u
    arcs = ((u, v) for u, mask in enumerate(beats) for v in range(len(beats)) if mask >> v & 1)
    return sum((beats[v] & beaten_by[u]).bit_count() for u, v in arcs) // 3
