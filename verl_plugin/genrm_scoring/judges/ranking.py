"""In which order are the answers, best first? The judge ends with `<ranking>2, 3, 1</ranking>`.

After the listwise judge of RM-Gallery. There a number that is missing is put at the end, and an answer that cannot be
read is the order of input, which rewards whoever was sampled first; here neither is a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from genrm_scoring.judges.judge import Messages, said_by_user
from genrm_scoring.parsers import ranking, spoken
from genrm_scoring.templates import SEVERAL, Template, built_in
from genrm_scoring.types import Answer, Question, Ranking


@dataclass(frozen=True, slots=True)
class Listwise:
    """A ranking judge from a template; the answer is read from its last `<ranking>`."""

    template: Template
    strip_thinking: bool = True
    reads_logprobs: bool = False
    schema: None = None

    def messages(self, question: Question) -> Messages:
        values = {"question": question.prompt, "responses": question.responses, "reference": question.reference}
        return said_by_user(self.template.render(values))

    def ranking(self, answer: Answer, question: Question) -> Ranking:
        return ranking(spoken(answer.text, strip_thinking=self.strip_thinking), len(question.responses))


LISTWISE_RANKING: Final = Listwise(Template(built_in("listwise-ranking"), SEVERAL))
