"""Starts stock verl and waits for it, telling each step as it ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from dev import grpo


class TrainingFailed(Exception):
    """verl ended with an error, or did not end in time."""


def train(run: grpo.GrpoRun, kubeconfig: Path, on_step: Callable[[int, float, float], None], timeout: float) -> str:
    """Run GRPO to its end and return its output, which is also kept in `run.work / "verl.log"`.

    `on_step` is told the step's number, mean reward and gradient norm.

    Raises:
        TrainingFailed: the message ends with the last lines of verl's output.
    """
    arguments, environment = grpo.command(run, {**os.environ, "KUBECONFIG": str(kubeconfig)})
    log = run.work / "verl.log"
    deadline = time.monotonic() + timeout
    told = 0
    with log.open("wb") as out:
        process = subprocess.Popen(
            arguments, env=environment, cwd=run.work, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while True:
                ended = process.poll() is not None
                output = log.read_text(errors="replace")
                seen = grpo.read_training(output)
                for number in range(told + 1, min(len(seen.rewards), len(seen.gradients)) + 1):
                    on_step(number, seen.rewards[number - 1], seen.gradients[number - 1])
                    told = number
                if ended:
                    break
                if time.monotonic() > deadline:
                    raise TrainingFailed(f"verl did not end within {timeout:.0f} s\n{_tail(output)}")
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)
    if process.returncode:
        raise TrainingFailed(f"verl ended with exit status {process.returncode}; {log} ends\n{_tail(output)}")
    return output


def _tail(output: str, lines: int = 30) -> str:
    return "\n".join(output.splitlines()[-lines:])
