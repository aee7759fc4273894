"""What a step's scores say about the judge: a line for the log, a sentence for who watches the run, and warnings."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from genrm_scoring.groups import Report
from genrm_scoring.telemetry import Compared, Jumps, Outcomes, Scored, StepReport, summarised
from genrm_scoring.types import Outcome

log = logging.getLogger(__name__)


class StepLog:
    """Gathers what is told of a step until it is over."""

    def __init__(self) -> None:
        self._jumps = Jumps()
        self._begin()

    def _begin(self) -> None:
        self._number: int | None = None
        self._scored: list[Scored] = []
        self._held: list[Compared] = []
        self._judged: dict[str, Counter[Outcome]] = defaultdict(Counter)

    def scored(self, step: int | None, scored: Scored) -> None:
        self._number = step
        self._scored.append(scored)

    def held(self, tournament: Compared) -> None:
        """A tournament, or a ranking, is over."""
        self._held.append(tournament)

    def judged(self, asked: str, outcomes: Outcomes) -> None:
        self._judged[asked].update(outcomes)

    def ended(self) -> dict[str, Any] | None:
        """The step is over: its line, if it had scores; what jumped is warned of."""
        number, scored, held, judged = self._number, self._scored, self._held, self._judged
        self._begin()
        if not scored:
            return None
        report = summarised(scored, held, judged)
        for sentence in self._jumps.look(report):
            log.warning("%s", sentence)
        return line(number, report, held)


def compared(report: Report) -> Compared:
    """What the numbers of a step need to know of a group's tournament: its table of margins stays where it was held."""
    tally, anchored = report.standings.tally, report.anchored
    return Compared(
        pairs=tally.pairs,
        ties=tally.ties,
        cycles=tally.circular_triads,
        both_ways=tally.both_ways,
        disagreements=tally.disagreements,
        questions=report.questions,
        rounds=report.rounds,
        failed=dict(report.failed),
        first_preferred=tally.first_preferred,
        first_bias=report.standings.first_bias,
        anchored=anchored,
    )


def line(step: int | None, report: StepReport, held: Sequence[Compared]) -> dict[str, Any]:
    """A step in numbers, as JSON can hold it; `anchor` is there if a text played along."""
    written: dict[str, Any] = {
        "step": step,
        "samples": report.count,
        "outcomes": _counts(report.outcomes),
        "judgements": {asked: _counts(outcomes) for asked, outcomes in report.judgements.items()},
        "terms": {name: _counts(outcomes) for name, outcomes in report.terms.items()},
        "by_length": {str(start): dataclasses.asdict(rates) for start, rates in report.by_length.items()},
        **{name: round(value, 6) for name, value in report.rates().items()},
    }
    if held:
        written |= {
            "questions": sum(one.questions for one in held),
            "questions_failed": _counts(sum((Counter(one.failed) for one in held), Counter[Outcome]())),
            "rounds": max(one.rounds for one in held),
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


def sentence(line: Mapping[str, Any]) -> str:
    """A step's line in short, for the output of the run."""
    judged = Counter[str]()
    for outcomes in line["judgements"].values():
        judged.update(outcomes)
    step = "this step" if line["step"] is None else f"step {line['step']}"
    said = f"{step}: {line['samples']} scores ({_told(line['outcomes'])})"
    if judged:
        said += f", {judged.total()} judgements ({_told(judged)})"
    terms = [
        f"{name} failed {share:.0%}"
        for key, share in line.items()
        if (name := key.removeprefix("term_failed/")) != key and share
    ]
    return ", ".join([said, *terms])


def _told(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items(), key=lambda o: -o[1]))


def _counts(outcomes: Outcomes) -> dict[str, int]:
    return {outcome.value: count for outcome, count in outcomes.items()}


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(fmean(known), 6) if known else None
