"""What a model says once it has thought.

Thinking models put their thoughts into a block before the answer. The block may be whole; it may lack its opening tag,
because the chat template had written that before the model began; and it may never close, because the model never came
to an end. Only what stands after the last closing tag, and before any block that opens after it, has been said. A
verdict among the thoughts is none: there models weigh verdicts.

One search of the text for each tag, so the time is linear whatever the text is. What is left is bounded too: the
parsers may take their time with it.
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.errors import ParseFailed

LONGEST_SPOKEN: Final = 1 << 18
"""Characters. Thoughts may be as long as they like; a verdict in a book is none."""
BLOCKS: Final = (
    ("<think>", "</think>"),  # Qwen, DeepSeek, and most others
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("【思考】", "【/思考】"),
)


_STEMS: Final = ("think", "THINK", "思考")
"""Each tag holds one of these. Most answers hold none, and three searches are less than ten."""


def spoken_span(text: str) -> tuple[int, int]:
    """Where in `text` the spoken part begins and ends; both at the end if nothing was said."""
    if not any(stem in text for stem in _STEMS):
        return 0, len(text)
    start = 0
    for _, closing in BLOCKS:
        if (at := text.rfind(closing)) >= 0:
            start = max(start, at + len(closing))
    end = len(text)
    for opening, _ in BLOCKS:
        if (at := text.find(opening, start, end)) >= 0:
            end = at
    return start, end


def spoken(text: str, *, strip_thinking: bool = True) -> str:
    """What the model said after it had thought, or all of it.

    Raises:
        ParseFailed: that is more than any judge has to say.
    """
    start, end = spoken_span(text) if strip_thinking else (0, len(text))
    if end - start > LONGEST_SPOKEN:
        raise ParseFailed(f"{end - start} characters are no verdict")
    return text[start:end]
