"""The answer is the ground truth, or one of several, letter by letter but for the space in and around it."""

from __future__ import annotations

from typing import Any

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.rules.answers import NO_ANSWER, RIGHT, WRONG, answer_in, wanted_by
from genrm_scoring.types import Verdict


class Exact:
    def __init__(self, spec: AnswerRule) -> None:
        self._spec = spec

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        wanted = {self._plain(text) for text in wanted_by("exact", ground_truth)}
        answer = answer_in(self._spec, response)
        if answer is None:
            return NO_ANSWER
        return RIGHT if self._plain(answer) in wanted else WRONG

    def _plain(self, text: str) -> str:
        one_line = " ".join(text.split())
        return one_line.casefold() if self._spec.ignore_case else one_line
