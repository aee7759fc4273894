r"""The first group, or the whole match, of the last match of a pattern that the user wrote.

Python's `re` backtracks: a pattern as plain as `(a|a)*b` takes longer than a training run on thirty letters, and the
answer is written by a model that is being trained against it. RE2 (Cox, "Regular Expression Matching Can Be Simple And
Fast", 2007) takes time linear in the text for every pattern it knows; it knows no look-around and no back-references,
and says so when the pattern is compiled.

The last match is found by walking through all of them, and each step may look at all that is left of the text. Their
sum is bounded: an answer in which that would take long is no verdict.
"""

from __future__ import annotations

from typing import Any, Final

import re2

from genrm_scoring.errors import ConfigurationError, ParseFailed
from genrm_scoring.parsers.excerpt import tail
from genrm_scoring.parsers.worth import LONGEST_LABEL

MOST_BYTES: Final = 50_000_000
"""That all searches of one answer may look at, together; well under a second. A 1 kB answer stays below 1 % of it."""


class LastMatch:
    """Compiled once for each spec; may be shared by threads."""

    def __init__(self, pattern: str) -> None:
        """
        Raises:
            ConfigurationError: RE2 does not take the pattern.
        """
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern: Any = re2.compile(pattern, options)
        except re2.error as e:
            raise ConfigurationError(
                "scoring.parse.pattern",
                f"{pattern!r} is no regular expression of RE2 ({_text(e.args[0])}), which has neither look-around nor "
                "back-references; write it without",
            ) from None
        self._group = min(self._pattern.groups, 1)

    def __call__(self, text: str) -> str:
        """
        Raises:
            ParseFailed: nothing matches, the last match lacks its group or is an essay, or there are too many.
        """
        found = None
        looked_at = 0
        encoded = text.encode(errors="replace")  # else RE2 counts characters for each match
        for match in self._pattern.finditer(encoded):
            found = match
            looked_at += len(encoded) - match.start()
            if looked_at > MOST_BYTES:
                raise ParseFailed(f"the pattern matches too often in an answer of {len(text)} characters")
        if found is None:
            raise ParseFailed(f"the pattern matches nowhere in the answer, which ends with {tail(text)}")
        label = found.group(self._group)
        if label is None:
            raise ParseFailed(f"the last match has no first group: {tail(_text(found.group()))}")
        if len(label) > LONGEST_LABEL:
            raise ParseFailed(f"the last match is {len(label)} bytes long")
        return _text(label)


def _text(found: Any) -> str:
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
