"""What the run is doing, as verl's own timers tell, and what that means for the reward model.

verl judges while it rolls out: requests arrive from the moment a step begins (the prompts are dispatched then) until
its `gen` is over; the rest of the step is training. Validation judges too, and a step follows it at once, or the end of
the run. So the reward model is needed while a step has not reached the end of its `gen`, and from the start of a
validation to the end of the next `gen`: a sleep of milliseconds would cost a wake. In the asynchronous modes judgements
never pause, and the reward model is needed all the time.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from genrm_api.leases import Phase

SPANS: Final = ("step", "gen", "testing")
"""The timers of verl that matter here; `testing` also stands for a validation that no timer surrounds."""


class PhaseTracker:
    """Follows begin and end of spans. Pure."""

    def __init__(self, always: bool = False) -> None:
        self._always = always
        self._judging: set[str] = set()

    def begin(self, span: str) -> Phase:
        self._judging.add(span)
        return self.phase

    def end(self, span: str) -> Phase:
        self._judging.discard(span)
        if span == "gen":
            self._judging.discard("step")
        elif span == "testing":
            self._judging.add("step")
        return self.phase

    @property
    def phase(self) -> Phase:
        return Phase.SCORING if self._always or self._judging else Phase.IDLE


class TrainerPhases:
    """Turns spans of the trainer into phases; hands each change to `publish`, which must not wait."""

    def __init__(self, publish: Callable[[Phase], None], tracker: PhaseTracker, log: PhaseLog | None) -> None:
        self._publish = publish
        self._tracker = tracker
        self._log = log
        self._phase: Phase | None = None
        self._depth = dict.fromkeys(SPANS, 0)
        self._set(tracker.phase, "start")

    def begin(self, span: str) -> None:
        self._depth[span] += 1
        if self._depth[span] == 1:
            self._set(self._tracker.begin(span), f"begin {span}")

    def end(self, span: str) -> None:
        self._depth[span] -= 1
        if self._depth[span] == 0:
            self._set(self._tracker.end(span), f"end {span}")

    def _set(self, phase: Phase, why: str) -> None:
        if self._log is not None:
            self._log.write(phase, why)
        if phase is not self._phase:
            self._phase = phase
            self._publish(phase)


class PhaseLog:
    """One JSON line per span boundary, beside the judgement log: `phases-<host>-<pid>.jsonl`."""

    def __init__(self, directory: Path, run: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"phases-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._run = run

    def write(self, phase: Phase, why: str) -> None:
        line = {"run": self._run, "at": round(time.time(), 6), "phase": phase.value, "event": why}
        self._file.write(json.dumps(line) + "\n")
