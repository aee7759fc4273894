"""The process in which code runs that may run away: `python -m genrm_scoring.rules.child`, started by `process`.

It reads one JSON object a line from its input and writes one a line to its output. The first says what is to run here
(a rule, or a user's functions around a model), and how much memory it may have; every other is a question, and says to
which of them. What the code prints goes to the error output: the answers are kept apart on a descriptor of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genrm_api.answer_rules import AnswerRule, RuleKind

from genrm_scoring.errors import AttemptFailed, GenrmError, RuleFailed
from genrm_scoring.rules import rule_of
from genrm_scoring.rules.around import asking, reading
from genrm_scoring.rules.functions import Fields, loaded
from genrm_scoring.types import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class _Work:
    """`name` is for sentences; `raised` is how a question ends on which it raises."""

    name: str
    run: Callable[[Fields], dict[str, Any]]
    raised: Outcome = Outcome.PARSE_FAILED


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        works = _works(json.loads(sys.stdin.readline()))
    except GenrmError as e:
        answer({"refused": str(e)})
        return
    answer({"ready": True})
    for line in sys.stdin:
        question = json.loads(line)
        answer(_answered(works[question["work"]], question["fields"]))


def _works(setup: dict[str, Any]) -> Mapping[str, _Work]:
    if "rule" in setup:
        return {"rule": _Work("the rule", _number_of(_rule(setup)))}
    _limit(setup["memory"])
    works = {}
    if (before := setup["before"]) is not None:
        ask = asking(**before)
        works["before"] = _Work(before["function"], lambda fields: {"messages": ask(fields)}, Outcome.SKIPPED)
    if (after := setup["after"]) is not None:
        works["after"] = _Work(after["function"], _number_of(reading(**after)))
    return works


def _rule(setup: dict[str, Any]) -> Callable[[Fields], Verdict]:
    spec = AnswerRule.model_validate(setup["rule"])
    if spec.kind is RuleKind.PYTHON:
        _limit(setup["memory"])
        return loaded(setup["source"], setup["filename"], (spec.function or "").rpartition(".")[2])
    rule = rule_of(spec)
    _limit(setup["memory"])
    return lambda fields: rule(fields["response"], fields["ground_truth"])


def _number_of(found: Callable[[Fields], Verdict]) -> Callable[[Fields], dict[str, Any]]:
    def run(fields: Fields) -> dict[str, Any]:
        verdict = found(fields)
        return {"value": verdict.value, "label": verdict.label}

    return run


def _limit(memory: int) -> None:
    """Address space, which is what Linux can bound for one process without a cgroup."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answered(work: _Work, fields: Fields) -> dict[str, Any]:
    try:
        return work.run(fields)
    except (RuleFailed, AttemptFailed) as e:
        return {"outcome": e.outcome, "detail": str(e)}
    except MemoryError:
        return {"outcome": Outcome.ABORTED, "detail": f"{work.name} wanted more memory than it may have"}
    except RecursionError as e:
        return {"outcome": Outcome.ABORTED, "detail": f"{work.name} called itself too often: {e}"}
    except Exception as e:
        return {"outcome": work.raised, "detail": f"{work.name} raised {type(e).__name__}: {e}"[:500]}


if __name__ == "__main__":
    main()
