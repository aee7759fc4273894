"""What running normalisation has learned, kept beside the run's checkpoints: one small file for each step.

verl writes checkpoints every so many steps and goes on from one of them. A run that goes on with step 41 goes on with
what was known after step 40, whatever was learned before it broke off; a validation that comes first does so too. A
coordinator that was started again in the middle of a run goes on with what this same run has kept.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.mixing import Running

log = logging.getLogger(__name__)

RUN: Final = "/run"
"""In a file beside the terms, whose names have no slash: which run wrote it."""


class RunningState:
    """
    Args:
        folder: made when there is something to keep.
        run: this run's own name.
        resumed: the folder of the run that this one goes on with, if that is another.
    """

    def __init__(self, folder: Path, run: str, resumed: Path | None = None) -> None:
        self._folder, self._run, self._resumed = folder, run, resumed or folder
        self._begun = False
        self._step: int | None = None
        self.of: FleetScorer | None = None

    def before(self, step: int | None, learn: bool = True) -> None:
        """A sample is about to be scored that was generated after so many steps; one to `learn` from is of training,
        and its own step counts. With the first of all the state comes back, if there is one.

        Raises:
            ConfigurationError: it cannot be read.
        """
        if step is None or self.of is None:
            return
        if not self._begun:
            self._begun = True
            self._restore(self.of, step - 1 if learn else step)
        if learn:
            self._step = step

    def _restore(self, scorer: FleetScorer, step: int) -> None:
        path = self._path(self._folder, step)
        saved = self._read(path)
        if saved is None or saved.get(RUN) != self._run:
            path = self._path(self._resumed, step)
            saved = self._read(path)
        if saved is None:
            if step > 0:
                log.warning(
                    "running normalisation: the run goes on after step %s, and there is no %s: it begins anew",
                    step,
                    path,
                )
            return
        scorer.running = {name: Running.restored(state) for name, state in saved.items() if name != RUN}

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        """
        Raises:
            ConfigurationError
        """
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as e:
            raise ConfigurationError("running normalisation", f"{path} cannot be read: {e}") from e

    def step_ended(self) -> None:
        """The step is over: what came in it counts from now on, and is kept."""
        if self.of is None or self._step is None:
            return
        self.of.step_ended()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(self._folder, self._step)
        fresh = path.with_suffix(".tmp")
        states = {name: state.saved() for name, state in self.of.running.items()}
        fresh.write_text(json.dumps({RUN: self._run, **states}))
        fresh.replace(path)

    @staticmethod
    def _path(folder: Path, step: int) -> Path:
        return folder / f"step-{step}.json"
