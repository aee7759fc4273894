"""When a step will ask its first question, from when the last ones did; and saying so ahead (phase `prewake`).

verl's prompts go out when a step begins, and the first question comes when the first rollout ends. Until then the
engines may sleep, if they are up again at that moment. How long that takes only the reward workers see: each tells an
actor of the run (Ray's) when it asks for a step, and that one tells the trainer of the first. All times are of the
actor's clock, so those of the nodes need not agree.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from genrm_api.leases import Phase
from genrm_scoring.forecast import Forecast

log = logging.getLogger(__name__)

ALIKE_SECONDS: Final = 1.0
"""A worker that knows no steps (verl's old trainer) tells of its questions not more often than this."""


class Questions(Protocol):
    def await_first(self, asked: Callable[[float], None]) -> None:
        """From now on: call `asked`, in any thread, with the seconds until the first question. A later call ends the
        wait of an earlier one."""
        ...


class Ahead:
    """Stands between the trainer's phases and its Lease: where the first question's time is known, a step begins with
    `prewake` and its seconds, and becomes `scoring` when the question comes, be that earlier or later."""

    def __init__(self, set_phase: Callable[[Phase, float | None], None], questions: Questions) -> None:
        self._set_phase = set_phase
        self._questions = questions
        self._forecast = Forecast()
        self._lock = threading.Lock()
        self._round = 0

    def publish(self, phase: Phase) -> None:
        with self._lock:
            self._round += 1
            if phase is not Phase.SCORING:
                self._set_phase(phase, None)
                return
            needed_in = self._forecast.needed_in()
            self._set_phase(phase if needed_in is None else Phase.PREWAKE, needed_in)
        self._questions.await_first(partial(self._asked, self._round))

    def _asked(self, round_: int, seconds: float) -> None:
        with self._lock:
            self._forecast.learn(seconds)
            if round_ == self._round:
                self._set_phase(Phase.SCORING, None)


class FirstQuestion:
    """The Ray actor's part: who waits for the first question of a round, and who tells of one. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._first: asyncio.Future[float | None] | None = None

    async def await_first(self) -> float | None:
        """Begin a round; seconds until its first question, `None` if the next round begins before there is one."""
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        self._began = self._clock()
        self._first = asyncio.get_running_loop().create_future()
        return await self._first

    async def asked(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(self._clock() - self._began)


def _name(run: str) -> str:
    return f"genrm-first-question-{run}"


class RayQuestions:
    """The trainer's side. Belongs to the process that trains, in which Ray is up."""

    def __init__(self, run: str) -> None:
        import ray

        self._ray = ray
        options = {"name": _name(run), "num_cpus": 0, "max_concurrency": 1000}
        self._actor: Any = ray.remote(FirstQuestion).options(**options).remote()

    def await_first(self, asked: Callable[[float], None]) -> None:
        waiting = self._actor.await_first.remote()

        def wait() -> None:
            try:
                seconds = self._ray.get(waiting)
            except Exception as e:  # the run ends, or the actor's node is gone: steps begin with `scoring` again
                log.info("nobody tells of the first question: %s", e)
                return
            if seconds is not None:
                asked(seconds)

        threading.Thread(target=wait, name="genrm-first-question", daemon=True).start()


class RayHerald:
    """A reward worker's side: tells of the first question of each step that it asks. Never fails a judgement."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._actor: Any = None
        self._step: int | None = None
        self._told_at: float | None = None

    async def asking(self, step: int | None) -> None:
        if not self.is_news(step):
            return
        try:
            if self._actor is None:
                self._actor = await asyncio.to_thread(_actor_of, self._run)
            self._actor.asked.remote()
        except Exception as e:
            log.info("the trainer is not told of the first question: %s", e)

    def is_news(self, step: int | None) -> bool:
        """Whether this worker has not told of this step yet."""
        now = self._clock()
        if step is None:
            if self._told_at is not None and now - self._told_at < ALIKE_SECONDS:
                return False
        elif step == self._step:
            return False
        self._step, self._told_at = step, now
        return True


def _actor_of(run: str) -> Any:
    import ray

    return ray.get_actor(_name(run))
