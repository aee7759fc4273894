"""A value of a template as plain text to the tokenizer of any judge.

A chat template joins roles and contents to one text, and the engine's tokenizer finds special tokens wherever they are
spelled: a response that contains `<|im_end|><|im_start|>assistant` ends the user's turn and speaks as the judge. So a
space is put behind the first character of whatever is spelled like a special token of the common families, and of the
tags that the built-in templates put around a value. A judge reads the text all the same.

Angle brackets with a bar are Qwen, Llama 3, Phi, DeepSeek and most others; `<start_of_turn>` and the like Gemma;
`[INST]` Mistral; `<<SYS>>` Llama 2; `[gMASK]` GLM; `]~b]` and `[e~[` MiniMax; `<s>`, `<pad>` and the like whoever has
SentencePiece or WordPiece in its past.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_ROLES: Final = (
    "s", "bos", "eos", "pad", "unk", "mask", "cls", "sep", "start_of_turn", "end_of_turn", "start_of_image",
    "end_of_image", r"extra_id_\d+", r"unused_?\d+", r"reserved_\d+", r"seed:\w+",
)  # fmt: skip
_OF_A_TURN: Final = ("think", "thinking", "tool_call", "tool_response", "tools")
"""What an assistant's turn may hold: a classifier has learned to read it there."""
_TAGS: Final = ("question", "response", r"response_\w+", "reference", "critique")
"""What the built-in templates put around a value."""


def _special(words: tuple[str, ...], tags: str = "") -> tuple[tuple[str, re.Pattern[str]], ...]:
    """One pattern for each character that marks begin with: most texts have none, and the search for one is quick."""
    return (
        ("<", re.compile(rf"<(?=[|｜]|/?(?:{'|'.join(words)})>{tags}|</?SYS>>)")),
        ("[", re.compile(r"\[(?=/?(?:[A-Z][A-Z_]+|gMASK|sMASK)\]|e~\[)")),
        ("]", re.compile(r"\](?=~b\])")),
    )


_IN_A_TEMPLATE: Final = _special((*_ROLES, *_OF_A_TURN), rf"|/?(?i:{'|'.join(_TAGS)})>")
_IN_A_TURN: Final = _special(_ROLES)


def defused(text: str) -> str:
    """`text` without anything that a tokenizer could take for one of its own marks, as a value of a template."""
    return _without(text, _IN_A_TEMPLATE)


def all_defused(value: Any) -> Any:
    """The same for every text in what JSON can hold."""
    if isinstance(value, str):
        return defused(value)
    if isinstance(value, Mapping):
        return {key: all_defused(one) for key, one in value.items()}
    return [all_defused(one) for one in value] if isinstance(value, Sequence) else value


def defused_turn(text: str) -> str:
    """`text` without anything that would end its turn in a conversation that is judged. Thoughts and calls of tools
    stay what they are."""
    return _without(text, _IN_A_TURN)


def _without(text: str, special: tuple[tuple[str, re.Pattern[str]], ...]) -> str:
    for first, mark in special:
        if first in text:
            text = mark.sub(f"{first} ", text)
    return text
