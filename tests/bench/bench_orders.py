"""What the least contradicted orders cost, and how near the search for many players comes: `make bench-orders`.

Each size runs in a process of its own, so that its peak memory is its own. The tournaments are the worst there are:
every pair decided by a coin, which knots all players into one. The local search is meant for more than 20 players,
where no optimum is known; here it is held to the optimum of 12 to 20, decided by coins and by a judge who is often
right.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import subprocess
import sys
import time
from statistics import median

from genrm_scoring.tournaments.local_search import good_order
from genrm_scoring.tournaments.subset_dp import optimal_orders

from tests.bench.common import Figures

Arcs = list[list[int]]


def tournament(players: int, chance: random.Random, right: float = 0.5) -> Arcs:
    """The earlier player wins a pair with probability `right`."""
    arcs = [[0] * players for _ in range(players)]
    for u, v in itertools.combinations(range(players), 2):
        winner, loser = (u, v) if chance.random() < right else (v, u)
        arcs[winner][loser] = 1_000_000
    return arcs


def alone(players: int, times: int) -> None:
    """CPU seconds of each tournament (the neighbours on a machine do not count) and the peak memory, in MiB."""
    chance = random.Random(players)
    optimal_orders(tournament(4, chance))
    for _ in range(times):
        arcs = tournament(players, chance)
        began = time.process_time()
        optimal_orders(arcs)
        print(time.process_time() - began)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def in_a_process_of_its_own(players: int, times: int) -> tuple[list[float], float]:
    command = [sys.executable, "-m", __spec__.name, "--players", str(players), "--times", str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    *seconds, mebibytes = map(float, done.stdout.split())
    return seconds, mebibytes


def gaps(players: int, right: float, times: int) -> tuple[float, float]:
    """Of all backward arcs, the share that the local search has too many; and how often it has none too many."""
    chance = random.Random(players)
    least = found = hits = 0
    for _ in range(times):
        arcs = tournament(players, chance, right)
        order = [u for cell in good_order(arcs) for u in cell]
        cost = sum(arcs[v][u] for u, v in itertools.combinations(order, 2))
        optimum = optimal_orders(arcs).cost
        least, found, hits = least + optimum, found + cost, hits + (cost == optimum)
    return (found - least) / max(least, 1), hits / times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, help="only time tournaments of this size, in this process")
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args()
    if args.players:
        alone(args.players, args.times)
        return 0
    figures = Figures()
    for players, times, aim in ((12, 20, None), (16, 20, 50.0), (20, 5, 3000.0)):
        seconds, mebibytes = in_a_process_of_its_own(players, times)
        figures.note(f"all best orders of {players}: median", 1000 * median(seconds), "ms", most=aim)
        figures.note(f"all best orders of {players}: slowest of {times}", 1000 * max(seconds), "ms")
        figures.note(f"all best orders of {players}: peak memory", mebibytes, "MiB", most=400 if aim else None)
    for players, times in ((12, 300), (16, 200), (20, 15)):
        for right in (0.5, 0.8):
            gap, hits = gaps(players, right, times)
            figures.note(f"search, {players} players, {right:.0%} right: arcs too many", 100 * gap, "%")
            figures.note(f"search, {players} players, {right:.0%} right: optimum found", 100 * hits, "%")
    for players in (32, 64, 128):
        arcs = tournament(players, random.Random(players))
        began = time.process_time()
        good_order(arcs)
        figures.note(f"search, {players} players, by coin", time.process_time() - began, "s")
    return int(any(figure.met is False for figure in figures.figures))


if __name__ == "__main__":
    sys.exit(main())
