"""Where the responses to one prompt meet: verl sends each to any reward worker, and these to the group's coordinator.

Coordinators are Ray actors, as many as there are reward workers, and a group is always with the same one. The process
that trains starts them, because Ray ends a named actor when whoever made it lets go. One that dies is started again,
and Ray asks it again what it had not answered: its groups come together once more.

A run that must stop (`RunStopped`, or a rule or data set that cannot be what the fleet says) learns so from them too:
the trainer waits for the first such sentence, and reward workers hear it as an exception. What reward workers find
themselves they tell the run's tally.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from genrm_scoring.arrivals import Arrivals, Survivors, arrivals_of
from genrm_scoring.errors import ConfigurationError, RunStopped
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.journal import JudgementLog, record_question, record_score
from genrm_scoring.types import Judgement, Question, Sample, Score

from genrm_verl.opening import opened_source
from genrm_verl.running_state import RunningState
from genrm_verl.tally import Reporter, reporter
from genrm_verl.translate import RunSection

log = logging.getLogger(__name__)

AT_ONCE: Final = 20_000
"""Responses that may wait in one coordinator for their siblings. Ray would hold back more than this, and a group whose
last member is held back would never be complete."""


class Coordinator:
    """One of them; belongs to one event loop, which is that of its actor."""

    def __init__(self, section: Mapping[str, Any], reports: Reporter | None = None) -> None:
        self._section = RunSection.read(section)
        self._reports = reports or reporter(self._section.run)
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._arrivals: Arrivals | None = None
        self._survivors = Survivors(self._section.patience_s)
        self._stopped: asyncio.Future[str] | None = None
        folder = self._section.judgement_log
        self._judgements = JudgementLog(Path(folder)) if folder else None
        self._scores = JudgementLog(Path(folder), "scores") if folder else None
        self._memory = _memory(self._section)

    async def score(self, key: str, size: int, sample: Sample, learn: bool = True) -> Score:
        """The score of one response among its siblings. `learn`: it is one of training.

        Raises:
            RunStopped, ConfigurationError: the run must end.
        """
        try:
            arrivals = await self._ready()
            if self._memory is not None:
                self._memory.before(sample.step, learn)
            score = await arrivals.score(key, size, sample, learn=learn)
            if self._scores is not None:
                self._scores.write(record_score(self._section.run, sample, score, time.time()))
            await self._reports.scored(sample, score)
        except (RunStopped, ConfigurationError) as e:
            self._stop(str(e))
            raise
        return score

    async def settled(self, key: str, size: int, score: Score) -> Score:
        """What becomes of a score that a reward worker has made, once it is known how many siblings have one."""
        return await self._survivors.settled(key, size, score)

    async def lost(self, key: str, size: int) -> None:
        """A response to this prompt will never come."""
        (self._survivors if self._section.settles else await self._ready()).lost(key, size)

    async def step_ended(self) -> None:
        """A step of training is over, with the validation that belongs to it: what comes now is of the next."""
        if self._memory is not None:
            self._memory.step_ended()

    async def close(self) -> None:
        """Give up who waits; an actor whose process ends has no need of it."""
        await self._survivors.close()
        if self._arrivals is not None:
            await self._arrivals.close()
        await self._open.aclose()

    async def stopped(self) -> str:
        """Wait until the run must stop; return why."""
        return await self._word()

    def _word(self) -> asyncio.Future[str]:
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
        return self._stopped

    def _stop(self, why: str) -> None:
        if not (word := self._word()).done():
            word.set_result(why)

    async def _ready(self) -> Arrivals:
        async with self._opening:
            if self._arrivals is None:
                opening = opened_source(self._section, self._heard, self._reports.held)
                source = await self._open.enter_async_context(opening)
                self._arrivals = arrivals_of(source, self._section.patience_s)
                if self._memory is not None and isinstance(source, FleetScorer):
                    self._memory.of = source
            return self._arrivals

    def _heard(self, asked: str, question: Question, judgement: Judgement) -> None:
        self._reports.judged(asked, judgement)
        if self._judgements is not None:
            self._judgements.write(record_question(self._section.run, asked, question, judgement, time.time()))


def _memory(section: RunSection) -> RunningState | None:
    if section.state is None:
        return None
    return RunningState(
        Path(section.state), section.run, Path(section.resumed_state) if section.resumed_state else None
    )


def _name(run: str, number: int) -> str:
    return f"genrm-coordinator-{run}-{number}"


class RayCoordinators:
    """The side of the process that trains, in which Ray is up: starts them, and keeps them alive by living."""

    def __init__(self, section: RunSection) -> None:
        import ray

        self._ray = ray
        kind = ray.remote(Coordinator)
        self._actors: list[Any] = [
            kind.options(
                name=_name(section.run, number),
                num_cpus=0,
                max_concurrency=AT_ONCE,
                max_restarts=-1,
                max_task_retries=-1,
            ).remote(asdict(section))
            for number in range(section.coordinators)
        ]

    def step_ended(self) -> None:
        """Tell them; waits for nothing."""
        for actor in self._actors:
            actor.step_ended.remote()

    def when_stopped(self, tell: Callable[[str], None]) -> None:
        """Call `tell`, in a thread, with the first sentence that any of them has."""

        def wait() -> None:
            try:
                (first,), _ = self._ray.wait([actor.stopped.remote() for actor in self._actors], num_returns=1)
                tell(self._ray.get(first))
            except Exception as e:  # the run ends
                log.info("nobody tells whether the run must stop: %s", e)

        threading.Thread(target=wait, name="genrm-stopped", daemon=True).start()


class RayGroups:
    """A reward worker's side, and an agent loop's."""

    def __init__(self, section: RunSection) -> None:
        self._run, self._number = section.run, section.coordinators
        self._actors: dict[int, Any] = {}

    async def score(self, key: str, size: int, sample: Sample, learn: bool = True) -> Score:
        """As that of `Coordinator`."""
        score: Score = await (await self._actor(key)).score.remote(key, size, sample, learn)
        return score

    async def settled(self, key: str, size: int, score: Score) -> Score:
        """As that of `Coordinator`."""
        found: Score = await (await self._actor(key)).settled.remote(key, size, score)
        return found

    async def lost(self, key: str, size: int) -> None:
        await (await self._actor(key)).lost.remote(key, size)

    async def _actor(self, key: str) -> Any:
        number = zlib.crc32(key.encode(errors="replace")) % self._number
        if number not in self._actors:
            import ray

            self._actors[number] = await asyncio.to_thread(partial(ray.get_actor, _name(self._run, number)))
        return self._actors[number]
