"""A pattern of the user's occurs in the response, by RE2: in time that is linear in the response, for every pattern.

A policy that is trained against a pattern will find what makes Python's backtracking `re` hang. RE2 (Cox, "Regular
Expression Matching Can Be Simple And Fast", 2007) has neither look-around nor back-references.
"""

from __future__ import annotations

from typing import Any

import re2
from genrm_api.answer_rules import AnswerRule

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.rules.answers import RIGHT, WRONG
from genrm_scoring.types import Verdict


class Regex:
    def __init__(self, spec: AnswerRule) -> None:
        """
        Raises:
            ConfigurationError: RE2 does not take the pattern.
        """
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern: Any = re2.compile(spec.pattern, options)
        except re2.error as e:
            raise ConfigurationError(
                "spec.terms.rule.pattern",
                f"{spec.pattern!r} is no regular expression of RE2 ({e}), which has neither look-around nor "
                "back-references; write it without",
            ) from None

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        text = response.encode(errors="replace").decode()  # a lone surrogate is no UTF-8, which RE2 reads
        return RIGHT if self._pattern.search(text) else WRONG
