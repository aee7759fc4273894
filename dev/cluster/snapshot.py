"""What a cluster could leave behind on a machine, kind by kind, so that two moments can be compared.

    before = snapshot()
    ...                                  # a cluster comes and goes
    assert not added(before, snapshot())

Everything here is seen from outside the boxes. Of processes, only those count that could be a cluster's: they are in
another namespace than we are, or name a cluster's folder. Other clusters that come and go meanwhile can be left out.
"""

import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from dev.cluster import cgroups, keeper, processes, registry
from dev.cluster.commands import run
from dev.cluster.settings import Settings, networks

KINDS = ("processes", "namespaces", "mounts", "interfaces", "routes", "cgroups", "firewall rules")
_NAMESPACES = ("net", "mnt", "pid", "ipc", "uts")

Snapshot = dict[str, frozenset[str]]
"""One set of descriptions for each of `KINDS`."""


@dataclass(frozen=True, slots=True)
class _Cluster:
    """How things of a cluster to leave out are recognised."""

    settings: Settings
    net_namespace: str

    def owns_process(self, command: str, cgroup: str, spaces: Collection[str]) -> bool:
        ours = f"/{self.settings.cgroup}/" in cgroup or f"net:[{self.net_namespace}]" in spaces
        return ours or f"{self.settings.directory}" in command.split()

    def owns(self, text: str) -> bool:
        words = re.split(r"[\s/]+", text)
        mine = {self.settings.interface, self.settings.cgroup}
        return bool(mine & set(words)) or any(_address_in(word, self.settings.index) for word in words)


def _address_in(word: str, index: int) -> bool:
    if not re.fullmatch(r"10\.\d+\.\d+\.\d+", word):
        return False
    return any(IPv4Network(word).subnet_of(net) for net in networks(index).values())


def snapshot(leaving_out: Collection[str] = ()) -> Snapshot:
    """Return what is there now; `leaving_out` names clusters that are none of the caller's business."""
    others = [_others_facts(name) for name in leaving_out if (registry.folder() / name / "settings.json").exists()]
    found_processes, found_namespaces = _processes_and_namespaces(others)
    found = {
        "processes": found_processes,
        "namespaces": found_namespaces,
        "mounts": _lines(Path("/proc/self/mountinfo").read_text()),
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "routes": _lines(run("ip", "-4", "route", "show", "table", "all").stdout),
        "cgroups": {str(path) for top in cgroups.hierarchies() for path in top.rglob("genrm-*")},
        "firewall rules": _firewall_rules(),
    }
    return {kind: frozenset(x for x in texts if not any(o.owns(x) for o in others)) for kind, texts in found.items()}


def added(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """Return what `after` has and `before` has not, by kind; kinds without any are left out."""
    return {kind: new for kind in KINDS if (new := sorted(after[kind] - before[kind]))}


def _others_facts(name: str) -> _Cluster:
    directory = registry.folder() / name
    number = directory / keeper.NET_NAMESPACE
    return _Cluster(Settings.load(directory), number.read_text() if number.exists() else "unknown")


def _processes_and_namespaces(others: Collection[_Cluster]) -> tuple[set[str], set[str]]:
    ours = _spaces(os.getpid())
    found_processes, found_namespaces = set(), set()
    for pid in processes.all_pids():
        try:
            spaces = _spaces(pid)
            command = (processes.PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cgroup = (processes.PROC / str(pid) / "cgroup").read_text()
        except OSError:
            continue  # it has just ended
        if spaces == ours and str(registry.folder()) not in command:
            continue
        if any(other.owns_process(command, cgroup, spaces) for other in others):
            continue
        found_processes.add(f"{pid} {command[:200]}")
        found_namespaces |= spaces - ours
    return found_processes, found_namespaces


def _spaces(pid: int) -> set[str]:
    """Return the process's namespaces as the kernel writes them, like net:[4026531840]."""
    return {str((processes.PROC / str(pid) / "ns" / kind).readlink()) for kind in _NAMESPACES}


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip()}


def _firewall_rules() -> set[str]:
    rules = _lines(run("nft", "list", "ruleset").stdout)
    if shutil.which("iptables-legacy-save"):
        rules |= {line for line in _lines(run("iptables-legacy-save").stdout) if line.startswith("-A")}
    return rules
