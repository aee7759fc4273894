"""What is judged is text: conversations as roles and texts, and the sentence for what is none.

Frameworks send contents as a text or as a list of parts. Parts of text are joined. Any other (an image, a video, a
sound) would have to be left out, and then something would be scored that nobody asked about; so it is refused, and so
are scores of single steps. Multimodal judges and process reward models are out of scope: the seam is `Turn`, which
would hold parts, and `Verdict`, which would hold a number a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_scoring.errors import ConfigurationError

Turn = tuple[str, str]
"""Role and text."""
_TEXT_IN: Final[Mapping[str, str]] = {
    "text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"
}  # fmt: skip
"""The parts that are text, of chat completions and of responses, and where their text is."""
_MEDIA: Final = ("image", "images", "video", "videos", "audio", "audios", "multi_modal_data", "multimodal_inputs")
"""Where frameworks put what a conversation shows beside its texts."""
_STEPS: Final = ("step_scores", "step_rewards", "step_labels", "process_reward", "process_rewards")
"""What data sets and clients of process reward models call the scores of single steps."""


def turns_of(chat: Any, where: str) -> tuple[Turn, ...]:
    """A conversation. A message without a role is a user's, as one without a content says nothing.

    Args:
        where: the field that the messages are from, as the user knows it.

    Raises:
        ConfigurationError: there is a part that is no text.
    """
    return tuple((str(message.get("role") or "user"), text_in(message.get("content"), where)) for message in chat)


def text_in(content: Any, where: str) -> str:
    """The text of one message.

    Raises:
        ConfigurationError: it has a part that is no text.
    """
    if isinstance(content, str):
        return content
    if hasattr(content, "tolist"):
        content = content.tolist()
    if content is None:
        return ""
    if not isinstance(content, Sequence):
        raise ConfigurationError(where, f"a content is a {type(content).__name__}; write a text, or a list of parts")
    return "".join(_part(part, where) for part in content)


def as_text(said: Sequence[Turn]) -> str:
    """A conversation for a judge that is shown one: its only message, or all with their roles."""
    if len(said) == 1:
        return said[0][1]
    return "\n\n".join(f"[{role}]\n{text}" for role, text in said)


def refuse_other_than_text(fields: Mapping[str, Any], where: str) -> None:
    """
    Args:
        fields: what a row or a request says beside its messages.

    Raises:
        ConfigurationError: there is what no judge of text could see, or somebody wants scores of steps.
    """
    for name in _MEDIA:
        if _holds_something(fields.get(name)):
            raise _no_text(f"{where}.{name}", f"found {name}")
    for name in _STEPS:
        if fields.get(name) is not None:
            raise ConfigurationError(
                f"{where}.{name}",
                "a response gets one score here; scores of single steps (process reward models) are out of scope: "
                "remove the field, and score whole responses",
            )


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise ConfigurationError(where, f"a part of a content is a {type(part).__name__}; write an object with a type")
    kind = part.get("type") or next((key for key, value in part.items() if value is not None), "nothing")
    if not isinstance(kind, str) or kind not in _TEXT_IN:
        raise _no_text(where, f"a message has a part of type {kind}")
    return str(part.get(_TEXT_IN[kind]) or "")


def _no_text(where: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        where,
        f"{found}, and text is all that is judged: multimodal judges are out of scope, and without it something else "
        "would be scored; remove such samples, or score them elsewhere",
    )


def _holds_something(found: Any) -> bool:
    if isinstance(found, Mapping):
        return any(_holds_something(each) for each in found.values())
    if isinstance(found, float) and math.isnan(found):  # how tables say "nothing"
        return False
    return found is not None and (not hasattr(found, "__len__") or len(found) > 0)
