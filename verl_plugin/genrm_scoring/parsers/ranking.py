"""An order of the responses, best first: `<ranking>3, 1, 2</ranking>`, counted from 1.

Every response exactly once. A list that leaves one out, names one twice or calls two equal is no verdict: whatever
would be filled in would be made up, and would favour the same places again and again.
"""

from __future__ import annotations

import re
from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head
from genrm_scoring.parsers.tag import tagged
from genrm_scoring.types import Ranking

TAG: Final = "ranking"
_LIST: Final = re.compile(r"\[?\s*[0-9]{1,4}(?:(?:\s*[,>;]\s*|\s+)[0-9]{1,4})*\s*\]?")
_PLACE: Final = re.compile(r"[0-9]+")


def ranking(text: str, responses: int) -> Ranking:
    """
    Raises:
        ParseFailed: it is not an order of this many responses.
    """
    listed = tagged(text, TAG)
    if _LIST.fullmatch(listed) is None:
        raise ParseFailed(f"{head(listed)} is no list of numbers")
    best_first = tuple(int(place) - 1 for place in _PLACE.findall(listed))
    if sorted(best_first) != list(range(responses)):
        raise ParseFailed(f"{head(listed)} does not name each of {responses} responses once")
    return Ranking(best_first)
