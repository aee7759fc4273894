r"""Where in a response its final answer is.

What stands in a thinking block is no answer: a policy that thinks of two answers and gives neither has given none. The
block may lack its opening tag, which the chat template wrote, and one that never closes leaves nothing said. Every
search is linear in the response.
"""

from __future__ import annotations

from typing import Any, Final

from genrm_api.answer_rules import AnswerRule, Extract

from genrm_scoring.errors import GroundTruthUnusable
from genrm_scoring.ground_truths import in_words, text_of
from genrm_scoring.parsers.boxed import in_last_box
from genrm_scoring.parsers.thinking import spoken_span
from genrm_scoring.types import Verdict

NO_ANSWER: Final = Verdict("no answer", 0.0)
RIGHT: Final = Verdict("right", 1.0)
WRONG: Final = Verdict("wrong", 0.0)


def answer_in(spec: AnswerRule, response: str) -> str | None:
    """The final answer, without the space around it; `None` if there is none."""
    said = spoken(response)
    match spec.extract:
        case Extract.BOXED:
            found = in_last_box(said)
        case Extract.TAG:
            found = _tagged(said, spec.tag or "")
        case Extract.AFTER:
            _, marker, rest = said.rpartition(spec.after or "")
            found = rest.strip().partition("\n")[0] if marker else None
        case _:
            found = said
    return (found or "").strip() or None


def spoken(response: str) -> str:
    """What was said after all thinking."""
    start, end = spoken_span(response)
    return response[start:end]


def wanted_by(rule: str, ground_truth: Any) -> list[str]:
    """The texts that are right: of a list each is, as data sets mean it that list several spellings.

    Raises:
        GroundTruthUnusable: there is none, or none that a text could be compared with.
    """
    several = ground_truth if isinstance(ground_truth, list) else [ground_truth]
    texts = [text_of(each) for each in several if each is not None]
    if any(text is None for text in texts):
        raise GroundTruthUnusable(
            f"rule {rule} compares with a text, a number, or a list of these, and the ground truth is "
            f"{in_words(ground_truth)}; write one of them, or a rule of kind python, which is given it as it is"
        )
    if not (found := [text for text in texts if text is not None and text.strip()]):
        raise GroundTruthUnusable(f"rule {rule} compares with the ground truth, and this prompt has none")
    return found


def _tagged(text: str, tag: str) -> str | None:
    before, closing, _ = text.rpartition(f"</{tag}>")
    _, opening, inside = before.rpartition(f"<{tag}>")
    return inside if closing and opening else None
