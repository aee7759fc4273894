"""The process in which rules run that may run away: `python -m genrm_scoring.rules.child`, started by `worker`.

It reads one JSON object a line from its input and writes one a line to its output. The first says which rule, and how
much memory it may have; every other is a sample. What the rule prints goes to the error output: the answers are kept
apart on a descriptor of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from genrm_api.answer_rules import AnswerRule, RuleKind

from genrm_scoring.errors import GenrmError, RuleFailed
from genrm_scoring.rules import rule_of
from genrm_scoring.rules.functions import Fields, loaded
from genrm_scoring.types import Outcome, Verdict


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        rule = _rule(json.loads(sys.stdin.readline()))
    except GenrmError as e:
        answer({"refused": str(e)})
        return
    answer({"ready": True})
    for line in sys.stdin:
        answer(_answered(rule, json.loads(line)))


def _rule(setup: dict[str, Any]) -> Callable[[Fields], Verdict]:
    spec = AnswerRule.model_validate(setup["rule"])
    if spec.kind is RuleKind.PYTHON:
        _limit(setup["memory"])
        return loaded(setup["source"], setup["filename"], spec.function or "")
    rule = rule_of(spec)
    _limit(setup["memory"])
    return lambda fields: rule(fields["response"], fields["ground_truth"])


def _limit(memory: int) -> None:
    """Address space, which is what Linux can bound for one process without a cgroup."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answered(rule: Callable[[Fields], Verdict], fields: Fields) -> dict[str, Any]:
    try:
        verdict = rule(fields)
    except RuleFailed as e:
        return {"outcome": e.outcome, "detail": str(e)}
    except MemoryError:
        return {"outcome": Outcome.ABORTED, "detail": "the rule wanted more memory than it may have"}
    except RecursionError as e:
        return {"outcome": Outcome.ABORTED, "detail": f"the rule called itself too often: {e}"}
    except Exception as e:
        return {"outcome": Outcome.PARSE_FAILED, "detail": f"the rule raised {type(e).__name__}: {e}"[:500]}
    return {"value": verdict.value, "label": verdict.label}


if __name__ == "__main__":
    main()
