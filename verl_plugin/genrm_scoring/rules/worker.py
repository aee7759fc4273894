"""A rule in a process of its own (`process`).

What runs away there costs one response its score, which says so (`timeout`, `aborted`), and the next one gets a fresh
process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_api.answer_rules import AnswerRule

from genrm_scoring.conversations import Turn
from genrm_scoring.errors import GroundTruthUnusable, RuleAnswered, RuleDied, RuleFailed, RuleTimedOut
from genrm_scoring.rules.functions import fields_of
from genrm_scoring.rules.process import MEMORY, QUESTION_SECONDS, Ended, Hung, Process
from genrm_scoring.types import Outcome, Verdict

_BY_OUTCOME: Final[Mapping[Outcome, type[RuleFailed]]] = {
    kind.outcome: kind for kind in (GroundTruthUnusable, RuleAnswered, RuleDied)
}
"""What a child says of a response that it has no number for."""


class RuleWorker:
    """
    Args:
        spec: the rule.
        seconds: for one response.
        memory: bytes of address space.
        source, filename: the module's text and where it is from, for kind python.
    """

    def __init__(
        self,
        spec: AnswerRule,
        *,
        seconds: float = QUESTION_SECONDS,
        memory: int = MEMORY,
        source: str = "",
        filename: str = "",
    ) -> None:
        rule = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        setup = {"rule": rule, "source": source, "filename": filename, "memory": memory}
        self._process = Process(setup, seconds)

    def __call__(
        self,
        response: str,
        ground_truth: Any,
        *,
        prompt: str = "",
        data_source: str = "",
        extra: Mapping[str, Any] | None = None,
        messages: Sequence[Turn] = (),
    ) -> Verdict:
        """
        Raises:
            RuleFailed: the rule has no number for this response, ran out of time, or ended.
            ConfigurationError: it cannot be started at all.
        """
        fields = fields_of(response, ground_truth, prompt, data_source, extra or {}, messages)
        try:
            answer = self._process.ask({"work": "rule", "fields": fields})
        except Hung as e:
            raise RuleTimedOut(f"the rule {e}") from None
        except Ended as e:
            raise RuleDied(f"the rule's {e}") from None
        if "value" in answer:
            return Verdict(str(answer["label"]), float(answer["value"]))
        raise _BY_OUTCOME[Outcome(answer["outcome"])](str(answer["detail"]))

    def close(self) -> None:
        self._process.close()
