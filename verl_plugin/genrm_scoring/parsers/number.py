"""The only number of an answer.

For judges that are asked for a number and nothing else, and mostly obey. "The score is 7." holds one; "7 out of 10",
"7/10" and "1,000" hold two, "GPT4" holds half a word, "90%" may be 90 or 0.9: none of these is unmistakable.
"""

from __future__ import annotations

import re
from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head, tail

_NUMBER: Final = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)")
_SIGNS: Final = "-+−"
_PART_OF_MORE: Final = "_%‰/^.,–‐‑"
"""Beside a number these make something else of it. A point after it ends the sentence."""


def only_number(text: str) -> str:
    """
    Raises:
        ParseFailed: there is none, there are several, or it is part of something else.
    """
    found = _NUMBER.finditer(text)
    match, another = next(found, None), next(found, None)
    if match is None:
        raise ParseFailed(f"no number in the answer, which ends with {tail(text)}")
    if another is not None:
        raise ParseFailed(f"more than one number: {match[0][:32]!r}, {another[0][:32]!r}")
    start = match.start()
    signed = start > 0 and text[start - 1] in _SIGNS
    start -= signed
    before, after = text[start - 1 : start] if start else "", text[match.end() : match.end() + 1]
    whole = before + text[start : match.end()] + after
    if before and (before.isalnum() or before in _PART_OF_MORE + _SIGNS):
        raise ParseFailed(f"the number is part of something else: {head(whole)}")
    if after and (after.isalnum() or (after in _PART_OF_MORE + _SIGNS and after not in ".,")):
        raise ParseFailed(f"the number is part of something else: {head(whole)}")
    if not match[0].isascii():
        raise ParseFailed(f"the number is not written in 0 to 9: {head(whole)}")
    return text[start : match.end()]
