r"""The answer is mathematically equal to the ground truth, as Math-Verify finds: 1/2, \frac{1}{2} and 0.5 are the same.
Of a list of ground truths, to any.

Math-Verify (Hugging Face) parses LaTeX and plain expressions and compares them with SymPy. What it is given may take
for ever (`9^{9^{9^9}}`), and the limits that it brings are signals, which only a main thread has: they are turned off
here. Ask this rule in a worker, which has limits of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.errors import ConfigurationError, GroundTruthUnusable
from genrm_scoring.rules.answers import NO_ANSWER, RIGHT, WRONG, answer_in, spoken, wanted_by
from genrm_scoring.types import Verdict

LONGEST: Final = 8192
"""Characters at the end of a response that Math-Verify gets to see."""


class Math:
    def __init__(self, spec: AnswerRule) -> None:
        """
        Raises:
            ConfigurationError: Math-Verify is not installed.
        """
        try:
            from math_verify import parse, verify
        except ImportError as e:
            raise ConfigurationError(
                "spec.terms.rule.kind", f"math needs Math-Verify ({e}); install genrm-operator[math]"
            ) from e
        self._spec = spec
        self._parse: Callable[..., list[Any]] = parse
        self._verify: Callable[..., bool] = verify

    def __call__(self, response: str, ground_truth: Any) -> Verdict:
        texts = wanted_by("math", ground_truth)
        read = (self._read(text if r"\boxed" in text else rf"\boxed{{{text}}}") for text in texts)
        wanted = [one for one in read if one]
        if not wanted:
            said = ", ".join(repr(text[:80]) for text in texts[:3])
            raise GroundTruthUnusable(f"rule math compares with what Math-Verify reads, not with {said}")
        if self._spec.extract is None:
            found = self._read(spoken(response)[-LONGEST:])
        else:
            answer = answer_in(self._spec, response)
            found = [] if answer is None else self._read(rf"\boxed{{{answer[-LONGEST:]}}}")
        if not found:
            return NO_ANSWER
        return RIGHT if any(self._verify(one, found, timeout_seconds=None) for one in wanted) else WRONG

    def _read(self, text: str) -> list[Any]:
        return self._parse(text, parsing_timeout=None)
