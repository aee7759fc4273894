"""Steps of a training run replayed against the operator's decisions, with a clock that is a number.

What is decided is decided by the real code: the run's part by `Forecast`, the operator's by `demand` and by what its
memory has learned of wakes. Made up are the steps, and engines that take so long to wake and to sleep.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from genrm_api.effective import effective_spec
from genrm_api.leases import DemandLease, Phase, Sighting
from genrm_api.rewardmodel import RewardModel
from genrm_operator.demand import Desired, demand
from genrm_operator.memory import Memory
from genrm_scoring.forecast import Forecast

SLEEP_SECONDS: Final = 1.0
TTL_SECONDS: Final = 1 << 30
"""Nobody dies here."""


class Policy(enum.StrEnum):
    PREWAKE = "pre-wake"
    ON_DEMAND = "wake on demand"
    NEVER = "never sleep"


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds: the rollout, its first response (from the step's beginning), the last judgement after the rollout, and
    the update of the policy."""

    rollout: float
    first: float
    tail: float
    update: float

    @property
    def scored(self) -> float:
        return self.rollout + self.tail


def trace(steps: int, seed: int) -> list[Step]:
    """Rollouts of 60 to 120 s and updates of 30 to 60 s, each a little longer or shorter than the one before.

    A batch has short responses: its first one is there after a third of the rollout, give or take a twentieth.
    """
    rng = random.Random(seed)
    rollout, update = rng.uniform(60, 120), rng.uniform(30, 60)
    found = []
    for _ in range(steps):
        rollout = min(max(rollout * rng.uniform(0.95, 1.05), 60), 120)
        update = min(max(update * rng.uniform(0.97, 1.03), 30), 60)
        found.append(Step(rollout, rollout / 3 * rng.uniform(0.95, 1.05), rng.uniform(1, 3), update))
    return found


@dataclass
class Replay:
    """What came of it. `awake` are spans of the clock in which the engines held their memory."""

    policy: Policy
    wake_seconds: float
    added: list[float] = field(default_factory=list)
    """To each step: from its first response to the first moment at which it could be judged."""
    awake: list[tuple[float, float]] = field(default_factory=list)
    needed: list[tuple[float, float]] = field(default_factory=list)
    """From the first response of each step to its last judgement."""

    @property
    def seconds(self) -> float:
        return self.needed[-1][1]

    def idle_seconds(self) -> float:
        return self.seconds - sum(end - begin for begin, end in self.needed)

    def given_back(self) -> float:
        """The share of the idle seconds in which the memory was free."""
        free = self.seconds - sum(min(end, self.seconds) - begin for begin, end in self.awake)
        return free / self.idle_seconds()

    def possible(self) -> float:
        """The same of somebody who knows the future: asleep but for sleeps and wakes."""
        gaps = [begin - end for (_, end), (begin, _) in zip([(0.0, 0.0), *self.needed], self.needed, strict=False)]
        return sum(max(gap - SLEEP_SECONDS - self.wake_seconds, 0.0) for gap in gaps) / self.idle_seconds()


class Operator:
    """One model, and what the operator knows of it."""

    def __init__(self, replay: Replay) -> None:
        self._rm = RewardModel.model_validate(
            {"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"model": {"uri": "hf://a/b"}}}
        )
        self._lives = effective_spec(self._rm).lifecycle
        self._memory = Memory()
        self._lease = DemandLease("rl", "l", "judge", "run", Phase.IDLE, TTL_SECONDS, "0")
        self._sighting = Sighting.first(self._lease, 0.0)
        self._replay = replay
        self._since: float | None = None
        """When the memory was taken."""
        self.busy_until = 0.0
        self.next_look = math.inf

    def hear(self, phase: Phase, needed_in: float | None, now: float) -> None:
        self._lease = DemandLease("rl", "l", "judge", "run", phase, TTL_SECONDS, str(now), needed_in=needed_in)
        self._sighting = self._sighting.update(self._lease, now)
        self.look(now)

    def look(self, now: float) -> None:
        past = self._memory.past(self._rm)
        wants = demand(self._lives, [self._lease], {"l": self._sighting}, now, past)
        self._memory.wants = (wants, None)
        self.next_look = math.inf if wants.next_expiry is None else max(wants.next_expiry, now)
        if now < self.busy_until:
            self.next_look = min(self.next_look, self.busy_until)
            return
        if wants.desired is Desired.AWAKE and self._since is None:
            self._since, self.busy_until = now, now + self._replay.wake_seconds
            self._memory.wakes.append(self._replay.wake_seconds)
        elif wants.desired is Desired.ASLEEP and self._since is not None:
            self.busy_until = now + SLEEP_SECONDS
            self._replay.awake.append((self._since, self.busy_until))
            self._since = None
        self.next_look = min(self.next_look, self.busy_until if now < self.busy_until else math.inf)

    def pass_time(self, until: float) -> None:
        while self.next_look <= until:
            self.look(self.next_look)

    def serves_at(self, now: float) -> float:
        """When a response that is there now can be judged, with what is known now."""
        assert self._since is not None, "somebody asks for it"
        return max(now, self.busy_until)

    def end(self, now: float) -> None:
        if self._since is not None:
            self._replay.awake.append((self._since, now))


def replay(policy: Policy, steps: Sequence[Step], wake_seconds: float) -> Replay:
    """One run, one model. A judgement that waits moves the rest of its step: nothing is made up for."""
    made = Replay(policy, wake_seconds)
    operator, forecast, now = Operator(made), Forecast(), 0.0
    if policy is Policy.NEVER:
        operator.hear(Phase.SCORING, None, 0.0)
        operator.busy_until = 0.0
    paused = None
    for step in steps:
        first = now + step.first
        operator.pass_time(first)
        if paused is not None:
            forecast.learn(first - paused)
        if policy is not Policy.NEVER:
            operator.hear(Phase.SCORING, None, first)
        late = operator.serves_at(first) - first
        made.added.append(late)
        operator.pass_time(first + late)
        paused = now + step.scored + late
        made.needed.append((first, paused))
        operator.pass_time(paused)
        needed_in = forecast.needed_in() if policy is Policy.PREWAKE else None
        if policy is not Policy.NEVER:
            operator.hear(Phase.IDLE if needed_in is None else Phase.PREWAKE, needed_in, paused)
        now = paused + step.update
        operator.pass_time(now)
    operator.end(made.seconds)
    return made


def p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.95) - 1]


WAKES: Final = (3.0, 10.0, 30.0)
LEARNING: Final = 2
"""Steps of which a run, and the operator, still learn how long everything takes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One policy with one wake, over many runs."""

    policy: Policy
    wake_seconds: float
    added_p95: float
    added_most: float
    given_back: float
    possible: float

    @classmethod
    def of(cls, replays: Sequence[Replay]) -> Row:
        added = [seconds for made in replays for seconds in made.added[LEARNING:]]
        return cls(
            replays[0].policy,
            replays[0].wake_seconds,
            p95(added),
            max(added),
            sum(made.given_back() for made in replays) / len(replays),
            sum(made.possible() for made in replays) / len(replays),
        )

    def __str__(self) -> str:
        added = f"seconds added to a step: p95 {self.added_p95:6.2f}, most {self.added_most:6.2f}"
        given_back = f"idle seconds given back: {self.given_back:6.1%} (with foresight {self.possible:6.1%})"
        return f"wake {self.wake_seconds:>4g} s  {self.policy:<15}  {added}  {given_back}"


def rows(steps: int, runs: int) -> list[Row]:
    traces = [trace(steps, seed) for seed in range(runs)]
    return [Row.of([replay(policy, t, wake) for t in traces]) for wake in WAKES for policy in Policy]
