"""The box's cgroups: the one thing of it that no namespace holds, so they are made and removed by hand.

The kubelet wants its root cgroup to exist in every hierarchy (v1). The box's own processes join the one of the memory
hierarchy, so that its figure covers components and pods alike. On a machine with cgroup v2 alone there is one
hierarchy; that path follows the kernel's documentation but was never run by us.
"""

import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

from dev.cluster.commands import wait_for

ROOT = Path("/sys/fs/cgroup")


def _unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Return the folder of every cgroup hierarchy of this machine."""
    if _unified():
        return [ROOT]
    return [path for path in ROOT.iterdir() if (path / "cgroup.procs").exists()]


def boxes_with_cgroups() -> set[int]:
    """Return the indexes of all clusters, live or dead, that have a cgroup."""
    found = (re.fullmatch(r"genrm-(\d+)", path.name) for top in hierarchies() for path in top.glob("genrm-*"))
    return {int(match[1]) for match in found if match}


def make(name: str) -> None:
    """Make the cgroup in every hierarchy."""
    if _unified():
        enabled = " ".join(f"+{controller}" for controller in (ROOT / "cgroup.controllers").read_text().split())
        (ROOT / "cgroup.subtree_control").write_text(enabled)
    for top in hierarchies():
        (top / name).mkdir(exist_ok=True)
        if top.name == "cpuset":  # v1 starts these empty, and then no process can join
            for file in ("cpuset.cpus", "cpuset.mems"):
                (top / name / file).write_text((top / file).read_text())


def join(name: str) -> None:
    """Move this process, and what it starts from now on, into the cgroup's memory accounting."""
    inner = (ROOT if _unified() else ROOT / "memory") / name / "components"  # pods get siblings of it
    inner.mkdir(exist_ok=True)
    (inner / "cgroup.procs").write_text("0")


def memory_bytes(name: str) -> int:
    """Return the memory that nothing but the box uses: anonymous and shared, without page cache; 0 if unknown."""
    wanted = {"anon", "shmem"} if _unified() else {"total_rss", "total_shmem"}
    try:
        lines = ((ROOT if _unified() else ROOT / "memory") / name / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(value) for key, value in (line.split() for line in lines) if key in wanted)


def remove(name: str) -> None:
    """Remove the cgroup with everything below it; its processes have ended, but the kernel may need a moment more."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            wait_for(f"cgroup {folder} to empty", partial(_removed, Path(folder)), timeout=20, every=0.02)


def _removed(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        folder.rmdir()
    return True
