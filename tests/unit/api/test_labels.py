"""Labels that are read from probabilities: which there are if none are written, and which a tokenizer takes apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from genrm_api.comparing import ScoringMode
from genrm_api.labels import DIGITS, LETTERS, labels_of, split_labels, why_split, with_labels
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring

from tests.unit.api.shapes import TEMPLATE, manifest

LOGPROB = {"kind": "logprob"}
Tokenizer = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("mode", "labels"),
    [(None, DIGITS), (ScoringMode.POINTWISE, DIGITS), (ScoringMode.PAIRWISE, LETTERS)],
)
def test_a_judge_that_writes_no_labels_reads_digits_or_letters(mode: ScoringMode | None, labels: Any) -> None:
    scoring = Scoring.model_validate({"mode": mode, "template": TEMPLATE, "parse": LOGPROB})
    assert scoring.parse is not None
    assert with_labels(scoring.parse, mode).values == dict(labels)
    own = scoring.parse.model_copy(update={"values": {"Y": 1.0, "N": 0.0}})
    assert with_labels(own, mode) is own, "who writes labels means them"


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        ({"template": TEMPLATE, "parse": LOGPROB}, tuple("0123456789")),
        ({"template": TEMPLATE, "parse": LOGPROB, "mode": "pairwise"}, ("A", "B")),
        ({"template": TEMPLATE, "parse": {**LOGPROB, "values": {"Y": 1, "N": 0}}}, ("Y", "N")),
        ({"template": TEMPLATE, "parse": {"kind": "tag", "tag": "t", "values": {"Y": 1, "N": 0}}}, ()),
        ({"judge": "pointwise-1-10"}, ()),
        ({}, ()),
    ],
)
def test_only_who_reads_probabilities_has_labels(spec: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert labels_of(RewardModel.model_validate(manifest({"scoring": spec}))) == labels


def test_a_classifier_has_none() -> None:
    assert labels_of(RewardModel.model_validate(manifest({"type": "Classifier"}))) == ()


def words(*known: str) -> Tokenizer:
    """As GPT's tokenizers do: a space belongs to the word behind it, digits stand alone, unknown words are spelled."""

    def tokenize(text: str) -> list[str]:
        found = re.findall(r"\n|\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s", text)
        return [token for piece in found for token in ([piece] if piece in known or len(piece) == 1 else piece)]

    return tokenize


def pieces(*known: str) -> Tokenizer:
    """As SentencePiece does for Llama 2: a text gets a space in front, and digits no word of their own with it."""

    def tokenize(text: str) -> list[str]:
        found = re.findall(r"\n|\d|▁?[A-Za-z]+|▁", "▁" + text.replace(" ", "▁"))
        return [token for piece in found for token in ([piece] if piece in known or len(piece) == 1 else piece)]

    return tokenize


@pytest.mark.parametrize(
    ("tokenizer", "labels", "split"),
    [
        (words(), "0123456789", ""),
        (words(), "AB", ""),
        (words("yes", "no"), ["yes", "no"], []),
        (words("yes"), ["yes", "no"], ["no"]),
        (words(" good", "bad"), ["good", "bad"], []),  # the parser reads " good" as good
        (words("good"), ["good", "10", "-1"], ["10", "-1"]),
        (words(), ["excellent", "poor"], ["excellent", "poor"]),
        (pieces(), "0123456789", ""),
        (pieces("▁A", "▁B"), "AB", ""),
        (pieces("▁good"), ["good", "bad"], ["bad"]),
        (list, ["A", "yes", "ja"], ["yes", "ja"]),
    ],
)
async def test_a_label_is_one_token_if_an_answer_can_begin_with_it_as_one(
    tokenizer: Tokenizer, labels: Any, split: Any
) -> None:
    ids: dict[str, int] = {}
    asked: list[str] = []

    async def tokenize(text: str) -> list[int]:
        asked.append(text)
        return [ids.setdefault(token, len(ids)) for token in tokenizer(text)]

    assert await split_labels(list(labels), tokenize) == tuple(split)
    assert len(asked) <= 1 + 3 * len(labels) and (split or tokenizer is not list or len(asked) == 1 + len(labels))


async def test_a_tokenizer_that_says_nothing_is_no_tokenizer() -> None:
    async def tokenize(_: str) -> list[int]:
        return []

    with pytest.raises(ValueError, match="unpack"):
        await split_labels(["A"], tokenize)


def test_the_sentence_names_the_labels_and_what_to_do() -> None:
    assert why_split(["good"]).startswith("'good' is more than one token")
    assert why_split(["good", "bad"]).startswith("'good', 'bad' are more than one token")
    assert "write labels of one token each" in why_split(["good"])
