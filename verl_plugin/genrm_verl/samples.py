"""What verl knows of a rollout, as a `Sample`. Pure: the fields are those of a `DataProto` row beside its tensors."""

from __future__ import annotations

import numbers
from typing import Any

from genrm_scoring.chat import as_text
from genrm_scoring.types import Sample


def sample_of(fields: dict[str, Any], response: str) -> Sample:
    """What verl says about a rollout beside its tokens; its old trainer knows neither session nor step."""
    session, step = fields.get("session_id"), fields.get("global_steps")
    return Sample(
        question=question_of(fields["raw_prompt"]),
        response=response,
        uid=str(fields.get("uid", "")),
        session=None if session is None else int(session),
        step=None if step is None else int(step),
        reference=reference_of(fields.get("reward_model")),
    )


def reference_of(column: Any) -> str | None:
    """The data set's `reward_model.ground_truth`, where that is a text or a number."""
    truth = column.get("ground_truth") if isinstance(column, dict) else None
    if isinstance(truth, str):
        return truth
    return str(truth) if isinstance(truth, numbers.Real) and not isinstance(truth, bool) else None


def question_of(chat: Any) -> str:
    """The prompt as text: its only message, or the whole conversation with its roles."""
    return as_text(
        [(str(m["role"]), m["content"] if isinstance(m["content"], str) else str(m["content"])) for m in chat]
    )
