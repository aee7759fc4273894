"""Templates: how what is asked about becomes a question. Pure text.

sandbox   the template language: a part of Jinja that is bounded in time and size
defused   values as plain text, whatever special tokens they spell
*.j2      what the built-in judges ask, by name

What the questions about one prompt share comes first (the rubric, then the prompt), and what differs (the responses)
last: engines compute a shared beginning once.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from genrm_scoring.templates.defused import all_defused, defused, defused_turn
from genrm_scoring.templates.sandbox import LONGEST_QUESTION, OBJECTS, Template, Value

__all__ = [
    "LONGEST_QUESTION",
    "ONE",
    "PAIR",
    "SEVERAL",
    "Template",
    "Value",
    "all_defused",
    "built_in",
    "defused",
    "defused_turn",
]

_ALWAYS: Final = frozenset({"question", "reference", "principle", *OBJECTS})
ONE: Final = _ALWAYS | {"response"}
"""Variables of a question about one response."""
PAIR: Final = _ALWAYS | {"response_a", "response_b"}
SEVERAL: Final = _ALWAYS | {"responses"}


def built_in(name: str) -> str:
    """The template of a built-in judge, to be used or to start from."""
    return (resources.files(__name__) / f"{name}.j2").read_text(encoding="utf-8")
