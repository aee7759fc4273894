"""Back to the start gate in the same container: the engine's server becomes its launcher again, and its engine ends.

Nothing but the end of its processes gives back all that an engine holds of a GPU. A container that ended for that would
be started again later and later: the kubelet's back-off grows to five minutes. So the container stays. The server's
process becomes the launcher once more, under a new boot id, and the launcher ends whatever processes the engine has
left behind before it waits at the gate.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genrm_door.settings import LAUNCH_ENV, PAST_ENV

BURIAL_SECONDS = 30.0
"""What processes that were killed may take to end: they have gigabytes to give back."""
_STAT_AFTER_NAME = 1
"""In what follows the name in /proc/PID/stat: state, then the parent."""

Restart = Callable[[Mapping[str, Any]], None]
"""Become the launcher again; what its gate is to remember is `Record.hand_over`'s."""


def remembering(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the engine, with how the launcher itself was started: its words, and names of variables.

    Names only: values are in the environment already, and secrets among them need not be there twice.
    """
    how = {"command": [sys.executable, *sys.orig_argv[1:]], "names": sorted(environ)}
    return {**environ, LAUNCH_ENV: json.dumps(how)}


def restarter(environ: Mapping[str, str]) -> Restart | None:
    """How to begin again; None where no launcher started this process."""
    if not (words := environ.get(LAUNCH_ENV)):
        return None
    how = json.loads(words)

    def restart(past: Mapping[str, Any]) -> None:
        env = {name: environ[name] for name in how["names"] if name in environ}
        for path in Path("/proc/self/fd").iterdir():
            if int(path.name) > 2:  # above all the socket that the gate will want to listen at
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(path.name), False)
        try:
            os.execve(how["command"][0], how["command"], {**env, PAST_ENV: json.dumps(past)})
        except OSError as error:
            sys.stderr.write(f"genrm: cannot begin again, so that the kubelet has to: {error}\n")
            os._exit(1)

    return restart


def bury() -> None:
    """End every process that descends from this one, and what they have left in shared memory.

    Raises:
        TimeoutError: one of them does not end. Whoever went on would wait at the gate with its memory still taken.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # of before; handlers went with the program that they were in
    left = {path for pid in _descendants() for path in _shared_memory(pid)}
    end = time.monotonic() + BURIAL_SECONDS
    while living := list(_descendants()):
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if time.monotonic() > end:
            raise TimeoutError(f"processes {living} of the engine before do not end")
        time.sleep(0.01)
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()


def _descendants() -> Iterator[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parents[int(folder.name)] = int(after[_STAT_AFTER_NAME])
    for pid, parent in parents.items():
        seen = {pid}
        while parent in parents and parent != os.getpid() and parent not in seen:
            seen.add(parent)
            parent = parents[parent]
        if parent == os.getpid():
            yield pid


def _shared_memory(pid: int) -> Iterator[Path]:
    """Files in shared memory that a process has mapped: killed, it unlinks none of them."""
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/maps").open(errors="replace") as lines:
        for line in lines:
            path = line.rstrip("\n").partition(" /dev/shm/")[2]
            if path and not path.endswith(" (deleted)"):
                yield Path("/dev/shm") / path
