"""The text inside the last `<tag>`, as in `<score>7</score>`.

A tag that opens after the last one closed hides the verdict, as a box that never closes does.
"""

from __future__ import annotations

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head, tail
from genrm_scoring.parsers.worth import LONGEST_LABEL


def tagged(text: str, tag: str) -> str:
    """
    Raises:
        ParseFailed: there is no such tag, the last one does not close, or it holds an essay.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = text.rfind(opening)
    if start < 0:
        raise ParseFailed(f"no {opening} in the answer, which ends with {tail(text)}")
    inside = start + len(opening)
    end = text.find(closing, inside, inside + LONGEST_LABEL + len(closing))
    if end < 0:
        raise ParseFailed(f"the last {opening} never closes: {head(text[start:])}")
    return text[inside:end].strip()
