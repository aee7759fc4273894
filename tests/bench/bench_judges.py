"""How much order a judgement buys, by each rule and schedule: `make bench-judges`.

Groups of 4, 8 and 16 responses with known qualities are judged by simulated judges whose faults are known
(`judges.py`): sharpness 3, a bias of 0.8 for the first place, an error a pair of sd 0, 1 and 2 logits. Every method
sees the same groups and, where it asks the same question, gets the same answer, so differences are paired. Beside our
own stand the rules of RM-Gallery (every i < j, the earlier one first) and OpenJudge (both ways round, pairs that
agree).

What is measured: Kendall's tau between scores and truth, and the cosine between the advantages that group-normalised
training makes of either. Intervals are 95 %.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np

matplotlib.use("Agg")

from genrm_api.comparing import Aggregate, Order, ScheduleKind
from genrm_scoring.tournaments import Comparison, aggregate, rm_gallery
from genrm_scoring.tournaments.listwise import compared, presentations
from genrm_scoring.tournaments.schedule import Tournament
from matplotlib import pyplot as plt

from tests.bench.judges import Floats, Group, Judge, cosine, kendall

SIZES: Final = (4, 8, 16)
ERRORS: Final = (0.0, 1.0, 2.0)
BUDGETS: Final = {4: (4, 5, 6), 8: (8, 12, 17, 22, 28), 16: (16, 24, 32, 40, 48, 60, 72, 84, 96, 120)}
YARDSTICK: Final = "all pairs, balanced, winrate"
OPENJUDGE: Final = "OpenJudge"


@dataclass(frozen=True)
class Method:
    """`family` names what is compared over several numbers of calls."""

    family: str
    calls: int
    rounds: int = 1
    logprobs: bool = False

    def __str__(self) -> str:
        return f"{self.family}{', logprobs' if self.logprobs else ''}"


Scored = tuple[Method, Sequence[float]]


def openjudge(group: Group) -> list[float]:
    """(2 wins - valid) / valid over the pairs that are judged the same both ways round."""
    wins, valid = [0] * group.players, [0] * group.players
    for u, v in itertools.combinations(range(group.players), 2):
        there, back = group.hard((u, v)) == 1, group.hard((v, u)) == 0
        if there == back:
            wins[u if there else v] += 1
            valid[u] += 1
            valid[v] += 1
    return [(2 * won - of) / of if of else 0.0 for won, of in zip(wins, valid, strict=True)]


def played(
    group: Group,
    seed: bytes,
    logprobs: bool,
    kind: ScheduleKind,
    order: Order = Order.BALANCED,
    budget: int | None = None,
) -> Tournament:
    tournament = Tournament(group.players, kind=kind, order=order, budget=budget, seed=seed)
    now = [question for u in range(group.players) for question in tournament.arrived(u, b"%d" % u)]
    answer = group.logprob if logprobs else group.hard
    while now:
        now = [more for question in now for more in tournament.answered(question, answer(question))]
    return tournament


def standings(rule: Aggregate, players: int, comparisons: Sequence[Comparison]) -> list[float]:
    """A response without a verdict gets the middle: only a method that asks too little has any."""
    return [0.0 if score is None else score for score in aggregate(rule, players, comparisons).scores]


def methods(group: Group, seed: bytes) -> Iterator[Scored]:
    n = group.players
    pairs = list(itertools.combinations(range(n), 2))
    texts = [b"%d" % u for u in range(n)]
    yield Method("pointwise, 10 grades", n), group.grades()
    for votes in (1, 4):
        lists = [compared(texts, s, group.ranking(s, vote)) for vote, s in enumerate(presentations(texts, votes))]
        yield Method("listwise", votes), standings(Aggregate.WINRATE, n, [c for said in lists for c in said])
    for rule in (Aggregate.WINRATE, Aggregate.COPELAND, Aggregate.DGR, Aggregate.ELO):
        yield Method(f"RM-Gallery {rule}", len(pairs)), rm_gallery.scores(rule, n, group.said(pairs))
    yield Method(OPENJUDGE, 2 * len(pairs)), openjudge(group)
    for logprobs in (False, True):
        for order in (Order.BALANCED, Order.BOTH):
            said = played(group, seed, logprobs, ScheduleKind.ALL, order).comparisons
            for rule in Aggregate:
                yield Method(f"all pairs, {order}, {rule}", len(said), 1, logprobs), standings(rule, n, said)
        for width in (1, 2, 3):
            if 2 * width < n - 1:
                said = played(group, seed, logprobs, ScheduleKind.CIRCULAR, budget=width * n).comparisons
                yield Method("circular, bt", len(said), 1, logprobs), standings(Aggregate.BT, n, said)
        for budget in BUDGETS[n]:
            tournament = played(group, seed, logprobs, ScheduleKind.ACTIVE, budget=budget)
            said = tournament.comparisons
            yield Method("active, bt", len(said), tournament.rounds, logprobs), standings(Aggregate.BT, n, said)


def measured(players: int, judge: Judge, seed: int) -> list[tuple[Method, float, float]]:
    group = Group.draw(players, judge, seed)
    found = [(method, np.array(scores)) for method, scores in methods(group, b"group %d" % seed)]
    return [(method, kendall(group.truth, scores), cosine(group.truth, scores)) for method, scores in found]


@dataclass(frozen=True)
class Row:
    """`taus` and `cosines`: one a group."""

    method: Method
    taus: Floats
    cosines: Floats

    @property
    def half(self) -> float:
        return interval(self.taus)


def interval(values: Floats) -> float:
    """Half the width of the 95 % interval of the mean."""
    return float(1.96 * values.std(ddof=1) / len(values) ** 0.5)


def bench(players: int, judge: Judge, groups: int, pool: ProcessPoolExecutor) -> list[Row]:
    runs = list(pool.map(partial(measured, players, judge), range(groups), chunksize=10))
    taus: dict[Method, list[float]] = {}
    cosines: dict[Method, list[float]] = {}
    for run in runs:
        for method, tau, alike in run:
            taus.setdefault(method, []).append(tau)
            cosines.setdefault(method, []).append(alike)
    return [Row(method, np.array(found), np.array(cosines[method])) for method, found in taus.items()]


def row_of(rows: Sequence[Row], name: str) -> Row:
    return next(row for row in rows if str(row.method) == name)


def fewest(rows: Sequence[Row], goal: Row, logprobs: bool) -> Row | None:
    """The row of one verdict a call with the fewest calls whose mean tau is not below the goal's."""
    reach = [row for row in rows if row.method.logprobs == logprobs and (row.taus - goal.taus).mean() >= 0]
    ours = [row for row in reach if row.method.family.startswith(("active", "circular", "all pairs"))]
    return min(ours, key=lambda row: (row.method.calls, -row.taus.mean()), default=None)


def report(players: int, judge: Judge, rows: Sequence[Row]) -> None:
    yardstick = row_of(rows, YARDSTICK)
    print(f"\nn = {players}, pair error sd {judge.error:g}, {len(yardstick.taus)} groups")
    print(
        f"{'method':<44}{'calls':>6}{'rounds':>7}{'tau':>9}{'+-':>7}{'to yardstick':>14}{'+-':>7}{'cosine':>9}{'+-':>7}"
    )
    for row in sorted(rows, key=lambda row: (row.method.logprobs, row.method.family, row.method.calls)):
        more = row.taus - yardstick.taus
        print(
            f"{row.method!s:<44}{row.method.calls:>6}{row.method.rounds:>7}{row.taus.mean():>9.4f}{row.half:>7.4f}"
            f"{more.mean():>+14.4f}{interval(more):>7.4f}{row.cosines.mean():>9.4f}{interval(row.cosines):>7.4f}"
        )
    openjudges = row_of(rows, OPENJUDGE)
    for logprobs, goal in itertools.product((False, True), (yardstick, openjudges)):
        found = fewest(rows, goal, logprobs)
        kind = "logprob" if logprobs else "hard"
        what = f"{found.method.calls} ({found.method})" if found else "none of those tried"
        print(f"  fewest {kind} verdicts with the tau of {goal.method} ({goal.method.calls} calls): {what}", flush=True)


def draw(found: dict[float, list[Row]], players: int, path: Path) -> None:
    """A panel a pair error: tau against calls."""
    figure, panels = plt.subplots(1, len(found), figsize=(12, 4.4), sharey=True, layout="constrained")
    lines = {"active, bt": "#1b6ca8", "active, bt, logprobs": "#2a9d4a", "circular, bt, logprobs": "#9bc53d"}
    points = {
        YARDSTICK: ("all pairs, balanced", "#1b6ca8", "s"),
        "all pairs, balanced, bt, logprobs": ("all pairs, balanced, logprobs", "#2a9d4a", "s"),
        "RM-Gallery winrate": ("RM-Gallery", "#d1495b", "o"),
        OPENJUDGE: ("OpenJudge", "#8d3b72", "D"),
        "pointwise, 10 grades": ("pointwise", "#888888", "^"),
    }
    for axes, (error, rows) in zip(panels, found.items(), strict=True):
        for name, colour in lines.items():
            mine = sorted((row for row in rows if str(row.method) == name), key=lambda row: row.method.calls)
            calls, taus = [row.method.calls for row in mine], [row.taus.mean() for row in mine]
            axes.errorbar(calls, taus, [row.half for row in mine], color=colour, marker=".", capsize=2, label=name)
        for name, (label, colour, marker) in points.items():
            row = row_of(rows, name)
            axes.errorbar(
                [row.method.calls], [row.taus.mean()], [row.half], color=colour, marker=marker, ls="", ms=6, label=label
            )
        axes.axhline(row_of(rows, YARDSTICK).taus.mean(), color="#1b6ca8", lw=0.8, ls=":")
        axes.axhline(row_of(rows, OPENJUDGE).taus.mean(), color="#8d3b72", lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_xticks([16, 32, 72, 120, 240], ["16", "32", "72", "120", "240"])
        axes.minorticks_off()
        axes.set_xlabel("judgements for one group")
        axes.set_title(f"pair error: {error:g} logits", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"Kendall's tau to the truth, n = {players}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="outside lower center", fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1000, help="of each size and judge")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--picture", type=Path, help="draw the largest size into this PNG")
    args = parser.parse_args()
    met = True
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for players in args.sizes:
            found = {}
            for error in ERRORS:
                judge = Judge(error=error)
                found[error] = bench(players, judge, args.groups, pool)
                report(players, judge, found[error])
            if players == max(SIZES):
                hard = fewest(found[0.0], row_of(found[0.0], YARDSTICK), logprobs=False)
                met = hard is not None and hard.method.calls <= 72
                if args.picture:
                    draw(found, players, args.picture)
    print(
        f"\nthe tau of all 120 pairs in at most 72 hard verdicts (n = 16, no pair error): {'met' if met else 'MISSED'}"
    )
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
