"""What a label is worth: a number from a table, or the number that it is itself, within bounds.

Nothing is rounded, clamped or taken for something near: a label that the table does not know, a number outside the
bounds, and a text that is not a number from end to end are no verdicts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head
from genrm_scoring.types import Verdict

LONGEST_LABEL: Final = 1024
"""Characters. Words that are longer are an essay, and where one begins and ends is not worth the search."""
_NUMBER: Final = re.compile(r"[+\-−]?(?:[0-9]{1,32}(?:\.[0-9]{0,32})?|\.[0-9]{1,32})(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Worth:
    """`values` by label, or none: then the label is a number. The bounds are inclusive."""

    values: Mapping[str, float] | None = None
    minimum: float | None = None
    maximum: float | None = None

    def of(self, label: str) -> Verdict:
        """
        Raises:
            ParseFailed: the label is worth nothing.
        """
        label = label.strip()
        if self.values is not None:
            if label not in self.values:
                raise ParseFailed(f"{head(label)} is none of {', '.join(map(repr, list(self.values)[:12]))}")
            return Verdict(label, self.within(self.values[label]))
        return Verdict(label, self.within(number(label)))

    def within(self, value: float) -> float:
        """`value` if it is a number within the bounds.

        Raises:
            ParseFailed: it is not.
        """
        if not math.isfinite(value):
            raise ParseFailed(f"{value} is no number")
        if self.minimum is not None and value < self.minimum:
            raise ParseFailed(f"{value:g} is less than {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise ParseFailed(f"{value:g} is more than {self.maximum:g}")
        return value


def number(text: str) -> float:
    """The number that `text` is, as a decimal or with an exponent.

    Raises:
        ParseFailed: it is anything else, like 7/10, 1,000 or nan.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ParseFailed(f"{head(text)} is not a number")
    value = float(text.replace("−", "-"))
    if not math.isfinite(value):
        raise ParseFailed(f"{head(text)} is too large a number")
    return value
