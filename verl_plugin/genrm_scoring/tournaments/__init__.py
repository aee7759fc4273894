"""From verdicts on pairs to a score for each response of a group; pure, no response's number means anything.

comparisons    verdicts as data, and the table of margins they make
winrate, copeland, dgr, elo, bradley_terry    one rule a file; `aggregate` picks one
best_orders    which arcs survive in the orders that contradict least (for dgr); subset_dp, local_search
seating        who is shown first in a question about two
schedule       which pairs to ask now: as responses arrive, or in rounds; active chooses the pairs of later rounds
listwise       in which orders all are shown, and what rankings say of pairs
anchor         a text that plays along and is not trained
rm_gallery     the numbers of RM-Gallery 0.1.7, where a run wants them

Shown in docs/explanation/tournaments.md.
"""

from collections.abc import Sequence

from genrm_api.comparing import Aggregate

from genrm_scoring.tournaments.bradley_terry import posterior
from genrm_scoring.tournaments.comparisons import Comparison, Tally, tally
from genrm_scoring.tournaments.copeland import copeland
from genrm_scoring.tournaments.dgr import dgr
from genrm_scoring.tournaments.elo import elo
from genrm_scoring.tournaments.standings import Conflicts, Standings
from genrm_scoring.tournaments.winrate import winrate

__all__ = ["Comparison", "Conflicts", "Standings", "Tally", "aggregate", "tally"]


def aggregate(rule: Aggregate, players: int, comparisons: Sequence[Comparison]) -> Standings:
    """The standings of responses 0 to `players` - 1 by one rule, from whatever verdicts there are.

    Renumbering the responses renumbers the scores: exactly under winrate, copeland and dgr, to 1e-9 under elo and bt.
    dgr of 17 to 20 responses in one knot of circles computes for up to a second; the others take milliseconds.

    Raises:
        ValueError: a comparison names a response that the group does not have.
    """
    table = tally(players, comparisons)
    if rule is Aggregate.WINRATE:
        return Standings(winrate(table), table)
    if rule is Aggregate.COPELAND:
        return Standings(copeland(table), table)
    if rule is Aggregate.ELO:
        return Standings(elo(table), table)
    if rule is Aggregate.DGR:
        scores, conflicts = dgr(table)
        return Standings(scores, table, conflicts=conflicts)
    found = posterior(players, comparisons)
    strengths = tuple(float(found.strengths[u]) if row else None for u, row in enumerate(table.margins))
    return Standings(strengths, table, first_bias=found.bias)
