"""Rules: scores that cost no GPU, as `spec.terms[].rule` of a RewardFleet says.

answers   where in a response its final answer is
exact, numeric, math, regex, form, length   one kind each, pure functions of response and ground truth
functions which Python of a user may run, and how it is called
around    the same of a user's functions around a model, which make its questions and read its answers
process   another process (`child`) with a time and a memory limit, for what may run away: math, and such functions
worker    a rule in one

`rule_of` puts a built-in together, and `score_of_rule` makes a score of what it says. A rule that cannot compare,
because there is no ground truth, fails like a judgement does; a response without an answer is a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genrm_api.answer_rules import AnswerRule, RuleKind

from genrm_scoring.errors import ConfigurationError, RuleFailed
from genrm_scoring.rules.exact import Exact
from genrm_scoring.rules.form import Form
from genrm_scoring.rules.length import Length
from genrm_scoring.rules.math import Math
from genrm_scoring.rules.numeric import Numeric
from genrm_scoring.rules.regex import Regex
from genrm_scoring.types import Outcome, Score, ScoreSource, Verdict

__all__ = ["Rule", "rule_of", "score_of_rule"]

Rule = Callable[[str, Any], Verdict]
"""From a response and the ground truth of its prompt, as JSON holds it. Raises RuleFailed where it has nothing to
say."""


def rule_of(spec: AnswerRule) -> Rule:
    """The built-in rule that a spec describes.

    Raises:
        ConfigurationError: it is none, or cannot be what is written.
    """
    match spec.kind:
        case RuleKind.EXACT:
            return Exact(spec)
        case RuleKind.NUMERIC:
            return Numeric(spec)
        case RuleKind.MATH:
            return Math(spec)
        case RuleKind.REGEX:
            return Regex(spec)
        case RuleKind.FORMAT:
            return Form(spec)
        case RuleKind.LENGTH:
            return Length(spec)
        case RuleKind.PYTHON:
            raise ConfigurationError(
                "spec.terms.rule.kind", f"python is no built-in rule: {spec.function} runs in a worker"
            )


def score_of_rule(rule: Rule, response: str, ground_truth: Any) -> Score:
    """What a rule means for a sample."""
    try:
        verdict = rule(response, ground_truth)
    except RuleFailed as e:
        return Score(None, e.outcome, ScoreSource.DROPPED, detail=str(e))
    return Score(verdict.value, Outcome.OK, ScoreSource.RULE, detail=verdict.label)
