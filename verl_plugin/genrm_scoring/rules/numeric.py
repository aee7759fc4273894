r"""The last number of the answer is that of the ground truth: `#### 1,234` and `1234.0` are the same. Where the ground
truth is a list, it is that of any of its texts; what has no number there is another spelling, for other rules.

Signs, thousands separators, decimals and exponents are read; signs of currency and per cent are not looked at, so that
50% is 50. A number that is a part of a formula is none: who answers `1/2` or `\sqrt{2}` has not answered 2. Those are
for the rule `math`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.errors import GroundTruthUnusable
from genrm_scoring.rules.answers import NO_ANSWER, RIGHT, WRONG, answer_in, wanted_by
from genrm_scoring.types import Verdict

TOLERANCE: Final = 1e-6
LONGEST: Final = 4096
"""Characters at the end of an answer in which its last number is looked for."""
_NUMBER: Final = re.compile(
    r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?"
)
_BEFORE: Final = ("/", "^", "_", "^{", "_{", "}{", "sqrt{")
_AFTER: Final = ("/", "^", "_", "\\sqrt", "\\pi")


class Numeric:
    def __init__(self, spec: AnswerRule) -> None:
        self._spec = spec
        self._tolerance = TOLERANCE if spec.tolerance is None else spec.tolerance

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        texts = wanted_by("numeric", ground_truth)
        wanted = [number for text in texts if (number := last_number(text)) is not None]
        if not wanted:
            said = ", ".join(repr(text[-80:]) for text in texts[:3])
            raise GroundTruthUnusable(f"rule numeric compares with a number, and the ground truth is {said}")
        answer = answer_in(self._spec, response)
        found = None if answer is None else last_number(answer)
        if found is None:
            return NO_ANSWER
        return RIGHT if any(self._same(found, number) for number in wanted) else WRONG

    def _same(self, one: float, other: float) -> bool:
        return abs(one - other) <= self._tolerance * max(1.0, abs(one), abs(other))


def last_number(text: str) -> float | None:
    """The last number in a text; `None` if there is none, or if it is a part of a formula."""
    text = text[-LONGEST:].replace("\N{MINUS SIGN}", "-").rstrip()
    last = max(_NUMBER.finditer(text), key=re.Match.start, default=None)
    if (
        last is None
        or text[: last.start()].rstrip().endswith(_BEFORE)
        or text[last.end() :].lstrip().startswith(_AFTER)
    ):
        return None
    number = float(last[0].replace(",", ""))
    return number if math.isfinite(number) else None
