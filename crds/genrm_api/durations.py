"""Durations as Kubernetes writes them: `90s`, `2m`, `1h30m`, `250ms`."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"^([0-9]{1,7}(h|m|s|ms)){1,4}$"
LONGEST: Final = "24h"
_UNITS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def seconds(text: str) -> float:
    """Parse a duration to seconds.

    Raises:
        ValueError: `text` is not of the form above.
    """
    return milliseconds(text) / 1000


def milliseconds(text: str) -> int:
    """Parse a duration exactly.

    Raises:
        ValueError: `text` is not of the form above.
    """
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is no duration: write for example 60s, 2m or 1h30m")
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)(ms|h|m|s)", text))
