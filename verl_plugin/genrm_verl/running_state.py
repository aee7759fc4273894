"""What running normalisation has learned, kept beside the run's checkpoints: one small file for each step.

verl writes checkpoints every so many steps and goes on from the last of them. A run that goes on with step 41 goes on
with what was known after step 40, whatever was learned after that before it broke off.
"""

from __future__ import annotations

import json
from pathlib import Path

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.mixing import Running


class RunningState:
    """
    Args:
        folder: made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step: int | None = None
        self.of: FleetScorer | None = None

    def before(self, step: int | None) -> None:
        """A sample of training in this step is about to be scored: with the first of all the state of the step before
        comes back, if there is one.

        Raises:
            ConfigurationError: it cannot be read.
        """
        first, self._step = self._step is None, step
        if not first or step is None or self.of is None or not (path := self._path(step - 1)).exists():
            return
        try:
            saved = json.loads(path.read_text())
            states = {name: Running.restored(state) for name, state in saved.items()}
        except (OSError, ValueError, AttributeError) as e:
            raise ConfigurationError("running normalisation", f"{path} cannot be read: {e}") from e
        self.of.running = states

    def step_ended(self) -> None:
        """The step is over: what came in it counts from now on, and is kept."""
        if self.of is None or self._step is None:
            return
        self.of.step_ended()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(self._step)
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps({name: state.saved() for name, state in self.of.running.items()}))
        fresh.replace(path)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step}.json"
