"""Starts stock verl and waits for it, telling each step as it ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dev import grpo


class TrainingFailed(Exception):
    """verl ended with an error, or did not end in time."""


class Training:
    """A GRPO run, started on entry and ended on exit; its output is kept in `run.work / "verl.log"`."""

    def __init__(self, run: grpo.GrpoRun, kubeconfig: Path) -> None:
        self._arguments, self._environment = grpo.command(run, {**os.environ, "KUBECONFIG": str(kubeconfig)})
        self._work = run.work
        self._log = run.work / "verl.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=30)

    def ended(self) -> bool:
        """Whether verl has ended.

        Raises:
            TrainingFailed: with an error; the message ends with the last lines of its output.
        """
        status = self._process.poll()
        if status:
            raise TrainingFailed(f"verl ended with exit status {status}; {self._log} ends\n{self._tail()}")
        return status is not None

    def wait(self, on_step: Callable[[int, float, float], None], timeout: float) -> str:
        """Wait for the end and return the output. `on_step` is told a step's number, mean reward and gradient norm.

        Raises:
            TrainingFailed
        """
        deadline = time.monotonic() + timeout
        told = 0
        while True:
            ended = self.ended()
            output = self._log.read_text(errors="replace")
            seen = grpo.read_training(output)
            for number in range(told + 1, min(len(seen.rewards), len(seen.gradients)) + 1):
                on_step(number, seen.rewards[number - 1], seen.gradients[number - 1])
                told = number
            if ended:
                return output
            if time.monotonic() > deadline:
                raise TrainingFailed(f"verl did not end within {timeout:.0f} s\n{self._tail()}")
            time.sleep(0.5)

    def _tail(self, lines: int = 30) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
