"""The response is as long as wanted: 1 from minimum to maximum, and falling evenly to 0 over a margin beyond.

With a transform the overlong penalty of DAPO (Yu et al., 2025, eq. 13) is one of these: affine, offset -1.
"""

from __future__ import annotations

from typing import Any

from genrm_api.answer_rules import AnswerRule, LengthUnit

from genrm_scoring.types import Verdict


class Length:
    def __init__(self, spec: AnswerRule) -> None:
        self._spec = spec

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        unit = self._spec.unit or LengthUnit.CHARACTERS
        count = len(response.split()) if unit is LengthUnit.WORDS else len(response)
        short = 0 if self._spec.minimum is None else max(0, self._spec.minimum - count)
        long = 0 if self._spec.maximum is None else max(0, count - self._spec.maximum)
        beyond, margin = short + long, self._spec.margin or 0
        worth = 1.0 if not beyond else max(0.0, 1 - beyond / margin) if margin else 0.0
        return Verdict(f"{count} {unit}", worth)
