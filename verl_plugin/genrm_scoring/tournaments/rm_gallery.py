"""The scores of RM-Gallery 0.1.7, number for number, for runs that compare themselves with older ones.

Its judge reads every i < j with i first and says A, B or tie; anything else counts as a tie. Its rules normalise inside
the group, count a tie as no win (winrate), divide by the best (copeland), throw a coin for the arc of a tie and take
the first best order it meets (dgr), and update game by game (elo). Why ours are others:
docs/explanation/tournaments.md.

From rm_gallery/gallery/evaluation/llm_judge/evaluators/pairwise.py. Two things there depend on chance and are fixed
here: the coins come from `random.Random(seed)`, one for each tie in the order of the pairs, and games are played in
that order too. Its pointwise and listwise scores are those of our modes with `normalise: minmax`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from genrm_api.comparing import Aggregate, Normalise

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.normalise import normalise
from genrm_scoring.tournaments.comparisons import Comparison, tally
from genrm_scoring.tournaments.standings import Standings
from genrm_scoring.tournaments.subset_dp import best_orders

Game = tuple[int, int, int]
"""i < j, and 1 if i won, -1 if j won, 0 for a tie."""
EXACT_UP_TO: Final = 10
TIE_COST: Final = 0.1


def scores(rule: Aggregate, players: int, comparisons: Sequence[Comparison], seed: int = 0) -> list[float]:
    """The scores of a group by RM-Gallery's rule of this name, in [-1, 1].

    Raises:
        ConfigurationError: RM-Gallery has no rule of this name.
    """
    games = sorted(_game(comparison) for comparison in comparisons)
    if players < 2:
        return [0.0] * players
    if rule is Aggregate.WINRATE:
        return normalise(Normalise.MINMAX, _winrates(players, games))
    if rule is Aggregate.COPELAND:
        return normalise(Normalise.MAXABS, _net_wins(players, games))
    if rule is Aggregate.DGR:
        return normalise(Normalise.MAXABS, _without_conflicts(players, games, random.Random(seed)))
    if rule is Aggregate.ELO:
        return normalise(Normalise.MINMAX, _ratings(players, games))
    raise ConfigurationError("scoring.aggregate", f"{rule} is not among the rules of RM-Gallery; remove compat")


def standings(rule: Aggregate, players: int, comparisons: Sequence[Comparison], seed: int) -> Standings:
    """The same as the standings of a group. Who has no verdict at all has no score, where RM-Gallery made one up.

    Raises:
        ConfigurationError: RM-Gallery has no rule of this name.
    """
    table = tally(players, comparisons)
    found = scores(rule, players, comparisons, seed)
    return Standings(tuple(score if row else None for score, row in zip(found, table.margins, strict=True)), table)


def _game(comparison: Comparison) -> Game:
    result = (comparison.preference > 0.5) - (comparison.preference < 0.5)
    if comparison.first < comparison.second:
        return comparison.first, comparison.second, result
    return comparison.second, comparison.first, -result


def _winrates(players: int, games: Sequence[Game]) -> list[float]:
    wins, games_of = [0] * players, [0] * players
    for i, j, result in games:
        wins[i] += result > 0
        wins[j] += result < 0
        games_of[i] += 1
        games_of[j] += 1
    return [won / of if of else 0.5 for won, of in zip(wins, games_of, strict=True)]


def _net_wins(players: int, games: Sequence[Game]) -> list[float]:
    net = [0.0] * players
    for i, j, result in games:
        net[i] += result
        net[j] -= result
    return net


def _without_conflicts(players: int, games: Sequence[Game], coins: random.Random) -> list[float]:
    """Net wins over the arcs that the chosen order does not turn around. A pair without a game is a tie."""
    results = {(i, j): result for i, j, result in games}
    arcs: dict[tuple[int, int], bool] = {}
    for i in range(players):
        for j in range(i + 1, players):
            result = results.get((i, j), 0)
            forward = result > 0 if result else coins.random() < 0.5
            arcs[(i, j) if forward else (j, i)] = result != 0
    place = {player: at for at, player in enumerate(_order(players, arcs))}
    net = [0.0] * players
    for (u, v), real in arcs.items():
        if real and place[u] < place[v]:
            net[u] += 1
            net[v] -= 1
    return net


def _order(players: int, arcs: dict[tuple[int, int], bool]) -> Sequence[int]:
    if players > EXACT_UP_TO:
        net = _net_wins(players, [(u, v, 1) for (u, v), real in arcs.items() if real])
        return sorted(range(players), key=lambda u: (net[u], u), reverse=True)
    return min(_cheapest(players, arcs), key=lambda order: _cost(order, arcs))


def _cheapest(players: int, arcs: dict[tuple[int, int], bool]) -> Iterator[tuple[int, ...]]:
    """The best orders in lexicographic order. Their float costs may differ in the last digit: `min` takes the first."""
    weights = [[0] * players for _ in range(players)]
    for (u, v), real in arcs.items():
        weights[u][v] = 10 if real else 1
    return best_orders(weights)


def _cost(order: Sequence[int], arcs: dict[tuple[int, int], bool]) -> float:
    """Summed as the original does: by the arcs' ends, in floats."""
    place = {player: at for at, player in enumerate(order)}
    cost = 0.0
    for u, v in sorted(arcs):
        if place[u] > place[v]:
            cost += 1 if arcs[u, v] else TIE_COST
    return cost


def _ratings(players: int, games: Sequence[Game]) -> list[float]:
    ratings = [1500.0] * players
    for _ in range(100):
        before = list(ratings)
        for i, j, result in games:
            score = (result + 1) / 2
            expected_i = 1.0 / (1.0 + 10 ** ((ratings[j] - ratings[i]) / 400.0))
            expected_j = 1.0 / (1.0 + 10 ** ((ratings[i] - ratings[j]) / 400.0))
            ratings[i] += 32.0 * (score - expected_i)
            ratings[j] += 32.0 * ((1 - score) - expected_j)
        if max(abs(now - then) for now, then in zip(ratings, before, strict=True)) < 0.01:
            break
    return ratings
