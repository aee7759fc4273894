"""Which questions to ask now: the tournament of one group, as a state machine without I/O.

It is told when a response arrives or never will, and what was answered, and returns the questions that have become due.
`all` asks a pair as soon as both texts are there, while other responses are still being generated. `circular` does so
for neighbours around the table of `seating`, as far as the budget goes; if someone never comes, the table closes up.
`active` begins with such a circle; when all of it is answered and nobody is awaited, it asks the most telling pairs, in
one or two more rounds, and under order `balanced` a close pair the other way round too. So nothing ever waits for who
will not come.

Responses with equal texts tie, and nobody is asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Final

from genrm_api.comparing import Order, ScheduleKind

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.tournaments.active import most_telling
from genrm_scoring.tournaments.bradley_terry import posterior
from genrm_scoring.tournaments.comparisons import Comparison
from genrm_scoring.tournaments.seating import Question, questions, seats

Pair = tuple[int, int]
"""Two responses by number, the lower one first."""
ACTIVE_SHARE: Final = 0.7
"""Questions over pairs, for `active` without a budget; how well that orders: docs/benchmarks.md."""
ROUNDS: Final = 3


class Tournament:
    """The questions of one group of `players` responses, 0 to `players` - 1.

    `budget` is the most questions in all (under order `both` a pair takes two). `seed` names the group: with the same
    seed the same questions are asked again.

    Raises:
        ConfigurationError: the budget does not even let everyone meet a neighbour.
    """

    def __init__(
        self,
        players: int,
        *,
        order: Order = Order.BALANCED,
        kind: ScheduleKind = ScheduleKind.ALL,
        budget: int | None = None,
        rounds: int | None = None,
        seed: bytes = b"",
    ) -> None:
        self._order, self._kind = order, kind
        self._seat = seats(players, seed)
        self._texts: dict[int, bytes] = {}
        self._lost: set[int] = set()
        self._asked: set[Question] = set()
        self._open: set[Question] = set()
        self._lead = [0] * players  # questions in which a response came first, less those in which it came second
        self._failed: list[Question] = []
        self._comparisons: list[Comparison] = []
        self._rounds = (rounds or ROUNDS) if kind is ScheduleKind.ACTIVE else 1
        self._round = 1
        self._left = _affordable(players, order, kind, budget)  # times that a pair may still be chosen
        self._width = self._circle_width()
        self._wanted = self._circle()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The verdicts so far, in the order in which they came."""
        return tuple(self._comparisons)

    @property
    def failed(self) -> tuple[Question, ...]:
        """The questions that brought no verdict."""
        return tuple(self._failed)

    @property
    def rounds(self) -> int:
        """Rounds begun: how often questions waited for answers, and once more."""
        return self._round

    @property
    def settled(self) -> bool:
        """Nobody is awaited, nothing is open, nothing will be asked any more."""
        if self._open or len(self._texts) + len(self._lost) < len(self._seat):
            return False
        return self._round == self._rounds or not self._left or not self._askable()

    def arrived(self, player: int, text: bytes) -> list[Question]:
        """Response `player` is there; `text` is its digest. Returns the questions that are due now."""
        self._expect(player)
        met = [(min(player, other), max(player, other)) for other in self._texts]
        self._texts[player] = text
        self._comparisons += [Comparison(u, v, 0.5, asked=False) for u, v in met if self._same(u, v)]
        return self._due(pair for pair in met if pair in self._wanted)

    def lost(self, player: int) -> list[Question]:
        """Response `player` will never come."""
        self._expect(player)
        self._lost.add(player)
        self._wanted = self._circle()
        return self._due((u, v) for u, v in self._wanted if u in self._texts and v in self._texts)

    def answered(self, question: Question, preference: float | None) -> list[Question]:
        """A verdict, in [0, 1] for the response shown first; None if the judgement failed."""
        if question not in self._open:
            raise ValueError(f"question {question} is not open: it was never asked, or has been answered")
        if preference is None:
            self._failed.append(question)
        else:
            self._comparisons.append(Comparison(*question, preference))
        self._open.remove(question)
        return self._due(())

    def _expect(self, player: int) -> None:
        if player in self._texts or player in self._lost or not 0 <= player < len(self._seat):
            raise ValueError(f"response {player} is not awaited in a group of {len(self._seat)}")

    def _same(self, u: int, v: int) -> bool:
        return self._texts[u] == self._texts[v]

    def _times(self, u: int, v: int) -> int:
        return ((u, v) in self._asked) + ((v, u) in self._asked)

    def _due(self, pairs: Iterable[Pair]) -> list[Question]:
        new = [(u, v) for u, v in pairs if not self._same(u, v) and not self._times(u, v)]
        now = [question for pair in self._by_seat(new) for question in self._ask(pair)]
        awaited = self._open or len(self._texts) + len(self._lost) < len(self._seat)
        if not awaited and not self.settled:
            self._round += 1
            share = math.ceil(self._left / (self._rounds - self._round + 1))
            # sorted, so that not even rounding tells in which order the answers came
            said = sorted(self._comparisons, key=lambda c: (self._seat[c.first], self._seat[c.second]))
            chosen = most_telling(posterior(len(self._seat), said), self._askable(), share)
            now = [question for pair in chosen for question in self._ask(pair)]
        return now

    def _by_seat(self, pairs: Iterable[Pair]) -> list[Pair]:
        """In an order that the numbers of the responses have no part in."""
        return sorted(pairs, key=lambda pair: sorted(self._seat[u] for u in pair))

    def _askable(self) -> list[Pair]:
        """Pairs with a question left."""
        most = 2 if self._order is Order.BALANCED else 1
        pairs = itertools.combinations(sorted(self._texts), 2)
        return self._by_seat((u, v) for u, v in pairs if not self._same(u, v) and self._times(u, v) < most)

    def _ask(self, pair: Pair) -> list[Question]:
        u, v = pair
        asked = questions(self._order, u, v, self._seat, self._texts[u], self._texts[v])
        if self._times(u, v):
            asked = [(v, u) if (u, v) in self._asked else (u, v)]
        elif self._round > 1 and self._order is Order.BALANCED and self._lead[u] != self._lead[v]:
            asked = [(u, v) if self._lead[u] < self._lead[v] else (v, u)]
        for first, second in asked:
            self._lead[first] += 1
            self._lead[second] -= 1
        self._left -= 1
        self._asked.update(asked)
        self._open.update(asked)
        return asked

    def _circle_width(self) -> int:
        """How far around the table a response meets its neighbours in the first round."""
        n = len(self._seat)
        if self._kind is ScheduleKind.ALL:
            return n
        return max(1, self._left // n if self._rounds == 1 else self._left // (2 * n))

    def _circle(self) -> set[Pair]:
        """Neighbours around the table, without those who will not come."""
        table = sorted((u for u in range(len(self._seat)) if u not in self._lost), key=self._seat.__getitem__)
        return {
            (min(u, table[(at + far) % len(table)]), max(u, table[(at + far) % len(table)]))
            for at, u in enumerate(table)
            for far in range(1, min(self._width, len(table) - 1) + 1)
        }


def _affordable(players: int, order: Order, kind: ScheduleKind, budget: int | None) -> int:
    """How many times a pair may be chosen: the budget over what one time costs."""
    all_pairs = players * (players - 1) // 2
    a_circle = players if players > 2 else all_pairs
    if kind is ScheduleKind.ALL:
        return all_pairs
    if budget is None:
        return a_circle if kind is ScheduleKind.CIRCULAR else max(a_circle, math.ceil(ACTIVE_SHARE * all_pairs))
    questions_each = 2 if order is Order.BOTH else 1
    if budget < a_circle * questions_each:
        raise ConfigurationError(
            "scoring.schedule.budget",
            f"{budget} questions, but a circle of {players} responses takes {a_circle * questions_each}; write at "
            "least that, or remove it",
        )
    return budget // questions_each
