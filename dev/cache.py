"""Where everything expensive is kept, and how to put something there safely.

What a contributor's machine builds once (binaries, environments, root file systems, imported images) lives under one
*cache root*, so that a fresh clone finds it and deleting that one folder forgets it all. Two runs may fill the cache at
the same time and either may be killed at any moment, hence two tools: `locked` lets one run at a time do a piece of
work, and `atomic_dir` makes a folder appear complete or not at all.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path


class LockTimeout(Exception):
    """Another run held a cache lock for longer than the caller was ready to wait."""


def cache_root() -> Path:
    """Return the cache folder: `$GENRM_CACHE`, or `.cache/genrm` in the home directory."""
    return Path(os.environ.get("GENRM_CACHE") or Path.home() / ".cache" / "genrm").absolute()


def try_lock(path: Path) -> int | None:
    """Lock `path` for as long as the returned file descriptor, or a copy of it in a child, stays open.

    Returns None if somebody else holds it. The kernel drops the lock when the last holder ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


@contextlib.contextmanager
def locked(name: str, timeout: float = 1800.0) -> Iterator[None]:
    """Hold the cache-wide lock called `name`, waiting for its present holder.

    Raises:
        LockTimeout: it was not free within `timeout` seconds.
    """
    path = cache_root() / "locks" / f"{name}.lock"
    deadline = time.monotonic() + timeout
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise LockTimeout(f"{path} was held by another run for {timeout:.0f} s; end that run and try again")
        time.sleep(0.2)
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Give an empty sibling folder to fill; it takes the name `path` when the block ends without an exception.

    Leftovers of a killed run are removed first, so callers hold a lock on what they make (see `locked`).
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
