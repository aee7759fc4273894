"""The process outside the box that puts it up and takes it away: `python -m dev.cluster.keeper DIRECTORY FD...`.

Namespaces end with their processes, but a cgroup, a veth end and the cluster's folder do not. So every cluster has a
*keeper*, in a session of its own, that outlives the tool that asked for the cluster. It holds what must be free again
when it is gone (the lock on the cluster's name, the claim on its index, the lock on the image store: inherited file
descriptors, which the kernel closes whatever happens). It waits for one of three things and then removes every trace:

    SIGTERM                         somebody wants the cluster down
    the tool's end                  while the cluster is coming up, or any time for a cluster bound to its parent
    the box's end                   only the outside is removed then; the folder stays, for its logs

If the keeper itself is killed, the kernel ends the box with it (parent-death signals), the locks come free, and the
next `up` or `down` calls `remove_stale` on what is left.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from dev.cluster import cgroups, network, processes
from dev.cluster.commands import wait_for
from dev.cluster.processes import ProcessId
from dev.cluster.settings import Settings

# files in the cluster's folder
KEEPER = "keeper.json"  # our process
BOX = "box.json"  # the box's process 1
NET_NAMESPACE = "net-namespace"  # the number of the box's network namespace
COMPLETE = "complete"  # there once the cluster has come up
PEAK_MEMORY = "peak-memory"  # the most bytes the box has used so far

_PR_SET_PDEATHSIG = 1
_NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--uts")


class Keeper:
    """One cluster's keeper."""

    def __init__(self, settings: Settings, parent_fd: int) -> None:
        self._settings = settings
        self._parent_fd = parent_fd
        self._peak = 0
        self._namespace_fd = -1

    def run(self) -> None:
        """Put the box up, wait for a reason to end, take everything away."""
        asked_read, asked_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(asked_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the wake-up is what counts
        keep_folder = True  # for its logs, should anything fail here
        ProcessId.of(os.getpid()).save(self._settings.directory / KEEPER)
        try:
            cgroups.make(self._settings.cgroup)
            unshare = self._start_box()
            keep_folder = self._wait(asked_read, os.pidfd_open(unshare.pid))
        finally:
            (self._settings.directory / COMPLETE).unlink(missing_ok=True)
            remove_traces(self._settings, keep_folder=keep_folder)

    def _start_box(self) -> "subprocess.Popen[bytes]":
        settings = self._settings
        inner = [sys.executable, "-m", "dev.cluster.box", str(settings.directory)]
        outer = ["unshare", *_NAMESPACES, "--fork", "--kill-child=SIGKILL", "--propagation=private", "--mount-proc"]
        with (settings.log / "box.log").open("ab") as log:
            unshare = subprocess.Popen(
                [*outer, *inner], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        pid = wait_for("the box's first process", lambda: int(children.read_text() or 0), 20, 0.005)
        self._namespace_fd = os.open(
            f"/proc/{pid}/ns/net", os.O_RDONLY
        )  # while it is open its number is not used again
        (settings.directory / NET_NAMESPACE).write_text(str(processes.namespace_of(pid, "net")))
        ProcessId.of(pid).save(settings.directory / BOX)
        network.connect(settings, pid)
        return unshare

    def _wait(self, asked: int, box_fd: int) -> bool:
        """Return when the cluster must end, and whether its folder should stay."""
        poll = select.poll()
        for fd in (asked, box_fd, self._parent_fd):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(1000)}
            self._sample_memory()
            if asked in ready:
                return False
            if box_fd in ready:
                return True
            if self._parent_fd in ready:
                if self._settings.die_with_parent or not (self._settings.directory / COMPLETE).exists():
                    return False
                poll.unregister(self._parent_fd)

    def _sample_memory(self) -> None:
        used = cgroups.memory_bytes(self._settings.cgroup)
        if used > self._peak:
            self._peak = used
            (self._settings.directory / PEAK_MEMORY).write_text(str(used))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def remove_stale(directory: Path) -> None:
    """Remove what is left of a cluster whose keeper was killed. The caller holds the lock on the cluster's name.

    Raises:
        WaitTimeout: something did not go away in time; what it was is in the message.
    """
    try:
        settings = Settings.load(directory)
    except (OSError, ValueError, KeyError):
        shutil.rmtree(directory, ignore_errors=True)  # its `up` was killed before it had started anything
        return
    if holder := network.claim(settings.index):
        with holder:
            remove_traces(settings)
    else:
        shutil.rmtree(directory, ignore_errors=True)  # the index, and so what bears its name, is another cluster's now


def remove_traces(settings: Settings, keep_folder: bool = False) -> None:
    """Remove everything of a cluster, in whatever state it is. The caller holds the claim on its index.

    Raises:
        WaitTimeout: something did not go away in time; what it was is in the message.
    """
    box = ProcessId.load(settings.directory / BOX)
    if box:
        box.send(signal.SIGKILL)
        wait_for(f"box {box.pid} to end", lambda: not box.alive(), 30, 0.01)
        if network.is_connected(settings):  # else the namespace is gone, and its number may be another's
            # what was started from outside in the box's network (Cluster.popen_in_box) is no child of the box
            processes.kill_in_namespace("net", int((settings.directory / NET_NAMESPACE).read_text()))
    network.disconnect(settings)
    cgroups.remove(settings.cgroup)
    if not keep_folder:
        shutil.rmtree(settings.directory, ignore_errors=True)


def main() -> None:
    directory, parent_fd = Path(sys.argv[1]), int(sys.argv[2])
    for fd in map(int, sys.argv[2:]):
        os.set_inheritable(fd, False)  # ours alone: the box must not hold a lock beyond our end
    Keeper(Settings.load(directory), parent_fd).run()


if __name__ == "__main__":
    main()
