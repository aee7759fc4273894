"""In which order are the answers, best first? The judge ends with `<ranking>2, 3, 1</ranking>`.

After the listwise judge of RM-Gallery. There a number that is missing is put at the end, and an answer that cannot be
read is the order of input, which rewards whoever was sampled first; here neither is a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from genrm_scoring.judges.judge import Messages, as_written
from genrm_scoring.judges.templated import about_all, asked, using
from genrm_scoring.parsers import ranking, spoken
from genrm_scoring.templates import SEVERAL, Template, built_in
from genrm_scoring.types import Answer, Question, Ranking, Verdict


@dataclass(frozen=True, slots=True)
class Listwise:
    """A ranking judge; the answer is read from its last `<ranking>`. Without a template a function makes the
    question."""

    template: Template | None
    strip_thinking: bool = True
    reads_logprobs: bool = False
    schema: None = None

    def messages(self, question: Question) -> Messages:
        return as_written(question) if self.template is None else asked(self.template, question, about_all)

    def ranking(self, answer: Answer, question: Question) -> Ranking:
        return ranking(spoken(answer.text, strip_thinking=self.strip_thinking), len(question.responses))

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        found = self.ranking(answer, question)
        below = len(found.best_first) - 1 - found.best_first.index(0)
        label = ", ".join(str(place + 1) for place in found.best_first)
        return Verdict(label, below / max(1, len(found.best_first) - 1), ranking=found)


def listwise(source: str, *, strip_thinking: bool = True) -> Listwise:
    """A judge of several responses, which answers as the built-in one does.

    Raises:
        ConfigurationError: the template is none, or leaves the responses out.
    """
    return Listwise(using(source, SEVERAL, {"responses"}), strip_thinking)


LISTWISE_RANKING: Final = Listwise(Template(built_in("listwise-ranking"), SEVERAL))
