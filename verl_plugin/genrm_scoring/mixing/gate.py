"""Whether a rule lets a term be asked; pure.

The rule's own number decides, before transform and weight. A gate stays closed where its rule failed, and where a
policy wrote a number for it: a failure never buys a judgement.
"""

from __future__ import annotations

from genrm_api.terms import Gate

from genrm_scoring.types import Score


def passes(gate: Gate, rule: Score | None) -> bool:
    """`rule` is the score of the term that the gate names, `None` while it is not known."""
    if rule is None or rule.value is None or not rule.source.is_own:
        return False
    if gate.at_least is not None:
        return rule.value >= gate.at_least
    return abs(rule.value - (1.0 if gate.equals is None else gate.equals)) <= gate.tolerance
