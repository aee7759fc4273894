"""First a critique in words, then a number: a classifier reads prompt, response and critique.

After CLoud (Ankner et al., "Critique-out-Loud Reward Models", 2024): a reward head that may first read what is good and
bad about a response ranks better than one that may not. VeRL-with-RMs left this kind (`cloud`) as a stub. The critique
comes from one model, the number from another (or from the same weights with a head), so a judgement is two requests:
`messages` asks for the critique, `to_classify` is the chat whose last token the classifier's head reads. The engine
writes that chat with the classifier's own template.
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.errors import ParseFailed
from genrm_scoring.judges.judge import Messages, said_by_user
from genrm_scoring.judges.templated import about_one
from genrm_scoring.parsers import spoken
from genrm_scoring.templates import ONE, Template, built_in, defused
from genrm_scoring.types import Answer, Question

_TEMPLATE: Final = Template(built_in("critique-then-score"), ONE)


class CritiqueThenScore:
    reads_logprobs = False
    schema = None

    def messages(self, question: Question) -> Messages:
        return said_by_user(_TEMPLATE.render(about_one(question)))

    def to_classify(self, critique: Answer, question: Question) -> Messages:
        """The chat for the classifier: the critique stands behind the response, in the assistant's turn.

        Raises:
            ParseFailed: nothing was said but thoughts.
        """
        words = spoken(critique.text).strip()
        if not words:
            raise ParseFailed("the critique is empty")
        (response,) = question.responses
        judged = f"{defused(response)}\n\n<critique>\n{defused(words)}\n</critique>"
        return [{"role": "user", "content": defused(question.prompt)}, {"role": "assistant", "content": judged}]
