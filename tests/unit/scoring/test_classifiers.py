"""One number out of every engine's answer, or none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from genrm_scoring import classifiers
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
    assert classifiers.embeddings_body("rm", (7, 8)) == {"model": "rm", "input": [7, 8]}


def test_scores_of_steps_are_no_score() -> None:
    body = b'{"data": [{"probs": [0.9, 0.1, 0.8]}]}'
    with pytest.raises(ParseFailed, match=r"3 labels; a score is one number \(step scores are out of scope\)"):
        classifiers.read_vllm_classify(body)
