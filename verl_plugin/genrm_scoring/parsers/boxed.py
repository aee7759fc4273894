r"""The text inside the last `\boxed{}`, as mathematics models end their answers.

Braces inside the box are counted, and a wrapper like `\text{}` around the whole content is taken off. A last box that
never closes hides the verdict: one before it does not count instead.
"""

from __future__ import annotations

import re
from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head, tail
from genrm_scoring.parsers.worth import LONGEST_LABEL

_BOX: Final = r"\boxed{"
_BRACE: Final = re.compile(r"[{}]")
_TEXT_WRAPPER: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


def boxed(text: str) -> str:
    """
    Raises:
        ParseFailed: there is no box, or the last one does not close.
    """
    start = text.rfind(_BOX)
    if start < 0:
        raise ParseFailed(f"no \\boxed{{}} in the answer, which ends with {tail(text)}")
    label = in_last_box(text, longest=LONGEST_LABEL)
    if label is None:
        raise ParseFailed(f"the last box never closes: {head(text[start:])}")
    label = label.strip()
    wrapped = _TEXT_WRAPPER.fullmatch(label)
    return wrapped[1].strip() if wrapped else label


def in_last_box(text: str, longest: int | None = None) -> str | None:
    """What the last box holds; `None` if there is none, or it does not close within `longest` characters."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    inside = start + len(_BOX)
    depth = 1
    for brace in _BRACE.finditer(text, inside, len(text) if longest is None else inside + longest):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[inside : brace.start()]
    return None
