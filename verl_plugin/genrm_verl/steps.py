"""What a step's scores say about the judge, as one coordinator sees them: a line in its log, and warnings.

Coordinators share a step's prompts by chance, so that each sees a fair part of it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from genrm_scoring.groups import Report
from genrm_scoring.telemetry import Compared, Jumps, Scored, StepReport, summarised
from genrm_scoring.types import Sample, Score

log = logging.getLogger(__name__)


class StepLog:
    """
    Args:
        write: takes a line for each step that had scores.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self._write = write
        self._jumps = Jumps()
        self._number: int | None = None
        self._scored: list[Scored] = []
        self._held: list[Report] = []

    def scored(self, sample: Sample, score: Score) -> None:
        self._number = sample.step
        self._scored.append(Scored(sample.uid or sample.question, len(sample.response), score))

    def held(self, report: Report) -> None:
        """A tournament, or a ranking, is over."""
        self._held.append(report)

    def ended(self) -> None:
        """The step is over: its line is written, and what jumped is warned of."""
        scored, held = self._scored, self._held
        self._scored, self._held = [], []
        if not scored:
            return
        report = summarised(scored, [_compared(one) for one in held])
        for sentence in self._jumps.look(report):
            log.warning("%s", sentence)
        self._write(line(self._number, report, held))


def _compared(report: Report) -> Compared:
    tally = report.standings.tally
    return Compared(tally.pairs, tally.ties, tally.circular_triads)


def line(step: int | None, report: StepReport, held: Sequence[Report]) -> dict[str, Any]:
    """A step in numbers, as JSON can hold it; `anchor` is there if a text played along."""
    written: dict[str, Any] = {
        "step": step,
        "samples": report.count,
        "outcomes": {outcome.value: count for outcome, count in report.outcomes.items()},
        "by_length": {str(start): dataclasses.asdict(rates) for start, rates in report.by_length.items()},
        **{name: round(value, 6) for name, value in report.rates().items()},
    }
    if held:
        biases = [bias for one in held if (bias := one.standings.tally.first_preferred) is not None]
        written |= {
            "questions": sum(one.questions for one in held),
            "rounds": max(one.rounds for one in held),
            "first_preferred": _mean(biases),
        }
    anchored = [one.anchored for one in held if one.anchored is not None]
    if anchored:
        written["anchor"] = {
            "score": _mean([one.anchor_score for one in anchored if one.anchor_score is not None]),
            "beats_anchor": _mean([one.beats_anchor for one in anchored if one.beats_anchor is not None]),
            "policy_mean": _mean([one.policy_mean for one in anchored if one.policy_mean is not None]),
            "conflicts": _mean([one.conflicts.removed for one in anchored if one.conflicts is not None]),
        }
    return written


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 6) if values else None
