"""A verdict read from the probabilities of its first token."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genrm_api.comparing import ScoringMode
from genrm_api.judging import Parse
from genrm_scoring import parsers
from genrm_scoring.errors import ConfigurationError, ParseFailed
from genrm_scoring.parsers import Distribution, reader_of
from genrm_scoring.types import Answer
from hypothesis import given
from hypothesis import strategies as st

VALUES = {"A": 1.0, "B": 0.0, "tie": 0.5}


def token(text: str, **top: float) -> dict[str, Any]:
    """A token as OpenAI's format has it; `top` are probabilities, `_A` is " A"."""
    found = {name.replace("_", " "): p for name, p in top.items()}
    own = found.get(text, 1.0)
    return {
        "token": text,
        "logprob": math.log(own),
        "bytes": list(text.encode()),
        "top_logprobs": [{"token": name, "logprob": math.log(p), "bytes": None} for name, p in found.items()],
    }


def distribution(tokens: list[dict[str, Any]], labels: dict[str, float], **more: float) -> Distribution:
    """Of an answer that is what its tokens spell."""
    return parsers.distribution(tokens, "".join(token["token"] for token in tokens), labels, **more)  # type: ignore[arg-type]


def test_the_verdict_is_the_expected_worth_and_the_rest_is_told() -> None:
    reader = reader_of(Parse(kind="logprob", values=VALUES))
    verdict = reader(Answer("A", logprobs=(token("A", A=0.5, B=0.25, tie=0.15, Hm=0.1),)))
    assert verdict.label == "A"
    assert verdict.value == pytest.approx((0.5 + 0.075) / 0.9)
    assert verdict.facts["missing"] == pytest.approx(0.1)
    assert [verdict.facts[f"p({label})"] for label in VALUES] == pytest.approx([5 / 9, 5 / 18, 1 / 6])


def test_a_label_is_counted_with_and_without_white_space() -> None:
    found = distribution([token(" A", A=0.2, _A=0.5, B=0.1, _B=0.2)], VALUES)
    assert found.said == "A" and found.masses["A"] == pytest.approx(0.7) and found.missing == pytest.approx(0.0)


def test_the_sampled_token_counts_where_the_engine_leaves_it_out_of_the_likeliest() -> None:
    place = token("B", A=0.6, tie=0.3) | {"logprob": math.log(0.1)}
    assert distribution([place], VALUES).masses["B"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "before",
    [
        ["<think>", " A", "?", "</think>", "\n\n"],
        ["A", " or", " B", "</think>"],
        ["<", "think", ">", "B", "</", "think", ">", " "],
        ["\n"],
        [],
    ],
)
def test_the_place_is_the_first_word_after_the_thoughts(before: list[str]) -> None:
    tokens = [*map(token, before), token("A", A=0.9, B=0.1), token(".")]
    assert distribution(tokens, VALUES).masses["A"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "said",
    [
        [],
        ["<think>", "A"],
        ["The", " A"],
        ["A", " closer", " look"],
        ["A", "nswer"],
        ["A", "B"],
        ["**", "A", "**"],
        ["a"],
    ],
)
def test_an_answer_that_says_something_else_there_is_no_verdict(said: list[str]) -> None:
    with pytest.raises(ParseFailed):
        distribution([token(word, A=0.9, B=0.1) for word in said], VALUES)


def test_an_answer_that_is_a_label_and_no_token_says_so() -> None:
    said = [token(word, go=0.9, bad=0.1) for word in ("go", "od")]
    with pytest.raises(ParseFailed, match=r"'good' is more than one token to this model"):
        distribution(said, {"good": 1.0, "bad": 0.0})
    with pytest.raises(ParseFailed) as refused:
        distribution([token("go"), token("ne")], {"good": 1.0, "bad": 0.0})
    assert "one token" not in str(refused.value), "it meant no label"


@pytest.mark.parametrize(("mode", "label", "worth"), [(None, "7", 7.0), (ScoringMode.PAIRWISE, "A", 1.0)])
def test_without_labels_of_its_own_a_judge_reads_digits_or_letters(
    mode: ScoringMode | None, label: str, worth: float
) -> None:
    reader = reader_of(Parse(kind="logprob"), mode)
    assert reader(Answer(label, logprobs=(token(label, **{label: 1.0}),))).value == worth


@pytest.mark.parametrize("after", [".", "\n\nBecause", ",", ")", " ", ""])
def test_what_follows_a_label_may_end_it(after: str) -> None:
    assert distribution([token("A", A=0.9, B=0.1), token(after)], VALUES).said == "A"


def test_the_end_of_the_turn_is_no_part_of_the_answer() -> None:
    tokens = [token("A", A=0.9, B=0.1), token("<|im_end|>")]
    assert parsers.distribution(tokens, "A", VALUES).said == "A"


def test_thoughts_that_the_engine_took_out_of_the_answer_are_among_its_tokens() -> None:
    tokens = [*map(token, ["<think>", "B", "?", "</think>", "\n"]), token("A", A=0.9, B=0.1), token("<|im_end|>")]
    assert parsers.distribution(tokens, "\nA", VALUES).masses["A"] == pytest.approx(0.9)


def test_too_much_that_went_elsewhere_is_no_verdict() -> None:
    with pytest.raises(ParseFailed, match=r"0\.300 of the probability went to something else"):
        distribution([token("A", A=0.6, B=0.1, Hm=0.3)], VALUES)
    assert distribution([token("A", A=0.6, B=0.1, Hm=0.3)], VALUES, most_missing=0.31).missing == pytest.approx(0.3)


@pytest.mark.parametrize("labels", [{"1": 1.0, "10": 10.0}, {" A": 1.0, "B": 0.0}, {"yes": 1.0, "yes!": 2.0}])
def test_labels_that_one_token_cannot_tell_apart_are_refused(labels: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"scoring\.parse\.values: .* cannot be told by its first token"):
        reader_of(Parse(kind="logprob", values=labels))


@pytest.mark.parametrize(
    "logprobs",
    [None, (), (1,), ({"token": 3, "logprob": 0},), ({"token": "A"},), ({"token": "A", "logprob": None},),
     ({"token": "A", "logprob": -0.1, "top_logprobs": [3]},), ({"token": "A", "logprob": math.nan},)],
)  # fmt: skip
def test_what_the_engine_sent_in_another_form_is_no_verdict(logprobs: tuple[Any, ...] | None) -> None:
    with pytest.raises(ParseFailed):
        reader_of(Parse(kind="logprob", values=VALUES))(Answer("A", logprobs=logprobs))


@given(st.lists(st.floats(1e-6, 1.0), min_size=4, max_size=4))
def test_masses_add_up_and_the_value_lies_between_the_worths(weights: list[float]) -> None:
    a, b, tie, rest = (weight / sum(weights) for weight in weights)
    tokens = [token("A", A=a, B=b, tie=tie, other=rest)]
    found = distribution(tokens, VALUES, most_missing=1.0)
    assert math.isclose(sum(found.masses.values()), 1.0)
    assert math.isclose(found.missing, rest, abs_tol=1e-9)
    assert -1e-9 <= found.expected(VALUES) <= 1 + 1e-9
