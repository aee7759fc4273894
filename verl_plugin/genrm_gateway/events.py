"""Server-sent events in OpenAI's form: where one ends, which is the last, and how an error is one. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MEDIA_TYPE: Final = "text/event-stream"
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_LAST: Final = re.compile(rb"^data: ?\[DONE\]\r?$", re.M)


class Cutter:
    """Makes whole events of bytes that come in any pieces: what breaks off in the middle of one is none."""

    def __init__(self) -> None:
        self._held = b""
        self.ended = False
        """Whether the last event was among what was returned."""

    def whole(self, some: bytes) -> bytes:
        """The events that are complete with these bytes, if any are."""
        held = self._held + some
        cut = max((held.rfind(end) + len(end) for end in _ENDS if end in held), default=0)
        return self._returned(held[:cut], held[cut:])

    def rest(self) -> bytes:
        """At the end of all bytes: the last event, if no empty line came after it."""
        held = self._held
        return self._returned(held + b"\n\n", b"") if _LAST.search(held) else b""

    def _returned(self, events: bytes, held: bytes) -> bytes:
        self._held = held
        self.ended = self.ended or _LAST.search(events) is not None
        return events


def error_in_words(outcome: str, message: str) -> dict[str, Any]:
    """In the fields that OpenAI's clients look for, and with the outcome as everywhere here."""
    return {"message": message, "type": "server_error", "param": None, "code": outcome, "outcome": outcome}


def error_event(outcome: str, message: str) -> bytes:
    return b"data: " + json.dumps({"error": error_in_words(outcome, message)}).encode() + b"\n\n"
