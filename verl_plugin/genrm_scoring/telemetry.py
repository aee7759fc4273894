"""What a step's scores say about the judge; pure.

A reward that has gone wrong seldom fails loudly: answers are cut off, long responses are preferred, judge and rule
drift apart, all responses to a prompt get the same score. `summarised` makes numbers of a step's samples that show it,
and `Jumps` warns once when one of them leaves its habit.

A score may be fine while much of what it was made of failed: a tournament stands with half of its verdicts, a mixture
with the number that a policy wrote for a term. So judgements are counted beside the scores, and each term by itself.

A rate of nothing, and a correlation without spread, is `None`: it is not known, and not 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from genrm_scoring.failure import mean
from genrm_scoring.normalise import SAME
from genrm_scoring.tournaments.anchor import Anchored
from genrm_scoring.types import Judgement, Outcome, Score, ScoreSource

LENGTHS: Final = (0, 256, 1024, 4096, 16384)
"""Where buckets of response lengths begin, in characters: the same in every step, so that steps can be compared."""
PASSED: Final = 0.5
"""From this number on a rule counts as passed when judges are compared with it."""
HABIT: Final = 5
"""Steps before a number has a habit that it can leave; of at most `LONGEST_HABIT` steps before."""
LONGEST_HABIT: Final = 64
LEAST_JUMP: Final = 0.1
DEVIATIONS: Final = 4
_TROUBLES: Final = {
    "parse_failed": Outcome.PARSE_FAILED,
    "truncated": Outcome.TRUNCATED,
    "timed_out": Outcome.TIMEOUT,
}
"""Outcomes whose share is a number of its own, by what it is called."""

Outcomes = Mapping[Outcome, int]


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample of a step. `group` is its prompt; `length` is that of the response, in characters."""

    group: str
    length: int
    score: Score


@dataclass(frozen=True, slots=True)
class Compared:
    """What a tournament over one group met: pairs with a verdict, ties among them, circles of three.

    `both_ways` of the pairs were asked in both orders, and `disagreements` of these named two winners. `questions` were
    asked, in `rounds`; `failed` of them brought no verdict. `first_preferred` is the mean preference for the response
    that is read first, and `first_bias` what rule bt makes of it, in logits.
    """

    pairs: int
    ties: int
    cycles: int
    both_ways: int = 0
    disagreements: int = 0
    questions: int = 0
    rounds: int = 0
    failed: Outcomes = field(default_factory=dict)
    first_preferred: float | None = None
    first_bias: float | None = None
    anchored: Anchored | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares, 0 to 1, of `count` samples whose responses are of about one length."""

    count: int
    failed: float
    truncated: float
    timed_out: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step in numbers.

    `outcomes` counts every outcome of a score, `failed` those that are failures (`Score.failed`). `length_correlation`
    is Pearson's, of score and length, each less its group's mean: what of a group's advantages length explains.
    `agreement` is, for each term of a judge and each of a rule, "judge/rule", the chance that a response which passes
    the rule has a higher number from the judge than one that fails, ties counting half (the area under the ROC curve):
    1 agrees, 0.5 is chance. `zero_spread` is the share of groups whose scores are all equal, which teach nothing.
    `tie_rate` is by pairs, `cycle_rate` the share of tournaments with a cycle in them; `disagreement_rate` is by pairs
    that were asked in both orders, `first_preferred` and `first_bias` are means over tournaments. `judgements` are
    outcomes by who was asked, a term or a RewardModel, and `terms` those of a fleet's terms.
    """

    count: int
    failed: int
    outcomes: Outcomes
    by_length: Mapping[int, Rates]
    """By where the bucket begins; empty ones are left out."""
    length_correlation: float | None
    agreement: Mapping[str, float | None]
    zero_spread: float | None
    tie_rate: float | None
    cycle_rate: float | None
    disagreement_rate: float | None = None
    first_preferred: float | None = None
    first_bias: float | None = None
    judgements: Mapping[str, Outcomes] = field(default_factory=dict)
    terms: Mapping[str, Outcomes] = field(default_factory=dict)

    def rates(self) -> dict[str, float]:
        """The known numbers by the names that logs and warnings call them."""
        judged = sum((Counter(outcomes) for outcomes in self.judgements.values()), Counter[Outcome]())
        found: dict[str, float | None] = {
            "failed": _share(self.failed, self.count),
            **{name: _share(self.outcomes.get(of, 0), self.count) for name, of in _TROUBLES.items()},
            "judgements_failed": _failed_share(judged),
            **{f"judgements_{name}": _share(judged[of], judged.total()) for name, of in _TROUBLES.items()},
            "length_correlation": self.length_correlation,
            "zero_spread": self.zero_spread,
            "tie_rate": self.tie_rate,
            "cycle_rate": self.cycle_rate,
            "disagreement_rate": self.disagreement_rate,
            "first_preferred": self.first_preferred,
            "first_bias": self.first_bias,
        }
        found |= {f"agreement/{pair}": value for pair, value in self.agreement.items()}
        found |= {f"term_failed/{name}": _failed_share(outcomes) for name, outcomes in self.terms.items()}
        if len(self.judgements) > 1:  # of one alone that is `judgements_failed`
            found |= {f"judgements_failed/{name}": _failed_share(of) for name, of in self.judgements.items()}
        return {name: value for name, value in found.items() if value is not None}


def asked(judgement: Judgement) -> list[Outcome]:
    """How each question of a judgement ended; votes are questions of their own."""
    return [one.outcome for one in judgement.votes or (judgement,)]


def summarised(
    step: Sequence[Scored], tournaments: Sequence[Compared] = (), judgements: Mapping[str, Outcomes] | None = None
) -> StepReport:
    pairs = sum(one.pairs for one in tournaments)
    twice = sum(one.both_ways for one in tournaments)
    return StepReport(
        count=len(step),
        failed=sum(one.score.failed for one in step),
        outcomes=Counter(one.score.outcome for one in step),
        by_length=_by_length(step),
        length_correlation=_length_correlation(step),
        agreement=_agreement(step),
        zero_spread=_zero_spread(step),
        tie_rate=_share(sum(one.ties for one in tournaments), pairs),
        cycle_rate=_share(sum(one.cycles > 0 for one in tournaments), len(tournaments)),
        disagreement_rate=_share(sum(one.disagreements for one in tournaments), twice),
        first_preferred=_known_mean(one.first_preferred for one in tournaments),
        first_bias=_known_mean(one.first_bias for one in tournaments),
        judgements=dict(judgements or {}),
        terms=_terms(step),
    )


def _terms(step: Iterable[Scored]) -> dict[str, Counter[Outcome]]:
    counts: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for one in step:
        for term in one.score.terms:
            counts[term.name][term.outcome] += 1
    return dict(counts)


def _failed_share(outcomes: Outcomes) -> float | None:
    """Of those that were asked for: a closed gate is no failure, and no success."""
    tried = sum(outcomes.values()) - outcomes.get(Outcome.SKIPPED, 0)
    return _share(tried - outcomes.get(Outcome.OK, 0), tried)


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _by_length(step: Iterable[Scored]) -> dict[int, Rates]:
    buckets: dict[int, list[Score]] = defaultdict(list)
    for one in step:
        buckets[max(start for start in LENGTHS if start <= one.length)].append(one.score)
    return {
        start: Rates(
            len(scores),
            sum(score.failed for score in scores) / len(scores),
            sum(score.outcome is Outcome.TRUNCATED for score in scores) / len(scores),
            sum(score.outcome is Outcome.TIMEOUT for score in scores) / len(scores),
        )
        for start, scores in sorted(buckets.items())
    }


def _groups(step: Iterable[Scored]) -> list[list[tuple[float, int]]]:
    """Scores that somebody gave, with the lengths, group by group."""
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for one in step:
        if one.score.value is not None and one.score.source.is_own:
            groups[one.group].append((one.score.value, one.length))
    return list(groups.values())


def _length_correlation(step: Iterable[Scored]) -> float | None:
    scores: list[float] = []
    lengths: list[float] = []
    for group in _groups(step):
        middle, long = mean([value for value, _ in group]), mean([length for _, length in group])
        scores += [value - middle for value, _ in group]
        lengths += [length - long for _, length in group]
    return correlation(scores, lengths)


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's, of numbers whose means are 0; `None` where one of them has no spread."""
    largest = max(map(abs, xs), default=0.0), max(map(abs, ys), default=0.0)
    if min(largest) < SAME:
        return None
    xs, ys = [x / largest[0] for x in xs], [y / largest[1] for y in ys]  # so that no square overflows
    squares = math.fsum(x * x for x in xs) * math.fsum(y * y for y in ys)
    return math.fsum(x * y for x, y in zip(xs, ys, strict=True)) / math.sqrt(squares)


def _agreement(step: Iterable[Scored]) -> dict[str, float | None]:
    passed: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for one in step:
        given = [term for term in one.score.terms if term.raw is not None]
        for rule in given:
            for judge in given:
                if rule.source is ScoreSource.RULE and judge.source is ScoreSource.JUDGE:
                    assert rule.raw is not None and judge.raw is not None
                    passed[judge.name, rule.name][rule.raw >= PASSED].append(judge.raw)
    return {f"{judge}/{rule}": above(bad, good) for (judge, rule), (bad, good) in sorted(passed.items())}


def above(low: Sequence[float], high: Sequence[float]) -> float | None:
    """The chance that a number of `high` is larger than one of `low`, ties counting half (Mann and Whitney's U)."""
    if not low or not high:
        return None
    ranked = sorted([(value, 0) for value in low] + [(value, 1) for value in high])
    wins, below, at = 0.0, 0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        of_high = sum(side for _, side in ranked[at:end])
        of_low = end - at - of_high
        wins += of_high * (below + of_low / 2)
        below += of_low
        at = end
    return wins / (len(low) * len(high))


def _zero_spread(step: Iterable[Scored]) -> float | None:
    groups = [group for group in _groups(step) if len(group) > 1]
    equal = sum(max(value for value, _ in group) - min(value for value, _ in group) < SAME for group in groups)
    return _share(equal, len(groups))


@dataclass
class Jumps:
    """Warns when a number of the reports leaves its habit, once for each jump.

    A jump is a step away from the mean of the steps before, by a tenth at least and by four of their standard
    deviations. What came before it is then forgotten, so that a number that stays on its new level is not warned of
    again, and one that moves on later is.
    """

    _habits: dict[str, list[float]] = field(default_factory=dict)

    def look(self, report: StepReport) -> list[str]:
        """Sentences about what jumped in this step."""
        found = []
        for name, value in report.rates().items():
            habit = self._habits.setdefault(name, [])
            if len(habit) >= HABIT:
                middle = mean(habit)
                deviation = math.sqrt(mean([(one - middle) ** 2 for one in habit]))
                if abs(value - middle) > max(LEAST_JUMP, DEVIATIONS * deviation):
                    found.append(
                        f"{name} is {value:.2f} in this step of {report.count} samples, and was {middle:.2f} ± "
                        f"{deviation:.2f} in the {len(habit)} before"
                    )
                    habit.clear()
            habit.append(value)
            del habit[:-LONGEST_HABIT]
        return found
