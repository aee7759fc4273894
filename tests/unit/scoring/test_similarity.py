"""How like its reference a response is, by an embedding model or by VeRL-with-RMs' side service."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from genrm_api.terms import RewardApiFormat
from genrm_scoring.errors import ParseFailed, Unaskable
from genrm_scoring.similarity import Similarity, cosine
from genrm_scoring.types import Answer, Question
from hypothesis import given
from hypothesis import strategies as st

EMBEDDINGS = Similarity(RewardApiFormat.OPENAI_EMBEDDINGS, "bge")
SIDE_SERVICE = Similarity(RewardApiFormat.GET_BGE_SIM)
QUESTION = Question("2 + 2?", ("It is 4.",), reference="4")


def read(speech: Similarity, found: Any) -> float:
    return speech.verdict(Answer(json.dumps(found)), QUESTION).value


def vectors(*rows: tuple[int, list[Any]]) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": embedding} for index, embedding in rows]}


def test_both_texts_are_sent_in_one_request() -> None:
    assert json.loads(EMBEDDINGS.body(QUESTION, 0)) == {"model": "bge", "input": ["It is 4.", "4"]}
    assert json.loads(SIDE_SERVICE.body(QUESTION, 0)) == {"sent1": "It is 4.", "sent2": "4"}


@pytest.mark.parametrize("speech", [EMBEDDINGS, SIDE_SERVICE])
def test_without_a_reference_nobody_is_asked(speech: Similarity) -> None:
    with pytest.raises(Unaskable, match="no reference"):
        speech.body(Question("2 + 2?", ("It is 4.",)), 0)


def test_the_number_is_the_cosine_whatever_order_the_vectors_come_in() -> None:
    assert read(EMBEDDINGS, vectors((1, [0, 2]), (0, [3, 3]))) == pytest.approx(math.sqrt(0.5))
    assert read(EMBEDDINGS, vectors((0, [1, 0]), (1, [-3, 0]))) == -1.0
    assert read(SIDE_SERVICE, {"sim": 0.1}) == 0.1


@pytest.mark.parametrize(
    ("speech", "found"),
    [
        (EMBEDDINGS, vectors((0, [1.0]))),
        (EMBEDDINGS, vectors((0, [1.0]), (1, [1.0, 2.0]))),
        (EMBEDDINGS, vectors((0, [0.0, 0.0]), (1, [1.0, 1.0]))),
        (EMBEDDINGS, vectors((0, ["x"]), (1, [1.0]))),
        (EMBEDDINGS, vectors((0, [True]), (1, [1.0]))),
        (EMBEDDINGS, {"sim": 0.5}),
        (SIDE_SERVICE, {"sim": "0.5"}),
        (SIDE_SERVICE, {"sim": None}),
        (SIDE_SERVICE, {"sim": math.nan}),
        (SIDE_SERVICE, []),
    ],
)
def test_what_is_no_similarity_is_no_verdict(speech: Similarity, found: Any) -> None:
    with pytest.raises(ParseFailed):
        read(speech, found)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=64))
def test_a_cosine_never_leaves_its_bounds(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    try:
        assert -1.0 <= cosine(one, other) <= 1.0
    except ParseFailed:
        assert math.hypot(*one) * math.hypot(*other) == 0.0
