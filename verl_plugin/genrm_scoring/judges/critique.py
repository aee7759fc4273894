"""First a critique in words, then a number: a classifier reads prompt, response and critique.

After CLoud (Ankner et al., "Critique-out-Loud Reward Models", 2024): a reward head that may first read what is good and
bad about a response ranks better than one that may not. VeRL-with-RMs left this kind (`cloud`) as a stub. The critique
comes from one model, the number from another (or from the same weights with a head), so a judgement is two requests:
`messages` asks for the critique, `with_critique` is the turn whose last token the classifier's head reads. The engine
writes that chat with the classifier's own template.
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.judges.judge import Messages
from genrm_scoring.judges.templated import asked
from genrm_scoring.parsers import spoken
from genrm_scoring.templates import ONE, Template, built_in, defused
from genrm_scoring.types import Answer, Question, Verdict

_TEMPLATE: Final = Template(built_in("critique-then-score"), ONE)


class CritiqueThenScore:
    """The verdict of the critic is that it has spoken, worth the number of its words; nobody is scored by that."""

    reads_logprobs = False
    schema = None

    def messages(self, question: Question) -> Messages:
        return asked(_TEMPLATE, question)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        """
        Raises:
            ParseFailed: nothing was said but thoughts.
        """
        return Verdict("critique", float(len(_words(answer).split())))


def with_critique(response: str, critique: Answer) -> str:
    """What the classifier reads in the assistant's turn: the critique behind the response."""
    return f"{defused(response)}\n\n<critique>\n{defused(_words(critique))}\n</critique>"


def _words(answer: Answer) -> str:
    words = spoken(answer.text).strip()
    if not words:
        raise ParseFailed("the critique is empty")
    return words
