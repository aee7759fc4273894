"""The response consists of certain tags: each once, in order, closed, and with nothing but space between them.

After DeepSeek-R1's format reward. Where the first tag is `think`, its opening may be missing: chat templates write it
for the model.
"""

from __future__ import annotations

from typing import Any, Final

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.rules.answers import RIGHT
from genrm_scoring.types import Verdict

_OPENED_BY_TEMPLATES: Final = "think"


class Form:
    def __init__(self, spec: AnswerRule) -> None:
        self._tags = spec.tags or []

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        rest = response.strip()
        if self._tags[0] == _OPENED_BY_TEMPLATES and "<think>" not in rest:
            rest = "<think>" + rest
        for tag in self._tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if response.count(closing) != 1 or response.count(opening) > 1:
                return Verdict(f"<{tag}> is not there once", 0.0)
            inside, _, after = rest.partition(closing)
            if not inside.startswith(opening):
                return Verdict(f"something else stands where <{tag}> should begin", 0.0)
            rest = after.lstrip()
        return Verdict("something follows the last tag", 0.0) if rest else RIGHT
