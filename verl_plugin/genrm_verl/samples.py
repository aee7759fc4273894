"""What verl knows of a rollout, as a `Sample`. Pure: the fields are those of a `DataProto` row beside its tensors."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from genrm_scoring.chat import as_text
from genrm_scoring.types import Sample


def sample_of(fields: Mapping[str, Any], response: str) -> Sample:
    """What verl says about a rollout beside its tokens; its old trainer knows neither session nor step."""
    session, step = fields.get("session_id"), fields.get("global_steps")
    extra = plain(fields.get("extra_info"))
    return Sample(
        question=question_of(fields["raw_prompt"]),
        response=response,
        uid=str(fields.get("uid", "")),
        session=None if session is None else int(session),
        step=None if step is None else int(step),
        reference=reference_of(fields.get("reward_model")),
        data_source=str(fields.get("data_source") or ""),
        extra=extra if isinstance(extra, dict) else {},
    )


def group_of(fields: Mapping[str, Any]) -> str:
    """Names the responses to one prompt: by verl's own id of it, which is new in each step."""
    uid = fields.get("uid")
    return str(uid) if uid is not None else f"{fields.get('global_steps')} {question_of(fields['raw_prompt'])}"


def plain(value: Any) -> Any:
    """Of numpy's and pyarrow's values, what JSON can hold; what it cannot is left out."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):  # an array, or one number of it
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool) else None


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
