r"""Is the answer correct? The judge thinks aloud and ends with `\boxed{True}` or `\boxed{False}`.

After the generative reward model of verl's genrm_remote recipe: one user message, the last box counts, True is worth
1.0 and False 0.0. Unlike there, anything else is no verdict at all: a missing box, another word in it, a box that never
closes, or one that only occurs while the model was still thinking.
"""

from __future__ import annotations

import re
from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.types import Sample, Verdict

_PROMPT: Final = """\
You check solutions. Below are a problem and one proposed solution to it.

### Problem
{question}

### Proposed solution
{response}

### Your task
Go through the solution step by step and look for mistakes. Judge only whether its final answer is correct. Finish \
with \\boxed{{True}} if it is correct and with \\boxed{{False}} if it is not; write nothing after the box."""

_VALUES: Final = {"True": 1.0, "False": 0.0}
_BOX: Final = r"\boxed{"
_TEXT_WRAPPER: Final = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


class BoxedTrueFalse:
    def messages(self, sample: Sample) -> list[dict[str, str]]:
        return [{"role": "user", "content": _PROMPT.format(question=sample.question, response=sample.response)}]

    def verdict(self, answer: str) -> Verdict:
        spoken = _without_thinking(answer)
        start = spoken.rfind(_BOX)
        if start < 0:
            raise ParseFailed(f"no \\boxed{{}} in the answer, which ends with {spoken[-80:]!r}")
        content = _braced(spoken[start + len(_BOX) :])
        if content is None:
            raise ParseFailed(f"the last box never closes: {spoken[start : start + 80]!r}")
        label = content.strip()
        if wrapped := _TEXT_WRAPPER.fullmatch(label):
            label = wrapped[1].strip()
        if label not in _VALUES:
            raise ParseFailed(f"the box holds {label[:80]!r}, neither True nor False")
        return Verdict(label, _VALUES[label])


def _without_thinking(text: str) -> str:
    """What the model said after it had thought. A chat template may open the block; left open, it never ended."""
    text = text.rpartition("</think>")[2]
    return text.partition("<think>")[0]


def _braced(text: str) -> str | None:
    """The text up to the brace that closes the one just before it."""
    depth = 1
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:at]
    return None
