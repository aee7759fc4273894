"""The command line: `python -m dev.cluster up|down|status|build|load|kubectl`.

Results that another program may want (the `export` line, the status table) go to standard output, progress to standard
error.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.cluster import registry, toolchain
from dev.cluster.cluster import Cluster
from dev.cluster.errors import ClusterError

DEFAULT_NAME = "dev"
progress = Console(stderr=True, highlight=False)


def tell(name: str, seconds: float, cached: bool) -> None:
    """Print one finished step."""
    took = "[dim]there already[/]" if cached or seconds < 0.05 else f"[dim]{seconds:.1f} s[/]"
    progress.print(f"  [green]✓[/] {name} {took}")


def up(asked: argparse.Namespace) -> None:
    started = time.monotonic()
    if registry.known().get(asked.name):
        cluster = Cluster.get(asked.name)
        progress.print(f"cluster [bold]{asked.name}[/] is up already")
    else:
        node = asked.node or not asked.kwok
        cluster = Cluster.up(asked.name, node=node, kwok_nodes=asked.kwok, on_step=tell)
        progress.print(f"cluster [bold]{asked.name}[/] is up after {time.monotonic() - started:.1f} s")
    print(f"export KUBECONFIG={cluster.kubeconfig} PATH={cluster.bin}:$PATH")


def down(asked: argparse.Namespace) -> None:
    names = list(registry.known()) if asked.all else [asked.name]
    for name in names:
        started = time.monotonic()
        there = registry.take_down(name)
        result = f"is gone after {time.monotonic() - started:.1f} s" if there else "was not there"
        progress.print(f"cluster [bold]{name}[/] {result}")
    if asked.all:
        registry.sweep()
        if not names:
            progress.print("no cluster was there")


def status(asked: argparse.Namespace) -> None:
    known = registry.known()
    if not known:
        progress.print("no cluster is there: python -m dev.cluster up")
    for name, is_up in known.items():
        if not is_up:
            progress.print(f"cluster [bold]{name}[/] is not up: python -m dev.cluster down --name {name}")
            continue
        cluster = Cluster.get(name)
        kind = "node" if cluster.settings.node else f"{cluster.settings.kwok_nodes} fake nodes"
        used, peak = cluster.memory_bytes() / 2**20, cluster.peak_memory_bytes() / 2**20
        print(f"{name}: {kind}, {cluster.settings.server}, {used:.0f} MiB in use, {peak:.0f} MiB at most")
        table = Table("component", "pid", "resident", "up for")
        for process in sorted(cluster.status(), key=lambda process: process.pid):
            row = (process.name, str(process.pid), f"{process.rss_bytes / 2**20:.0f} MiB", f"{process.seconds:.0f} s")
            table.add_row(*row)
        Console().print(table)


def build(asked: argparse.Namespace) -> None:
    print(toolchain.build(tell))


def load(asked: argparse.Namespace) -> None:
    cluster = Cluster.get(asked.name)
    for archive in asked.archive:
        started = time.monotonic()
        cluster.load_image(archive)
        tell(str(archive), time.monotonic() - started, False)


def kubectl(asked: argparse.Namespace) -> None:
    cluster = Cluster.get(asked.name)
    program = str(cluster.bin / "kubectl")
    os.execve(program, [program, *asked.arguments], cluster.environment())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m dev.cluster", description="A real Kubernetes on this machine.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: object, text: str, named: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        if named:
            added.add_argument("--name", default=DEFAULT_NAME, help=f"of the cluster, by default {DEFAULT_NAME}")
        return added

    upping = command("up", up, "bring a cluster up")
    upping.add_argument("--node", action="store_true", help="with a real node (the default without --kwok)")
    upping.add_argument("--kwok", type=int, default=0, metavar="N", help="with N fake nodes")
    downing = command("down", down, "remove a cluster, or what is left of one, without a trace")
    downing.add_argument("--all", action="store_true", help="every cluster of this machine")
    command("status", status, "tell which clusters there are and what they use", named=False)
    command("build", build, "build every program, and print the folder they are in", named=False)
    command("load", load, "import image archives").add_argument("archive", nargs="+", type=Path)
    asking = command("kubectl", kubectl, "run kubectl on a cluster: kubectl -- get pods")
    asking.add_argument("arguments", nargs=argparse.REMAINDER)
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    asked = parser().parse_args(words)
    try:
        asked.action(asked)
    except ClusterError as error:
        progress.print(f"[red]{type(error).__name__}[/]:", end=" ")
        progress.print(str(error), markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
