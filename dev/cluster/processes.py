"""Processes of this machine, as /proc shows them.

A process is named by its number and its start time: numbers are used again, the pair is not.
"""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.commands import wait_for

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good: a later process of the same number is another one."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        return cls(pid, int(_stat_fields(pid)[19]))

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            fields = _stat_fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[19]) == self.start_ticks and fields[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)

    def save(self, path: Path) -> None:
        partial = path.with_name(f".{path.name}")
        partial.write_text(json.dumps([self.pid, self.start_ticks]))
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> "ProcessId | None":
        """Return what `save` wrote; None if it wrote nothing yet."""
        try:
            return cls(*json.loads(path.read_text()))
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What a status table tells about a process."""

    pid: int
    name: str
    rss_bytes: int
    seconds: float


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything: state is the first."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def namespace_of(pid: int, kind: str) -> int:
    """Return the inode number of the process's namespace of this kind ("net", "pid", ...)."""
    return (PROC / str(pid) / "ns" / kind).stat().st_ino


def all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def in_namespace(kind: str, inode: int) -> Iterator[int]:
    """Yield the processes in the namespace of this kind and inode number."""
    for pid in all_pids():
        try:
            if namespace_of(pid, kind) == inode:
                yield pid
        except OSError:
            continue  # it has just ended, or is a zombie


def kill_in_namespace(kind: str, inode: int) -> None:
    """Kill every process in the namespace and wait until none is left.

    Raises:
        ValueError: it is our own namespace.
        WaitTimeout: one would not end.
    """
    if inode == namespace_of(os.getpid(), kind):
        raise ValueError(f"{kind} namespace {inode} is our own, no box's")

    def none_left() -> bool:
        left = list(in_namespace(kind, inode))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(f"the processes of {kind} namespace {inode} to end", none_left, 30, 0.01)


def info(pid: int) -> ProcessInfo:
    """Return what /proc tells about a process.

    Raises:
        FileNotFoundError: it has ended.
    """
    fields = _stat_fields(pid)
    command = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    uptime = float((PROC / "uptime").read_text().split()[0])
    return ProcessInfo(
        pid=pid,
        name=Path(command[0].decode(errors="replace")).name or "?",
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        seconds=uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"),
    )
