"""Fields of the last JSON object of an answer.

Judges write JSON as people do: in a code fence, with a comma too many, in single quotes, with a comment. What is not
JSON goes through a library that repairs it (json_repair). A repair guesses, so a verdict that comes out of one counts
only if it stands in the answer as it came out, from its key, which occurs once, to a comma, a brace or the end of its
line: `{"score": 8 or 9}` is repaired to 8 and is no verdict.

The last object is the one that begins last outside every other. It must close: half an object may lack the half that
counts. The search reads the text once; the repair takes quadratic time, so what is large must be JSON as it stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import json_repair

from genrm_scoring.errors import ParseFailed
from genrm_scoring.parsers.excerpt import head, tail
from genrm_scoring.parsers.worth import LONGEST_LABEL
from genrm_scoring.parsers.worth import number as number_from

LONGEST_REPAIR: Final = 2048
"""Characters: 0.1 s at worst, on the event loop of a training run."""
MOST_BRACES: Final = 64
"""That a repair may have to match; it tries each with each."""
_BRACE: Final = re.compile(r"[{}]")
_BRACE_OR_STRING: Final = re.compile(r'[{}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LEAF: Final = re.compile(r"""(["']?)([^"',{}\[\]\n]{1,1024}?)\1[ \t]{0,9}(?=[,}\]\n]|//|#|/\*)""")


@dataclass(frozen=True, slots=True)
class JsonObject:
    """`source` as it stands in the answer; `repaired` if it was no JSON there."""

    content: dict[str, Any]
    source: str
    repaired: bool

    def label(self, path: Sequence[str]) -> str:
        """The text, number or flag at `path`, as a label.

        Raises:
            ParseFailed: there is none, or it is not what the answer says.
        """
        found = self._at(path)
        label = _label(found)
        if label is None or len(label) > LONGEST_LABEL:
            raise ParseFailed(f"{'.'.join(path)} is neither a short text, a number nor a flag in {head(self.source)}")
        if self.repaired and not self._stands(path[-1], found):
            raise ParseFailed(f"{'.'.join(path)} is not unmistakable in {head(self.source)}, which is no JSON")
        return label

    def number(self, path: Sequence[str]) -> float:
        """The number at `path`, which may stand there as a text.

        Raises:
            ParseFailed: there is none, or it is not what the answer says.
        """
        found = self._at(path)
        if type(found) is float and not self.repaired and math.isfinite(found):
            return found  # what the label would be read as again
        return number_from(self.label(path))

    def _at(self, path: Sequence[str]) -> Any:
        found: Any = self.content
        for key in path:
            if not isinstance(found, dict) or key not in found:
                raise ParseFailed(f"no {'.'.join(path)} in {head(self.source)}")
            found = found[key]
        return found

    def _stands(self, key: str, value: Any) -> bool:
        """Whether the answer says so in its own words, whatever the repair made of the rest."""
        keys = re.compile(rf"""(?<![\w-])["'“]?{re.escape(key)}["'”]?\s{{0,9}}:\s{{0,9}}""")
        places = [found.end() for found in keys.finditer(self.source)]
        said = _LEAF.match(self.source, places[0]) if len(places) == 1 else None
        if said is None:
            return False
        words = said[2].strip()
        if isinstance(value, str):
            return words == value.strip()
        if isinstance(value, bool):
            return words.lower() == _label(value)
        try:
            return number_from(words) == float(value)
        except ParseFailed:
            return False


def last_object(text: str) -> JsonObject:
    """
    Raises:
        ParseFailed: there is no object, the last one does not close, or it can be neither read nor repaired.
    """
    if (plain := _plain(text)) is not None:
        return plain
    source = _last_span(text)
    try:
        return JsonObject(_strict(source), source, repaired=False)
    except (ValueError, RecursionError) as e:
        wrong = str(e)[:120]
    if len(source) > LONGEST_REPAIR or source.count("{") + source.count("[") > MOST_BRACES:
        raise ParseFailed(f"an object of {len(source)} characters is no JSON ({wrong}), and too large to repair")
    try:
        content = json_repair.loads(source, skip_json_loads=True)
    except (ValueError, RecursionError) as e:
        raise ParseFailed(f"{head(source)} is no JSON ({wrong}) and cannot be repaired ({str(e)[:120]})") from None
    if not isinstance(content, dict):
        raise ParseFailed(f"{head(source)} is no JSON object ({wrong})")
    return JsonObject(content, source, repaired=True)


def _plain(text: str) -> JsonObject | None:
    """What most answers are: one object, and it is JSON. The C parser is quicker at it than any search."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        content, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return JsonObject(content, text[start:end], repaired=False) if text.find("{", end) < 0 else None


def _last_span(text: str) -> str:
    span = _last_closed(text, _BRACE_OR_STRING) or _last_closed(text, _BRACE)  # in single quotes " opens no string
    if span is None:
        if "{" not in text:
            raise ParseFailed(f"no JSON object in the answer, which ends with {tail(text)}")
        raise ParseFailed(f"the last JSON object never closes: the answer ends with {tail(text)}")
    return text[span[0] : span[1]]


def _last_closed(text: str, token: re.Pattern[str]) -> tuple[int, int] | None:
    last = None
    start = text.find("{")
    while start >= 0:
        end = _end(text, start, token)
        if end is None:
            return None
        last = start, end
        start = text.find("{", end)
    return last


def _end(text: str, start: int, token: re.Pattern[str]) -> int | None:
    depth = 0
    for found in token.finditer(text, start):
        match found[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return found.end()
    return None


def _strict(source: str) -> dict[str, Any]:
    found = _DECODER.decode(source)
    assert isinstance(found, dict)  # it begins with a brace
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number, strict=False)
"""Not strict: models write line breaks inside strings."""


def _label(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None
