"""Copeland: pairs won less pairs lost, over the judged pairs, in [-1, 1] (Copeland 1951).

How clearly a pair was won does not count here, a tie counts for neither. With all pairs judged the divisor is n - 1.
"""

from __future__ import annotations

from genrm_scoring.tournaments.comparisons import Tally


def copeland(table: Tally) -> tuple[float | None, ...]:
    return tuple(
        sum((margin > 0) - (margin < 0) for margin in row.values()) / len(row) if row else None for row in table.margins
    )
