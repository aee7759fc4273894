"""Which index a new cluster takes, and the few things of it that exist outside its box.

The index is claimed by binding a socket of that name in the abstract namespace: the kernel lets one process of the
machine have it and frees it when the last holder ends, so claims need no files and cannot be left behind. An index
whose cgroup or networks are already there (another tool's, or a dead cluster's not yet removed) is passed over.
"""

import json
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

from dev.cluster.cgroups import boxes_with_cgroups
from dev.cluster.commands import run
from dev.cluster.errors import ClusterError
from dev.cluster.settings import INDEXES, Settings, networks


def free_indexes(taken: Iterable[int], used_networks: Iterable[IPv4Network]) -> list[int]:
    """Return the indexes that are not taken and whose networks overlap none of `used_networks`."""
    used, skip = list(used_networks), set(taken)
    return [
        index
        for index in INDEXES
        if index not in skip and not any(mine.overlaps(other) for mine in networks(index).values() for other in used)
    ]


def claim(index: int) -> socket.socket | None:
    """Claim the index for as long as the returned socket, or a copy in a child, is open; None if it is taken."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0genrm-cluster-{index}")
    except OSError:
        holder.close()
        return None
    return holder


def claim_free_index() -> tuple[int, socket.socket]:
    """Claim the first free index.

    Raises:
        ClusterError: there is none.
    """
    for index in free_indexes(boxes_with_cgroups(), routed_networks()):
        if holder := claim(index):
            return index, holder
    raise ClusterError(f"no free cluster index in {INDEXES}: run python -m dev.cluster down --all")


def routed_networks() -> list[IPv4Network]:
    """Return the networks that the host has routes to, the default route left out."""
    routes = json.loads(run("ip", "-4", "-json", "route", "show", "table", "all").stdout or "[]")
    return [IPv4Network(route["dst"]) for route in routes if route.get("dst", "default") != "default"]


def connect(settings: Settings, box_pid: int) -> None:
    """Join host and box by a veth pair, and route the cluster's networks through it."""
    run("ip", "link", "add", settings.interface, "type", "veth", "peer", "name", "eth0", "netns", box_pid)
    run("ip", "addr", "add", f"{settings.host_address}/24", "dev", settings.interface)
    run("ip", "link", "set", settings.interface, "up")
    for net in (settings.pods, settings.fake_pods, settings.services):
        run("ip", "route", "add", net, "via", settings.address)


def is_connected(settings: Settings) -> bool:
    """Whether the host's end of the veth pair is there, and so the box's network namespace too."""
    return Path("/sys/class/net", settings.interface).exists()


def disconnect(settings: Settings) -> None:
    """Remove the veth pair, and with it the routes. The kernel does so itself some time after the box's end."""
    run("ip", "link", "del", settings.interface, check=False)
