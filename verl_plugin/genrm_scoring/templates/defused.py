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
from typing import Final

_WORDS: Final = (
    "s", "bos", "eos", "pad", "unk", "mask", "cls", "sep", "think", "thinking", "tool_call", "tool_response", "tools",
    "start_of_turn", "end_of_turn", "start_of_image", "end_of_image", r"extra_id_\d+", r"unused_?\d+", r"reserved_\d+",
    r"seed:\w+",
)  # fmt: skip
_TAGS: Final = ("question", "response", r"response_\w+", "reference", "critique")
"""What the built-in templates put around a value."""
_SPECIAL: Final = (
    ("<", re.compile(rf"<(?=[|｜]|/?(?:{'|'.join(_WORDS)})>|/?(?i:{'|'.join(_TAGS)})>|</?SYS>>)")),
    ("[", re.compile(r"\[(?=/?(?:[A-Z][A-Z_]+|gMASK|sMASK)\]|e~\[)")),
    ("]", re.compile(r"\](?=~b\])")),
)
"""One for each character that they begin with: most texts have none of these, and the search for one is quick."""


def defused(text: str) -> str:
    """`text` without anything that a tokenizer could take for one of its own marks."""
    for first, special in _SPECIAL:
        if first in text:
            text = special.sub(f"{first} ", text)
    return text
