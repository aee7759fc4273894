"""One number out of every engine's answer, or none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from genrm_scoring import classifiers
from genrm_scoring.classifiers import BGE_SIMILARITY, cosine, piecewise
from genrm_scoring.errors import ParseFailed
from hypothesis import given
from hypothesis import strategies as st

READERS = [
    classifiers.read_vllm_classify,
    classifiers.read_vllm_pooling,
    classifiers.read_sglang_classify,
    classifiers.read_embeddings_score,
]


def body(found: Any) -> bytes:
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (classifiers.read_vllm_classify, {"data": [{"label": "LABEL_0", "probs": [-2.5], "num_classes": 1}]}),
        (classifiers.read_vllm_pooling, {"data": [{"object": "pooling", "data": [-2.5]}]}),
        (classifiers.read_vllm_pooling, {"data": [{"object": "pooling", "data": [[9.0], [1.0], [-2.5]]}]}),
        (classifiers.read_sglang_classify, {"embedding": [-2.5], "meta_info": {}}),
        (classifiers.read_sglang_classify, [{"embedding": [-2.5]}]),
        (classifiers.read_embeddings_score, {"data": [{"embedding": [-2.5], "index": 0}]}),
    ],
)
def test_the_head_s_own_number_is_read(read: Callable[[bytes], float], found: Any) -> None:
    assert read(body(found)) == -2.5


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "found",
    [
        {},
        [],
        None,
        7,
        {"data": []},
        {"data": [{"probs": [1.0, 2.0], "data": [1.0, 2.0], "embedding": [1.0, 2.0]}]},
        {"data": [{"probs": ["1"], "data": ["1"], "embedding": ["1"]}]},
        {"data": [{"probs": [None], "data": [None], "embedding": [None]}]},
        {"data": [{"probs": [True], "data": [True], "embedding": [True]}]},
        {"data": [{"probs": [math.nan], "data": [math.nan], "embedding": [math.inf]}]},
        {"data": [{"probs": [1.0], "data": [1.0], "embedding": [1.0]}] * 2},
        {"data": [{"probs": [], "data": [], "embedding": []}]},
    ],
)
def test_anything_else_is_no_number(read: Callable[[bytes], float], found: Any) -> None:
    with pytest.raises(ParseFailed):
        read(body(found))


@pytest.mark.parametrize("read", READERS)
@given(st.binary())
def test_no_bytes_break_a_reader(read: Callable[[bytes], float], found: bytes) -> None:
    with pytest.raises(ParseFailed):
        read(found)


def test_vllm_is_asked_without_an_activation_under_both_of_its_names() -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    switches = {"use_activation": False, "activation": False}
    assert classifiers.classify_body("rm", chat) == {"model": "rm", "messages": chat, **switches}
    assert classifiers.classify_body("rm", "text") == {"model": "rm", "input": "text", **switches}
    assert classifiers.sglang_body("text") == {"text": "text"}
    assert classifiers.embeddings_body("rm", "text") == {"model": "rm", "input": "text"}


def test_vectors_come_back_in_the_order_of_their_texts() -> None:
    rows = [{"index": 1, "embedding": [2, 3]}, {"index": 0, "embedding": [0, 1]}]
    assert classifiers.read_embeddings(body({"data": rows})) == [[0.0, 1.0], [2.0, 3.0]]
    with pytest.raises(ParseFailed):
        classifiers.read_embeddings(body({"data": [{"index": 0, "embedding": ["x"]}]}))


def test_the_cosine_is_that_of_the_angle() -> None:
    assert cosine([1, 0], [0, 2]) == 0.0
    assert cosine([1, 1], [2, 2]) == pytest.approx(1.0)
    assert cosine([1, 0], [-3, 0]) == -1.0
    for one, other in (([1.0], [1.0, 2.0]), ([0.0, 0.0], [1.0, 1.0]), ([], [])):
        with pytest.raises(ParseFailed):
            cosine(one, other)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=64))
def test_a_cosine_never_leaves_its_bounds(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    try:
        assert -1.0 <= cosine(one, other) <= 1.0
    except ParseFailed:
        assert math.hypot(*one) * math.hypot(*other) == 0.0


@pytest.mark.parametrize(("x", "y"), [(-1.0, 0.1), (0.65, 0.1), (0.75, 0.55), (0.85, 1.0), (1.0, 1.0)])
def test_a_similarity_is_bent_as_the_side_service_does(x: float, y: float) -> None:
    assert piecewise(x, BGE_SIMILARITY) == pytest.approx(y)
