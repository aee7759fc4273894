"""What verl knows of a rollout, as a `Sample`. Pure: the fields are those of a `DataProto` row beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from genrm_scoring.conversations import as_text, refuse_other_than_text, turns_of
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.ground_truths import as_json
from genrm_scoring.types import Sample

PROMPT: Final = "data.prompt_key"
"""Where the run says which column `raw_prompt` is made of."""
_VERLS: Final = frozenset(
    {"raw_prompt", "prompt", "full_prompts", "data_source", "reward_model", "extra_info", "uid", "agent_name"}
)
"""Columns that are told in words of their own, or are no data."""


def sample_of(fields: Mapping[str, Any], response: str) -> Sample:
    """What verl says about a rollout beside its tokens; its old trainer knows neither session nor step.

    Raises:
        ConfigurationError: the row holds something that cannot be judged.
    """
    session, step = fields.get("session_id"), fields.get("global_steps")
    refuse_other_than_text(fields, "data")
    messages = turns_of(fields["raw_prompt"], PROMPT)
    return Sample(
        question=as_text(messages),
        response=response,
        uid=str(fields.get("uid", "")),
        session=None if session is None else int(session),
        step=None if step is None else int(step),
        data_source=str(fields.get("data_source") or ""),
        extra=extra_of(fields),
        ground_truth=ground_truth_of(fields.get("reward_model")),
        messages=messages,
    )


def group_of(fields: Mapping[str, Any]) -> str:
    """Names the responses to one prompt: by verl's own id of it, which is new in each step."""
    uid = fields.get("uid")
    if uid is not None:
        return str(uid)
    return f"{fields.get('global_steps')} {as_text(turns_of(fields['raw_prompt'], PROMPT))}"


def extra_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The data set's `extra_info`, and beside it what other columns say in words: texts and conversations
    (`rm_prompt_0`, `chosen`)."""
    extra = as_json(fields.get("extra_info"))
    said = {key: as_json(fields[key]) for key in sorted(fields.keys() - _VERLS) if _is_words(fields[key])}
    return said | (extra if isinstance(extra, dict) else {})


def ground_truth_of(column: Any) -> Any:
    """The data set's `reward_model.ground_truth`, as JSON holds it.

    Raises:
        ConfigurationError: JSON cannot hold it, or it is about single steps.
    """
    if not isinstance(column, Mapping):
        return None
    refuse_other_than_text(column, "reward_model")
    given = column.get("ground_truth")
    found = as_json(given)
    if found is None and given is not None and given == given:  # a NaN is how tables say "nothing"
        raise ConfigurationError(
            "reward_model.ground_truth", f"a {type(given).__name__}, which JSON cannot hold; write a text"
        )
    if isinstance(found, Mapping):
        refuse_other_than_text(found, "reward_model.ground_truth")
    return found


def _is_words(value: Any) -> bool:
    """Whether it is a text or a conversation. Looks at no tensor: those of images are large."""
    if isinstance(value, str):
        return True
    if not isinstance(value, list | tuple) and str(getattr(value, "dtype", "")) != "object":
        return False
    return len(value) > 0 and all(isinstance(each, Mapping) and "role" in each for each in value)
