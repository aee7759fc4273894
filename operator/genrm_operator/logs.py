"""The operator's log: text for a person, or one JSON object a line for a machine (`GENRM_LOG_FORMAT`).

Our messages name their facts as `key=value` in the template: `"serves namespace=%s pod=%s"`. The JSON form makes fields
of them, from the template and its arguments and never from the finished text, so that no value can pose as a field.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

FORMATS: Final = ("text", "json")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_NOISY: Final = ("aiohttp.access", "kopf.objects", "kopf.activities")

_SPEC: Final = r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]"
_PIECE: Final = re.compile(rf"%%|(?:\b(\w+)=)?({_SPEC}(?:/{_SPEC})*)")


def configure(form: str, level: str) -> None:
    """Send every logger's records, Kopf's and the libraries' included, to stderr in one form."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, then the message's own fields; `exception` has the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in fields(record):
            line.setdefault(key, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The `key=value` pairs of a record's template. Numbers stay numbers, rounded as the template rounds them."""
    if (about := getattr(record, "k8s_ref", None)) is not None:  # Kopf's own records name the object they are about
        yield "object", about
    if not isinstance(record.args, tuple) or not isinstance(record.msg, str):
        return
    args = iter(record.args)
    for piece in _PIECE.finditer(record.msg):
        if piece[2] is None:
            continue
        values = tuple(next(args, None) for _ in re.findall(_SPEC, piece[2]))
        if piece[1]:
            yield piece[1], _value(piece[2], values)


def _value(spec: str, values: tuple[object, ...]) -> Any:
    match values:
        case (bool() | None as value,):
            return value
        case (int() as value,):
            return value
        case (float() as value,):
            return float(spec % value) if spec[-1] in "feg" else value
        case (value,):
            return str(value)  # %r is for the reader of the text: JSON has quotes of its own
    return spec % values
