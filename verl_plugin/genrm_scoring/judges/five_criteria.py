"""How well was it solved, and is the result right? Five criteria by the judge, the result by comparison.

After the judge of reward_api: five criteria of at most 0.2 each, whose sum is worth a fifth of the score, and whether
the response's result is the reference, which is worth the rest. There an answer of the judge that could not be read
counted as 5, so that it beat a correct solution; here it is no verdict. The judge is not asked for the sum, which
models get wrong; and where the data set has no reference nobody is asked: four fifths of the score would be made up.
"""

from __future__ import annotations

import math
import re
from typing import Final

from genrm_scoring.errors import ParseFailed, Unaskable
from genrm_scoring.judges.judge import Messages, an_object
from genrm_scoring.judges.templated import asked, refuse_hidden_reference
from genrm_scoring.parsers import Worth, boxed, last_object, spoken, tagged
from genrm_scoring.templates import ONE, Template, built_in
from genrm_scoring.types import Answer, Question, Verdict

CRITERIA: Final = ("logic", "completeness", "accuracy", "relevance", "clarity")
MOST: Final = 0.2
"""For one criterion."""
WEIGHTS: Final = (0.2, 0.8)
"""Of the criteria, and of the result."""
_STEPS: Final = tuple(round(MOST * step / 20, 2) for step in range(21))
"""What an answer that is held to a form can give: a number without an end would never be whole."""
_WITHIN: Final = Worth(minimum=0.0, maximum=MOST)
_TEMPLATE: Final = Template(built_in("five-criteria"), ONE)
_THOUSANDS: Final = re.compile(r"(?<=[0-9]),(?=[0-9]{3}\b)")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,64}(?:\.[0-9]{1,64})?|[+-]?\.[0-9]{1,64}")


class FiveCriteria:
    reads_logprobs = False
    schema = an_object({"scores": an_object({name: {"enum": _STEPS} for name in CRITERIA})})

    def messages(self, question: Question) -> Messages:
        refuse_hidden_reference(question)
        if not question.reference:
            raise Unaskable("five-criteria compares the result with a reference, and the sample has none")
        return asked(_TEMPLATE, question)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        found = last_object(spoken(answer.text))
        given = {name: _WITHIN.within(found.number(("scores", name))) for name in CRITERIA}
        (response,) = question.responses
        correct = float(same_result(result(response), question.reference or ""))
        quality = math.fsum(given.values())
        value = WEIGHTS[0] * quality + WEIGHTS[1] * correct
        return Verdict(f"{quality:.4g}", value, {**given, "quality": quality, "correct": correct})


def result(response: str) -> str:
    r"""What a response arrives at: its last `\boxed{}`, else its last `<answer>`, else its last line if that begins
    with `####`, else all that it says."""
    said = spoken(response)
    for find in (boxed, lambda text: tagged(text, "answer")):
        try:
            return find(said)
        except ParseFailed:
            continue
    last_line = said.rstrip().rpartition("\n")[2]
    return last_line[4:] if last_line.startswith("####") else said


def same_result(one: str, other: str) -> bool:
    """Whether two results are the same text, or the same number; a comma between thousands or a $ is no difference."""
    one, other = one.strip(), other.strip()
    return one == other or ((number := _as_number(one)) is not None and number == _as_number(other))


def _as_number(text: str) -> float | None:
    plain = _THOUSANDS.sub("", text.strip("$ ").rstrip("."))
    return float(plain) if _NUMBER.fullmatch(plain) else None
