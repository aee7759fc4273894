"""What an error shows of an answer: little, and escaped, because an answer may hold anything."""

from __future__ import annotations

from typing import Final

SHOWN: Final = 80


def head(text: str) -> str:
    """The beginning of `text`, quoted."""
    return repr(text[:SHOWN])


def tail(text: str) -> str:
    """Its end: most judges say there what counts."""
    return repr(text[-SHOWN:])
