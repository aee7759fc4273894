"""Scores of one group, or of one term, brought to a common scale; pure.

Numbers that hardly differ stay equal: where the range, the largest value or the deviation is below a millionth, all
become 0, rather than noise blown up to full size. Sums are exact (`math.fsum`), so that no result depends on the order
of the values. None of these can be undone by what comes later: after minmax every group has a best of 1 and a worst of
-1, however close they were, and what divides by a group's deviation afterwards has nothing left to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from genrm_api.comparing import Normalise

SAME: Final = 1e-6
"""Below this, values do not differ."""


def normalise(kind: Normalise, values: Sequence[float]) -> list[float]:
    """`values` on the scale of `kind`, in the same order.

    none: as they are. minmax: from -1 for the least to 1 for the most. maxabs: by the largest absolute value.
    zscore: less the mean, by the population standard deviation. rank: mean ranks (equal values share theirs), from -1
    to 1; a single value is 0.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError(f"normalise: {[value for value in values if not math.isfinite(value)]} among the values")
    if kind is Normalise.NONE or not values:
        return list(values)
    if kind is Normalise.MINMAX:
        least, most = min(values), max(values)
        return [2 * (value - least) / (most - least) - 1 if most - least >= SAME else 0.0 for value in values]
    if kind is Normalise.MAXABS:
        largest = max(map(abs, values))
        return [value / largest if largest >= SAME else 0.0 for value in values]
    if kind is Normalise.ZSCORE:
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        return [(value - mean) / deviation if deviation >= SAME else 0.0 for value in values]
    below = [sum(other < value for other in values) for value in values]
    above = [sum(other > value for other in values) for value in values]
    others = max(len(values) - 1, 1)
    return [(less - more) / others for less, more in zip(below, above, strict=True)]
