"""Which clusters this machine has, by name: a folder each, and a lock that the keeper holds while the cluster lives.

Everything here works from any process, and on clusters in any state: coming up, up, going down, or left by a killed
run.
"""

import os
import signal
import time
from pathlib import Path

from dev.cache import cache_root, try_lock
from dev.cluster import cgroups, keeper, network
from dev.cluster.commands import wait_for
from dev.cluster.errors import ClusterError
from dev.cluster.processes import ProcessId


def folder() -> Path:
    """Return the folder that holds one folder per cluster."""
    return cache_root() / "clusters"


def _lock_path(name: str) -> Path:
    return cache_root() / "locks" / f"cluster-{name}.lock"


def take_name(name: str) -> int:
    """Lock the name for a new cluster, waiting for one that is going down, and return the lock's file descriptor."""
    directory, deadline = folder() / name, time.monotonic() + 60
    grace = time.monotonic() + 2  # a keeper that has just lost its parent has not yet said that it goes down
    while (lock := try_lock(_lock_path(name))) is None:
        now = time.monotonic()
        if now > deadline or (now > grace and (directory / keeper.COMPLETE).exists()):
            raise ClusterError(f"cluster {name} is up already: use it, or python -m dev.cluster down --name {name}")
        time.sleep(0.05)
    return lock


def take_down(name: str) -> bool:
    """Remove the cluster of this name, or what is left of one; return whether there was anything.

    Raises:
        WaitTimeout: something did not go away in time.
    """
    directory = folder() / name
    existed = directory.exists()

    def lock_is_free() -> int | None:
        if (running := ProcessId.load(directory / keeper.KEEPER)) is not None:
            running.send(signal.SIGTERM)
        return try_lock(_lock_path(name))

    lock = wait_for(f"the keeper of cluster {name} to end", lock_is_free, timeout=90, every=0.02)
    try:
        keeper.remove_stale(directory)
    finally:
        os.close(lock)
    return existed


def known() -> dict[str, bool]:
    """Return every cluster that has a folder, and whether it is up."""
    if not folder().exists():
        return {}
    folders = sorted(path for path in folder().iterdir() if (path / "settings.json").exists())
    return {path.name: _is_up(path) for path in folders}


def _is_up(directory: Path) -> bool:
    running = ProcessId.load(directory / keeper.BOX)
    return running is not None and running.alive() and (directory / keeper.COMPLETE).exists()


def sweep() -> list[int]:
    """Remove the cgroups of dead clusters whose folder is gone, and return their indexes."""
    swept = []
    for index in sorted(cgroups.boxes_with_cgroups()):
        if holder := network.claim(index):
            with holder:
                cgroups.remove(f"genrm-{index}")
                swept.append(index)
    return swept
