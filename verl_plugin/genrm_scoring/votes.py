"""Several answers to one question, and what they come to: `spec.scoring.votes`. Pure.

A vote that failed is not left out in silence, and not made up for: the question as a whole has a verdict only if more
than half of its votes have one, it says how many had (`votes`, `votes_failed`), and otherwise it failed as most of its
failed votes did. Which vote came back first changes nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from genrm_api.judging import Combine

from genrm_scoring.types import Judgement, Outcome, Verdict


def combined(votes: Sequence[Judgement], how: Combine) -> Judgement:
    """One judgement out of those of one question, of which there is at least one."""
    verdicts = [vote.verdict for vote in votes if vote.verdict is not None]
    failed = [vote for vote in votes if vote.verdict is None]
    won = 2 * len(verdicts) > len(votes)
    outcome = Outcome.OK if won else _commonest(failed)
    first = next((vote.detail for vote in failed if vote.outcome is outcome), "")
    return Judgement(
        outcome,
        seconds=max(vote.seconds for vote in votes),
        attempts=sum(vote.attempts for vote in votes),
        verdict=_verdict(verdicts, len(failed), how) if won else None,
        failures=tuple(failure for vote in votes for failure in vote.failures),
        detail="" if won else f"{len(failed)} of {len(votes)} votes failed, like: {first}",
        votes=tuple(votes),
    )


def _commonest(failed: Sequence[Judgement]) -> Outcome:
    """Of those that are equally common, the one that `Outcome` lists first."""
    counts = Counter(vote.outcome for vote in failed)
    return max(Outcome, key=lambda outcome: counts[outcome])


def _verdict(verdicts: Sequence[Verdict], failed: int, how: Combine) -> Verdict:
    values = [verdict.value for verdict in verdicts]
    labels = Counter(verdict.label for verdict in verdicts)
    words = ", ".join(f"{count} x {label}" for label, count in sorted(labels.items(), key=lambda e: (-e[1], e[0]))[:8])
    common = set.intersection(*(set(verdict.facts) for verdict in verdicts))
    facts = {name: statistics.fmean(verdict.facts[name] for verdict in verdicts) for name in sorted(common)}
    return Verdict(words, average(values, how), {**facts, "votes": float(len(verdicts)), "votes_failed": float(failed)})


def average(values: Sequence[float], how: Combine) -> float:
    """One value out of at least one, in whatever order.

    mean; median (of an even number, the mean of the two in the middle); mode (where several values are equally common,
    their mean); trimmed (the mean without the lowest and the highest quarter, of three or more at least one of each).
    """
    ordered = sorted(values)
    match how:
        case Combine.MEAN:
            return statistics.fmean(ordered)
        case Combine.MEDIAN:
            return statistics.median(ordered)
        case Combine.MODE:
            return statistics.fmean(statistics.multimode(ordered))
        case Combine.TRIMMED:
            cut = max(1, len(ordered) // 4) if len(ordered) > 2 else 0
            return statistics.fmean(ordered[cut : len(ordered) - cut])
