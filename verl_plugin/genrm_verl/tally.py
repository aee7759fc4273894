"""The run's tally: one place that hears how every score and judgement ended, whichever process made it.

Reward workers judge, and so do coordinators; each sees a part of a step. What is counted by step (the breaker, the
step's line in the log, jumps) is counted by one Ray actor of the run, to which they all report. A score is handed to
verl once its report has arrived, so that a step cannot end before all of it is counted; reports that come up while one
is on its way travel together. Nothing that this actor does may keep the run: who waits longer than `ARRIVAL_SECONDS`
goes on without it, and then nobody waits until it answers again. It is started again when it dies, and counts anew.

A row that cannot be judged is no failed score, and no policy is asked about it: whoever finds one says so here too, and
the run ends. Every run has a tally, whoever judges in it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from genrm_api.rewardfleet import FleetBreaker
from genrm_scoring.breaker import LONGEST_EXAMPLE, Breaker
from genrm_scoring.errors import BreakerTripped, RunStopped
from genrm_scoring.groups import Report
from genrm_scoring.journal import JudgementLog
from genrm_scoring.telemetry import Compared, Scored, asked
from genrm_scoring.types import Judgement, Outcome, Sample, Score

from genrm_verl.steps import StepLog, compared, sentence
from genrm_verl.translate import RunSection

log = logging.getLogger(__name__)

ARRIVAL_SECONDS: Final = 2.0
"""For a report to arrive, before its score goes on without; it takes a millisecond."""
STEP_SECONDS: Final = 5.0
"""For a step's numbers to be made and written."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A score, and whose it is: `who` as a person would look the sample up."""

    step: int | None
    who: str
    scored: Scored


@dataclass(slots=True)
class Batch:
    """What a process has to report since the last time."""

    scores: list[Reported] = field(default_factory=list)
    held: list[Compared] = field(default_factory=list)
    judgements: dict[str, Counter[Outcome]] = field(default_factory=dict)
    refused: str | None = None
    """Why the process that reports cannot go on, and with it the run."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """`said` of the step's scores, if there were any; `stop` says why the run must not go on."""

    said: str | None
    stop: str | None


class Tally:
    """The actor; belongs to one event loop."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        read = RunSection.read(section)
        spec = FleetBreaker.model_validate(read.breaker)
        self._run = read.run
        self._breaker = Breaker(spec.max_failed_fraction, spec.minimum_count)
        self._on_failure = read.on_failure
        self._steps = StepLog()
        self._lines = JudgementLog(Path(read.judgement_log), "steps") if read.judgement_log else None
        self._why: str | None = None
        self._stopped = asyncio.Event()

    async def take(self, batch: Batch) -> str | None:
        """Count what is reported; say why the run must stop, if it must."""
        for judge, outcomes in batch.judgements.items():
            self._steps.judged(judge, outcomes)
        for tournament in batch.held:
            self._steps.held(tournament)
        for one in batch.scores:
            self._steps.scored(one.step, one.scored)
            try:
                self._breaker.saw(one.who, one.scored.score)
            except BreakerTripped as e:
                self._stop(str(e))
        if batch.refused is not None:
            self._stop(batch.refused)
        return self._why

    def _stop(self, why: str) -> None:
        self._why = self._why or why
        self._stopped.set()

    async def step_ended(self) -> StepEnd:
        """A step of training is over, with the validation that belongs to it: what comes now is of the next."""
        self._breaker.begin_step()
        line = self._steps.ended()
        if line is not None and self._lines is not None:
            own = {} if self._on_failure is None else {"on_failure": self._on_failure}
            self._lines.write({"run": self._run, "ended": round(time.time(), 6), **own, **line})
        return StepEnd(None if line is None else sentence(line), self._why)

    async def stopped(self) -> str:
        """Wait until the run must stop; return why."""
        await self._stopped.wait()
        assert self._why is not None
        return self._why


class Reporter:
    """The side of a process that makes scores; belongs to one event loop.

    Args:
        send: brings a batch to the tally; returns why the run must stop, if it must.
    """

    def __init__(self, send: Callable[[Batch], Awaitable[str | None]]) -> None:
        self._send = send
        self._batch = Batch()
        self._waiting: asyncio.Future[str | None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._away = False

    def judged(self, judge: str, judgement: Judgement) -> None:
        """A model or a reward API has been asked; told with the next score."""
        self._batch.judgements.setdefault(judge, Counter()).update(asked(judgement))

    def held(self, report: Report) -> None:
        """A tournament, or a ranking, is over; told with the next score."""
        self._batch.held.append(compared(report))

    async def scored(self, sample: Sample, score: Score) -> None:
        """Report a score as it leaves for verl. Never fails for want of a tally, and never waits for it for long.

        Raises:
            RunStopped: it is one too many that has failed.
        """
        who = f"prompt {sample.uid}, response {sample.session}"
        scored = Scored(sample.uid or sample.question, len(sample.response), _short(score))
        self._batch.scores.append(Reported(sample.step, who, scored))
        why = await self._reported()
        if score.failed and why is not None:
            raise RunStopped(why)

    async def refused(self, why: str) -> None:
        """Report what nobody can judge: the run must end, also if nobody else here meets it. Waits as `scored` does."""
        self._batch.refused = self._batch.refused or why
        await self._reported()

    async def _reported(self) -> str | None:
        """Have sent what there is, and wait until it has arrived; return why the run must stop, if that is known."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        arrived = self._waiting
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        if self._away:
            return None
        await asyncio.wait([arrived], timeout=ARRIVAL_SECONDS)
        if not arrived.done():
            self._gone(f"no answer within {ARRIVAL_SECONDS:g} s")
            return None
        return arrived.result()

    async def _send_all(self) -> None:
        while (arrived := self._waiting) is not None:
            batch, self._batch, self._waiting = self._batch, Batch(), None
            why: str | None = None
            try:
                why = await self._send(batch)
                self._away = False
            except Exception as e:  # its node is gone, or the run ends
                self._gone(f"{type(e).__name__}: {e}")
            arrived.set_result(why)
        self._sending = None

    def _gone(self, why: str) -> None:
        if not self._away:
            log.warning("scores go on uncounted, the run's tally does not take them: %s", why)
        self._away = True


def _short(score: Score) -> Score:
    """What is counted of a score; the log of scores has it in full."""
    terms = tuple(replace(term, detail="") for term in score.terms)
    return replace(score, detail=score.detail[: LONGEST_EXAMPLE + 1], terms=terms)


def _name(run: str) -> str:
    return f"genrm-tally-{run}"


def reporter(run: str) -> Reporter:
    """One that reports to the run's actor."""
    return Reporter(_Line(run))


class _Line:
    def __init__(self, run: str) -> None:
        self._run = run
        self._actor: Any = None

    async def __call__(self, batch: Batch) -> str | None:
        if self._actor is None:
            import ray

            self._actor = await asyncio.to_thread(partial(ray.get_actor, _name(self._run)))
        why: str | None = await self._actor.take.remote(batch)
        return why


class RayTally:
    """The side of the process that trains, in which Ray is up: starts the actor, and keeps it alive by living."""

    def __init__(self, section: RunSection) -> None:
        import ray

        self._ray = ray
        options = {"name": _name(section.run), "num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        self._actor: Any = ray.remote(Tally).options(**options).remote(asdict(section))

    def step_ended(self) -> str | None:
        """Have the step's numbers written, and say them; return why the run must stop, if it must."""
        try:
            end: StepEnd = self._ray.get(self._actor.step_ended.remote(), timeout=STEP_SECONDS)
        except Exception as e:  # the run goes on
            log.warning("the numbers of this step are not known: %s: %s", type(e).__name__, e)
            return None
        if end.said is not None:
            sys.stderr.write(f"genrm: {end.said}\n")
            sys.stderr.flush()
        return end.stop

    def when_stopped(self, tell: Callable[[str], None]) -> None:
        """Call `tell`, in a thread, with why the run must stop, once it must."""

        def wait() -> None:
            try:
                tell(self._ray.get(self._actor.stopped.remote()))
            except Exception as e:  # the run ends
                log.info("the tally does not tell whether the run must stop: %s", e)

        threading.Thread(target=wait, name="genrm-tally", daemon=True).start()
