"""The responses to one prompt, judged against each other while they arrive.

A `Group` is told of each response as soon as it is there, asks what has become due (`tournaments`), and gives every
member its own score when the tournament is over. Members come in any order and from anywhere in one event loop; each
waits only for the last verdict. A sibling that never comes hangs nobody: when none has come for `patience` seconds, or
some still come after `gathering.LONGEST` times that, the missing ones are given up, and the table closes up.

A group is entered like a file: what it has asked ends with the block.

    async with Group(scoring, scorer.ask, players=4, patience=300) as group:
        scores = await asyncio.gather(*(group.score(i, sample) for i, sample in enumerate(samples)))
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from genrm_api.comparing import (
    Aggregate,
    Compat,
    Normalise,
    ScheduleKind,
    ScoringMode,
    default_aggregate,
    default_order,
)
from genrm_api.scoring import Scoring

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.failure import settle, whole_enough
from genrm_scoring.gathering import while_they_come
from genrm_scoring.normalise import normalise
from genrm_scoring.tournaments import Comparison, Standings, aggregate, rm_gallery
from genrm_scoring.tournaments.anchor import Anchored, without_anchor
from genrm_scoring.tournaments.schedule import Tournament
from genrm_scoring.tournaments.seating import Question as Pairing
from genrm_scoring.types import Judgement, Outcome, Question, Sample, Score, ScoreSource

Ask = Callable[[Question], Awaitable[Judgement]]
"""Asks which of two responses is better; `Scorer.ask` with a pairwise judge. Never raises for one that fails."""

THREAD_ABOVE: Final = 12
"""Responses. Rule dgr of more than these may compute for as long as requests should not have to wait."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a group when its tournament is over, for the logs of a step and for who asks how it went.

    `questions` were asked, in `rounds`; `failed` counts by outcome those that brought no verdict. `anchored` is there
    if a text played along that is not trained. `comparisons` are the verdicts, by the numbers of the responses; an
    anchor's is the one after the last.
    """

    standings: Standings
    questions: int
    rounds: int
    failed: dict[Outcome, int]
    anchored: Anchored | None = None
    comparisons: tuple[Comparison, ...] = ()


Reported = Callable[[Report], None]


def tournament_rule(scoring: Scoring) -> Aggregate:
    """How verdicts become scores.

    Raises:
        ConfigurationError: the rule would punish who met the strong, because not all pairs are asked.
    """
    all_pairs = scoring.schedule is None or scoring.schedule.kind is ScheduleKind.ALL
    rule = scoring.aggregate or default_aggregate(scoring.schedule)
    if not all_pairs and rule not in (Aggregate.BT, Aggregate.ELO):
        raise ConfigurationError(
            "scoring.aggregate",
            f"{rule} with a schedule that does not ask all pairs: who meets the strong would lose by it; write bt, "
            "or schedule.kind: all",
        )
    return rule


@dataclass(slots=True)
class Group:
    """The tournament of `players` responses to one prompt, numbered from 0.

    `seed` names the group: with the same seed the same pairs are seated in the same way. `anchor` is a text that plays
    along and is not trained, as one more player. Without `patience` whoever is missing has to be reported lost.

    Raises:
        ConfigurationError: `scoring` describes no tournament that can be held.
    """

    scoring: Scoring
    ask: Ask
    players: int
    patience: float | None
    seed: bytes = b""
    anchor: Sample | None = None
    report: Report | None = None
    """Once the tournament is over."""
    _tournament: Tournament = field(init=False)
    _rule: Aggregate = field(init=False)
    _samples: dict[int, Sample] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _ended: dict[int, list[Judgement]] = field(default_factory=dict)
    """Of each player, the questions about it that brought no verdict."""
    _questions: int = 0
    _arrival: asyncio.Event = field(default_factory=asyncio.Event)
    _scores: asyncio.Future[tuple[Score, ...]] = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _over: bool = False

    def __post_init__(self) -> None:
        schedule = self.scoring.schedule
        self._rule = tournament_rule(self.scoring)
        self._tournament = Tournament(
            self.players + (self.anchor is not None),
            order=self.scoring.order or default_order(ScoringMode.PAIRWISE, self.scoring.compat),
            kind=ScheduleKind.ALL if schedule is None else schedule.kind,
            budget=None if schedule is None else schedule.budget,
            rounds=None if schedule is None else schedule.rounds,
            seed=self.seed,
        )

    async def __aenter__(self) -> Self:
        self._scores = asyncio.get_running_loop().create_future()
        if self.anchor is not None:
            self._arrived(self.players, self.anchor)
        if self.patience is not None:
            self._begin(self._give_up_the_missing(self.patience))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scores.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """What fails in it fails all who wait for a score, instead of nobody."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not self._scores.done():
                self._scores.set_exception(error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def score(self, player: int, sample: Sample) -> Score:
        """Enter a response and wait for its score; one that failed has no number, and says why.

        Raises:
            ValueError: no such response is awaited.
            FailureRaised: a response to this prompt failed under policy raise.
        """
        if not self.awaits(player):
            raise ValueError(f"response {player} is not awaited in a group of {self.players}")
        self._arrived(player, sample)
        return (await asyncio.shield(self._scores))[player]

    @property
    def is_over(self) -> bool:
        """Whether all scores are there, or never will be."""
        return self._scores.done()

    async def wait(self) -> None:
        """Wait until it is over, whatever came of it."""
        await asyncio.wait([self._scores])

    def awaits(self, player: int) -> bool:
        return 0 <= player < self.players and player not in self._samples and player not in self._lost

    def lost(self, player: int) -> None:
        """Response `player` will never come."""
        self._lost.add(player)
        self._arrival.set()
        self._ask(self._tournament.lost(player))

    def _arrived(self, player: int, sample: Sample) -> None:
        self._samples[player] = sample
        self._arrival.set()
        self._ask(self._tournament.arrived(player, hashlib.sha256(sample.response.encode(errors="replace")).digest()))

    async def _give_up_the_missing(self, patience: float) -> None:
        await while_they_come(self._arrival, lambda: not self._missing(), patience)
        for player in self._missing():
            self.lost(player)

    def _missing(self) -> list[int]:
        return [player for player in range(self.players) if self.awaits(player)]

    def _ask(self, pairings: Sequence[Pairing]) -> None:
        for pairing in pairings:
            self._questions += 1
            self._begin(self._judge(pairing))
        if self._tournament.settled and not self._over:
            self._over = True
            self._begin(self._finish())

    async def _judge(self, pairing: Pairing) -> None:
        first, second = (self._samples[player] for player in pairing)
        met = self.anchor if self.players in pairing else None
        judgement = await self.ask(about(met, first, second))
        if judgement.verdict is None:
            for player in pairing:
                self._ended.setdefault(player, []).append(judgement)
        self._ask(self._tournament.answered(pairing, judgement.verdict.value if judgement.verdict else None))

    async def _finish(self) -> None:
        players = self.players + (self.anchor is not None)
        # In an order of their own: not even rounding is to tell which answer came first.
        said = sorted(self._tournament.comparisons, key=lambda c: (c.first, c.second, c.preference))
        compute: Callable[[], Standings] = partial(aggregate, self._rule, players, said)
        if self.scoring.compat is Compat.RM_GALLERY:
            compute = partial(rm_gallery.standings, self._rule, players, said, self._coins)
        long = self._rule is Aggregate.DGR and (players > THREAD_ABOVE or self.scoring.compat is not None)
        standings = await asyncio.to_thread(compute) if long else compute()
        anchored = without_anchor(standings) if self.anchor is not None else None
        failed = Counter(j.outcome for ended in self._ended.values() for j in ended)
        each = {outcome: count // 2 for outcome, count in failed.items()}  # a question is about two
        self.report = Report(standings, self._questions, self._tournament.rounds, each, anchored, tuple(said))
        found = anchored.scores if anchored is not None else standings.scores
        scores = whole_enough(settle(normalised(self.scoring, found, self._without), self.scoring.on_failure))
        if not self._scores.done():
            self._scores.set_result(scores)

    @property
    def _coins(self) -> int:
        """What the coins of ties are drawn from: of each prompt others, and the same ones when it is judged again."""
        drawn = hashlib.sha256(b"%d %s" % (self.scoring.sampling.seed or 0, self.seed)).digest()
        return int.from_bytes(drawn[:8])

    def _without(self, player: int) -> Score:
        """Of a response about which nothing was said."""
        if player in self._lost:
            return Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, detail="the response never came")
        if ended := self._ended.get(player):
            return failed_like(ended)
        return Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, detail="there was nobody to compare it with")


def about(anchor: Sample | None, *samples: Sample) -> Question:
    """The question about responses of which one may be the anchor. One that is the reference itself is not shown beside
    it as what is right: the judge would recognise and prefer it."""
    question = Question.about(*samples)
    if anchor is None or anchor.response != question.reference:
        return question
    return replace(question, reference=None, ground_truth=None)


def normalised(scoring: Scoring, found: Sequence[float | None], without: Callable[[int], Score]) -> list[Score]:
    """The standings of a group as scores; `without` is asked for those that have no number."""
    scaled = iter(normalise(scoring.normalise or Normalise.NONE, [value for value in found if value is not None]))
    return [
        without(player) if value is None else Score(next(scaled), Outcome.OK, ScoreSource.JUDGE)
        for player, value in enumerate(found)
    ]


def failed_like(ended: Sequence[Judgement]) -> Score:
    """Of a response of which every judgement failed: as most of them did."""
    counts = Counter(judgement.outcome for judgement in ended)
    outcome = max(Outcome, key=lambda outcome: counts[outcome])
    detail = min(judgement.detail for judgement in ended if judgement.outcome is outcome)
    return Score(None, outcome, ScoreSource.DROPPED, detail=f"all {len(ended)} judgements failed, like: {detail}")
