"""Win rate: the mean of what a response got out of its judged pairs, in [0, 1]; a tie is half a win."""

from __future__ import annotations

from genrm_scoring.tournaments.comparisons import WIN, Tally


def winrate(table: Tally) -> tuple[float | None, ...]:
    return tuple((sum(row.values()) + WIN * len(row)) / (2 * WIN * len(row)) if row else None for row in table.margins)
