"""Which of two answers is better? The judge ends with `<result>A</result>`, or B, or tie.

After the pairwise judge of RM-Gallery. The verdict is the preference for A, the response that is shown first: 1, 0, or
0.5 for a tie. There whatever cannot be read is a tie; here only a tie is one.

RM-Gallery lets a run bring its own prompt, `custom_alignment_prompt(user_query, response_a, response_b, reference,
**kwargs)`; such a function fits in here as it is. It gets the texts `defused`, and what it returns is one user message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from genrm_scoring.judges.judge import Messages, said_by_user
from genrm_scoring.judges.templated import pairwise, refuse_hidden_reference
from genrm_scoring.parsers import Reader, TextReader, Worth, tagged
from genrm_scoring.templates import built_in, defused
from genrm_scoring.types import Answer, Question, Verdict

READER: Final = TextReader(
    lambda text: tagged(text, "result"),
    Worth({"A": 1.0, "B": 0.0, "tie": 0.5, "a": 1.0, "b": 0.0, "Tie": 0.5, "TIE": 0.5}),
)
PAIRWISE_ABTIE: Final = pairwise(built_in("pairwise-abtie"), READER)


class CustomAlignment:
    """A pairwise judge whose prompt is a function of the run."""

    reads_logprobs = False
    schema = None

    def __init__(self, custom_alignment_prompt: Callable[..., str], reader: Reader = READER) -> None:
        self._prompt = custom_alignment_prompt
        self._reader = reader

    def messages(self, question: Question) -> Messages:
        refuse_hidden_reference(question)
        a, b = map(defused, question.responses)
        return said_by_user(
            self._prompt(
                user_query=defused(question.prompt),
                response_a=a,
                response_b=b,
                reference=defused(question.reference or ""),
            )
        )

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return self._reader(answer)
