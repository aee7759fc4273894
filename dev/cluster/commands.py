"""Running commands and waiting for conditions, both under a deadline."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from dev.cluster.errors import CommandFailed, WaitTimeout

T = TypeVar("T")


def run(
    *command: str | Path | int,
    input: str | None = None,
    check: bool = True,
    timeout: float = 120.0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` and return its output as text.

    Raises:
        CommandFailed: it exited with an error (unless `check` is off) or ran longer than `timeout` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=input or "", capture_output=True, text=True, timeout=timeout, env=env)
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(words, 124, f"killed after {timeout:.0f} s: {late.output or ''}") from late
    if check and done.returncode:
        raise CommandFailed(words, done.returncode, done.stdout + done.stderr)
    return done


def wait_for(what: str, check: Callable[[], T | None], timeout: float = 90.0, every: float = 0.05) -> T:
    """Call `check` until it returns something true, and return that.

    A `CommandFailed` or `OSError` it raises counts as "not yet" and is told when time is up.

    Raises:
        WaitTimeout: nothing true came within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    last = ""
    while True:
        try:
            if found := check():
                return found
        except (CommandFailed, OSError) as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise WaitTimeout(what, timeout, last)
        time.sleep(every)
