"""Whatever a model writes ends as a verdict or as `ParseFailed`, soon.

Answers that parse are cut, doubled, shuffled and spiked with what parsers stumble over. Verdicts that come out must be
ones that the parser knows; none is checked for being the right one, because a mutation may have changed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from genrm_api.judging import Parse
from genrm_scoring.errors import ParseFailed
from genrm_scoring.judges import LISTWISE, PAIRWISE, POINTWISE
from genrm_scoring.parsers import reader_of
from genrm_scoring.types import Answer, Question, Ranking, Verdict

ONE, TWO = Question("q", (r"\boxed{4}",), "4"), Question("q", ("a", "b"))
FOUR = Question("q", ("a", "b", "c", "d"))
SCORES = '{"scores": {"logic": 0.2, "completeness": 0.1, "accuracy": 0.2, "relevance": 0.2, "clarity": 0.1}}'
GOOD = (
    r"The steps hold. \boxed{True}",
    "Fine. <score>7.5</score>",
    f"```json\n{SCORES}\n```",
    "{'understanding': 1, 'rules': 0, 'action': True,} // that is all",
    "<result>A</result>",
    "<ranking>2, 4, 1, 3</ranking>",
    "Verdict: 7",
    "7",
    '{"result": {"score": 7, "why": "it says {\\"score\\": 10}"}}',
)
SPIKES = (
    "<think>", "</think>", "<thinking>", "[THINK]", "◁/think▷", r"\boxed{", "}", "{", "{" * 64, "}" * 64, '"', "'",
    "\\", "`", "```json", "<score>", "</score>", "<result>tie</result>", "<ranking>", "1,2,3,4", ",", ":", "[", "]",
    "[" * 64, "//", "/*", "#", "\x00", "\ud800", "\udfff", "\ufffd", "￿", "é", "😀", "\u202e", "\n" * 20, " " * 50,
    "nan", "-inf", "1e999", "9" * 40, "٧", "−", r"\boxed{True}", "<score>10</score>", '{"scores": 1}', "null",
    "True", "\\u0000", "\r\n", "<|im_end|>", "{{ x }}",
)  # fmt: skip
MOST_SECONDS = {"mutated": 1.0, "huge": 2.0}
"""CPU time of one answer through one parser; far above what is usual, and far below for ever."""


def _readers() -> dict[str, Callable[[Answer], Verdict | Ranking]]:
    specs: list[dict[str, Any]] = [
        {"kind": "number", "minimum": 0, "maximum": 10},
        {"kind": "json", "field": "result.score"},
        {"kind": "regex", "pattern": r"(?s)Verdict:\s*(\S+)"},
        {"kind": "regex", "pattern": r"(?:a|b)*z|(\d)", "stripThinking": False},
        {"kind": "tag", "tag": "score", "minimum": 0, "maximum": 10, "stripThinking": False},
        {"kind": "boxed", "values": {"True": 1, "False": 0}, "stripThinking": False},
    ]
    found: dict[str, Callable[[Answer], Verdict | Ranking]] = {
        f"{number} {spec['kind']}": reader_of(Parse.model_validate(spec)) for number, spec in enumerate(specs)
    }
    found |= {name: lambda answer, judge=judge: judge.verdict(answer, ONE) for name, judge in POINTWISE.items()}  # type: ignore[misc]
    found |= {name: lambda answer, judge=judge: judge.verdict(answer, TWO) for name, judge in PAIRWISE.items()}  # type: ignore[misc]
    found |= {name: lambda answer, judge=judge: judge.ranking(answer, FOUR) for name, judge in LISTWISE.items()}  # type: ignore[misc]
    return found


READERS = _readers()


def mutated(dice: Random, most: int) -> str:
    """A good answer after a few accidents, at most `most` characters long."""
    text = dice.choice(GOOD)
    if dice.random() < 0.5:
        text = f"<think>{dice.choice(GOOD)}</think>{text}"
    for _ in range(dice.randint(0, 12)):
        at, to = sorted((dice.randint(0, len(text)), dice.randint(0, len(text))))
        match dice.randrange(7):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:to] + text[at:]
            case 2 | 3:
                text = text[:at] + dice.choice(SPIKES) + text[at:]
            case 4:
                text = text[:at] + dice.choice(SPIKES) * dice.randint(1, 200) + text[at:]
            case 5:
                text = text + dice.choice(GOOD)
            case 6:
                letters = list(text)
                for _ in range(dice.randint(1, 8)):
                    letters[dice.randrange(len(letters))] = chr(
                        dice.choice((dice.randrange(128), dice.randrange(0x10FFFF)))
                    )
                text = "".join(letters)
        text = text[:most] or "x"
    return text


def huge(dice: Random, size: int) -> str:
    """Ten million characters: noise, one spike for ever, or a mutated answer again and again; a verdict at its end."""
    piece = dice.choice(
        (dice.choice(SPIKES), dice.choice(GOOD), mutated(dice, 8192), dice.randbytes(64).decode(errors="replace"))
    )
    text = (piece * (size // len(piece) + 1))[:size]
    return dice.choice(("", "<think>", "{", r"\boxed{")) + text + dice.choice(("", "</think>")) + dice.choice(GOOD)


def outcomes(texts: Iterator[str], most_seconds: float) -> dict[str, int]:
    """How many verdicts each reader came to.

    Raises:
        AssertionError: one took too long; any other error is one of the parser.
    """
    verdicts = dict.fromkeys(READERS, 0)
    for text in texts:
        answer = Answer(text)
        for name, read in READERS.items():
            began = time.process_time()
            try:
                found = read(answer)
            except ParseFailed as e:
                assert len(str(e)) < 2000
            else:
                assert isinstance(found, Verdict | Ranking), name
                verdicts[name] += 1
            took = time.process_time() - began
            assert took < most_seconds, f"{name}: {took:.2f} s for {len(text)} characters: {text[:200]!r}"
    return verdicts


def check_mutated(count: int, seed: int) -> None:
    dice = Random(seed)
    verdicts = outcomes((mutated(dice, 8192) for _ in range(count)), MOST_SECONDS["mutated"])
    assert min(verdicts.values()) > 0, f"some reader never came to a verdict, so it was not tested: {verdicts}"


def check_huge(count: int, seed: int) -> None:
    dice = Random(seed)
    outcomes((huge(dice, 10_000_000) for _ in range(count)), MOST_SECONDS["huge"])


def test_a_mutated_answer_is_a_verdict_or_none() -> None:
    check_mutated(1_500, seed=1)


def test_so_is_one_of_ten_million_characters() -> None:
    check_huge(6, seed=1)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_so_are_a_hundred_thousand_mutated_answers() -> None:
    check_mutated(100_000, seed=2)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_so_are_a_hundred_of_ten_million_characters() -> None:
    check_huge(100, seed=2)
