"""A user's functions around a model, as they run in the child: one that makes a question, one that makes a number.

They are called as rules are (`functions`): with what they ask for by name, one sample at a time. The names are those of
rules, of VeRL-with-RMs (`text_prompts`, `text_responses`, `tgt_tokenizer`; `results`) and of RM-Gallery (`user_query`,
`response_a`, `response_b`, `reference`). Functions of lists get lists of one.

A question is a text, which becomes one message of the user, or messages. The engine applies its own chat template to
them, so `tgt_tokenizer` is none of the model's: `apply_chat_template` only notes which messages it was given.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from genrm_scoring.errors import RuleAnswered, Unaskable
from genrm_scoring.rules.functions import Fields, found_in, verdict_of
from genrm_scoring.types import Verdict

Messages = list[dict[str, str]]
ROLES: Final = ("system", "developer", "user", "assistant", "tool")

_ALWAYS: Final = (
    "question", "prompt", "prompt_str", "user_query", "messages", "reference", "ground_truth", "principle",
    "data_source", "extra_info", "responses", "text_prompts", "text_responses",
)  # fmt: skip
ABOUT: Final[Mapping[int | None, tuple[str, ...]]] = {
    1: ("response", "response_str", "solution_str", "query"),
    2: ("response_a", "response_b"),
    None: (),
}
"""What there is beside, by how many responses a question is about; None: all of a prompt."""
_ASKS: Final = "a function that makes the question"
_READS: Final = "a function that makes the score"
HIDDEN: Final = "hidden_reference"
"""Field with the reason why there is no reference although there is a ground truth; no function is given it."""


def asking(source: str, filename: str, function: str, field: str, about: int | None) -> Callable[[Fields], Messages]:
    """
    Raises:
        ConfigurationError: see `functions.found_in`.
    """
    known = (*_ALWAYS, *ABOUT[about], "tgt_tokenizer")
    found = found_in(source, filename, function, known, field, _ASKS)
    shown = "reference" in found.names and "ground_truth" not in found.names

    def ask(fields: Fields) -> Messages:
        if shown and fields.get(HIDDEN):
            raise Unaskable(str(fields[HIDDEN]))
        tokenizer = Tokenizer()
        return messages_of(found({**fields, "tgt_tokenizer": tokenizer}), tokenizer, function)

    return ask


def reading(source: str, filename: str, function: str, field: str, about: int | None) -> Callable[[Fields], Verdict]:
    """
    Raises:
        ConfigurationError: see `functions.found_in`.
    """
    known = (*_ALWAYS, *ABOUT[about], "results", "result")
    found = found_in(source, filename, function, known, field, _READS)

    def read(fields: Fields) -> Verdict:
        verdict = verdict_of(_only(found(fields)), function, _READS)
        if about == 2 and not 0 <= verdict.value <= 1:
            raise RuleAnswered(f"{function} returned {verdict.value:g}; of two responses it returns the preference for "
                               "the first, from 0 to 1")  # fmt: skip
        return verdict

    return read


def _only(found: Any) -> Any:
    """What a list of one holds; functions of lists return such."""
    return found[0] if isinstance(found, list | tuple) and len(found) == 1 else found


def messages_of(found: Any, tokenizer: Tokenizer, function: str) -> Messages:
    """
    Raises:
        Unaskable: it is no question.
    """
    one = _only(found)
    made = found if _is_a_message(one) else one
    if isinstance(made, str):
        return _said(made, tokenizer, function)
    if isinstance(made, Sequence) and made and all(map(_is_a_message, made)):
        return [{"role": message["role"], "content": message["content"]} for message in made]
    raise Unaskable(
        f"{function} returned {found!r:.200}; {_ASKS} returns a text, messages (role {', '.join(ROLES)}; content, a "
        "text), or a list of one of these"
    )


def _said(text: str, tokenizer: Tokenizer, function: str) -> Messages:
    if (noted := tokenizer.noted.get(text)) is not None:
        return noted
    if any(note in text for note in tokenizer.noted):
        raise Unaskable(
            f"{function} puts something around what apply_chat_template returns, and the engine applies its own "
            "template; put it into the messages"
        )
    if not text.strip():
        raise Unaskable(f"{function} returned an empty text; {_ASKS} returns what to ask")
    return [{"role": "user", "content": text}]


def _is_a_message(found: Any) -> bool:
    return isinstance(found, Mapping) and found.get("role") in ROLES and isinstance(found.get("content"), str)


class Tokenizer:
    """What functions get as `tgt_tokenizer`: a chat template, and no tokens."""

    chat_template: Final = "the engine's own"

    def __init__(self) -> None:
        self.noted: dict[str, Messages] = {}
        """By the text that stands for them."""

    def apply_chat_template(
        self, conversation: Any, tokenize: bool = True, add_generation_prompt: bool = False, **other: Any
    ) -> str:
        """
        Raises:
            ValueError: it could not be done as asked for.
        """
        if tokenize:
            raise ValueError("apply_chat_template gives no tokens here: the engine makes them; write tokenize=False")
        if other:
            raise ValueError(
                f"apply_chat_template is given {', '.join(other)}, and the engine applies the template; write that "
                "into scoring.sampling.chatTemplateKwargs"
            )
        turns = list(conversation)
        if not turns or not all(map(_is_a_message, turns)):
            raise ValueError(f"apply_chat_template takes one chat of messages with role and content: {turns!r:.200}")
        note = f"<chat {secrets.token_hex(16)}>"
        self.noted[note] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        return note

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"tgt_tokenizer has no {name} here: the engine makes the tokens; it has chat_template and "
            "apply_chat_template(messages, tokenize=False)"
        )
