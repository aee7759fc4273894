r"""Built-in rules: what is right, what is wrong, and what cannot be said."""

from __future__ import annotations

import time
from typing import Any

import pytest
from genrm_api.answer_rules import AnswerRule, RuleKind
from genrm_scoring.errors import ConfigurationError, GroundTruthUnusable
from genrm_scoring.rules import rule_of, score_of_rule
from genrm_scoring.types import Outcome, ScoreSource
from hypothesis import given
from hypothesis import strategies as st

BOXED = {"extract": "boxed"}
TAG = {"extract": "tag", "tag": "answer"}
AFTER = {"extract": "after", "after": "####"}
TAGS = {"tags": ["think", "answer"]}


def worth(response: str, truth: Any = None, **spec: Any) -> float:
    return rule_of(AnswerRule.model_validate(spec))(response, truth).value


@pytest.mark.parametrize(
    ("spec", "response", "truth", "value"),
    [
        ({}, " Paris \n", "Paris", 1),
        ({}, "New   York", "New York", 1),
        ({}, "paris", "Paris", 0),
        ({"ignoreCase": True}, "PARIS", "Paris", 1),
        (BOXED, r"First \boxed{A}, no: \boxed{B}", "B", 1),
        (BOXED, r"First \boxed{A}, no: \boxed{B}", "A", 0),
        (BOXED, r"\boxed{f(\{1\})}", r"f(\{1\})", 1),
        (BOXED, r"\boxed{A} and \boxed{B", "A", 0),
        (BOXED, "A", "A", 0),
        (BOXED, r"<think>\boxed{A}</think> I do not know", "A", 0),
        (BOXED, r"\boxed{A} it is</think> \boxed{B}", "B", 1),
        (BOXED, r"<think>\boxed{A}", "A", 0),
        (TAG, "<answer>no</answer> <answer> yes </answer>", "yes", 1),
        (TAG, "<answer>yes", "yes", 0),
        (AFTER, "So 3.\n#### yes\nThat is it", "yes", 1),
        (AFTER, "yes", "yes", 0),
        (AFTER, "#### ", "yes", 0),
    ],
)
def test_exact_compares_the_answer(spec: dict[str, Any], response: str, truth: str, value: float) -> None:
    assert worth(response, truth, kind="exact", **spec) == value


@pytest.mark.parametrize(
    ("spec", "response", "truth", "value"),
    [
        ({}, "so 3 apples and 4 pears, that is 7.", "7", 1),
        ({}, "so 3 apples and 4 pears, that is 7.", "4", 0),
        (BOXED, r"\boxed{1,234.50}", "1234.5", 1),
        (BOXED, r"\boxed{$-3$}", "-3", 1),
        (BOXED, "\\boxed{\N{MINUS SIGN}3}", "-3", 1),
        (BOXED, r"\boxed{x = 5 \text{ km}}", "5", 1),
        (BOXED, r"\boxed{50\%}", "50%", 1),
        (BOXED, r"\boxed{1e3}", "1000", 1),
        (BOXED, r"\boxed{.5}", "0.5", 1),
        (BOXED, r"\boxed{5-3}", "3", 1),
        (BOXED, r"\boxed{1/2}", "2", 0),
        (BOXED, r"\boxed{\frac{1}{2}}", "2", 0),
        (BOXED, r"\boxed{2^{10}}", "10", 0),
        (BOXED, r"\boxed{3\sqrt{2}}", "2", 0),
        (BOXED, r"\boxed{2\pi}", "2", 0),
        ({}, "It is 5!", "5", 1),
        (BOXED, r"\boxed{}", "5", 0),
        (BOXED, r"\boxed{many}", "5", 0),
        (BOXED, rf"\boxed{{{'9' * 400}}}", "5", 0),
        (AFTER, "#### 42", "It is 6 x 7. #### 42", 1),
        ({}, "0.3000001", "0.3", 1),
        ({}, "0.301", "0.3", 0),
        ({"tolerance": 0.01}, "1010", "1000", 1),
        ({"tolerance": 0}, "0.30000001", "0.3", 0),
    ],
)
def test_numeric_compares_numbers(spec: dict[str, Any], response: str, truth: str, value: float) -> None:
    assert worth(response, truth, kind="numeric", **spec) == value


@pytest.mark.parametrize(
    ("spec", "response", "truth", "value"),
    [
        ({}, r"Therefore the answer is \boxed{\frac{1}{2}}.", "0.5", 1),
        ({}, r"Therefore the answer is $\frac{2}{4}$.", "1/2", 1),
        ({}, r"Therefore the answer is \boxed{\frac{1}{3}}.", "0.5", 0),
        ({}, "I do not know.", "0.5", 0),
        (BOXED, r"It is 7, so \boxed{x^2 + 2x + 1}", "(x+1)^2", 1),
        (TAG, r"<answer>\sqrt{8}</answer>", r"2\sqrt{2}", 1),
        (TAG, r"\boxed{3}", "3", 0),
        (BOXED, r"<think>\boxed{3}</think>", "3", 0),
    ],
)
def test_math_compares_what_is_meant(spec: dict[str, Any], response: str, truth: str, value: float) -> None:
    assert worth(response, truth, kind="math", **spec) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        (" <think>\na</think>\n\n<answer>b</answer>\n", 1),
        ("a</think><answer>b</answer>", 1),
        ("<think>a</think>b", 0),
        ("<think>a</think> so <answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer> done", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a</think><answer>b", 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0),
        ("<think><think>a</think><answer>b</answer>", 0),
        ("", 0),
    ],
)
def test_format_wants_each_tag_once_in_order_and_nothing_between(response: str, value: float) -> None:
    assert worth(response, kind="format", **TAGS) == value


@pytest.mark.parametrize(
    ("spec", "response", "value"),
    [
        ({"minimum": 2, "maximum": 4}, "abc", 1),
        ({"minimum": 2, "maximum": 4}, "a", 0),
        ({"minimum": 2, "maximum": 4}, "abcde", 0),
        ({"maximum": 4, "margin": 4}, "abcde", 0.75),
        ({"maximum": 4, "margin": 4}, "a" * 99, 0),
        ({"minimum": 4, "margin": 4}, "ab", 0.5),
        ({"maximum": 2, "unit": "words"}, "two  words", 1),
    ],
)
def test_length_is_worth_less_the_further_it_is_away(spec: dict[str, Any], response: str, value: float) -> None:
    assert worth(response, kind="length", **spec) == value


def test_regex_finds_its_pattern_anywhere() -> None:
    assert worth("the answer is 42", kind="regex", pattern=r"\b\d+$") == 1
    assert worth("the answer is 42!", kind="regex", pattern=r"\b\d+$") == 0
    assert worth("a lone surrogate \ud800 here", kind="regex", pattern="here") == 1


def test_a_pattern_that_makes_backtracking_hang_takes_no_time() -> None:
    began = time.monotonic()
    assert worth("a" * 100_000 + "c", kind="regex", pattern="(a|a)*b$") == 0
    assert time.monotonic() - began < 5


def test_a_pattern_that_needs_backtracking_is_refused_before_anything_is_scored() -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.terms\.rule\.pattern: .*look-around"):
        rule_of(AnswerRule.model_validate({"kind": "regex", "pattern": "(?=a)b"}))


@pytest.mark.parametrize("kind", ["exact", "numeric", "math"])
@pytest.mark.parametrize("truth", [None, "", " \n"])
def test_without_a_ground_truth_nobody_is_wrong(kind: str, truth: str | None) -> None:
    rule = rule_of(AnswerRule.model_validate({"kind": kind}))
    with pytest.raises(GroundTruthUnusable, match="this prompt has none"):
        rule("42", truth)
    score = score_of_rule(rule, "42", truth)
    assert (score.value, score.outcome, score.source) == (None, Outcome.REFUSED, ScoreSource.DROPPED)


@pytest.mark.parametrize(
    ("spec", "response", "truth", "value"),
    [
        ({"kind": "exact"}, "four", ["4", "four"], 1),
        ({"kind": "exact", "ignoreCase": True}, "FOUR", [None, "", "four"], 1),
        ({"kind": "exact"}, "five", ["4", "four"], 0),
        ({"kind": "exact"}, "4", 4, 1),
        ({"kind": "exact"}, "4", [5, 4], 1),
        ({"kind": "numeric"}, "It is 4.0", ["four", "4"], 1),
        ({"kind": "numeric"}, "It is 5", ["four", 4, "6"], 0),
        ({"kind": "math"}, r"\boxed{1/2}", ["3", "0.5"], 1),
        ({"kind": "math"}, r"\boxed{1/2}", ["3", "4"], 0),
    ],
)
def test_of_several_ground_truths_any_will_do(spec: dict[str, Any], response: str, truth: Any, value: float) -> None:
    assert worth(response, truth, **spec) == value


@pytest.mark.parametrize("kind", ["exact", "numeric", "math"])
@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ({"target": 98, "numbers": [44]}, "the ground truth is an object with target, numbers; write one of them, or"),
        ([["4"]], "the ground truth is a list of 1"),
        (["4", {"a": 1}], "the ground truth is a list of 2"),
        (True, "the ground truth is the truth value true"),
        ([], "this prompt has none"),
        ([None, " "], "this prompt has none"),
    ],
)
def test_what_no_text_could_be_compared_with_is_told_by_its_keys(kind: str, truth: Any, says: str) -> None:
    score = score_of_rule(rule_of(AnswerRule.model_validate({"kind": kind})), "4", truth)
    assert (score.value, score.outcome) == (None, Outcome.REFUSED) and says in score.detail


def test_a_ground_truth_that_is_no_number_is_no_wrong_answer() -> None:
    score = score_of_rule(rule_of(AnswerRule.model_validate({"kind": "numeric"})), "42", "1/2")
    assert (score.value, score.outcome) == (None, Outcome.REFUSED) and "'1/2'" in score.detail


def test_a_rules_zero_is_a_score_that_says_whose_it_is() -> None:
    score = score_of_rule(rule_of(AnswerRule.model_validate({"kind": "exact", **BOXED})), "I do not know", "42")
    assert (score.value, score.outcome, score.source, score.detail) == (0, Outcome.OK, ScoreSource.RULE, "no answer")


SPECS = [
    {"kind": "exact", **BOXED}, {"kind": "exact", **TAG}, {"kind": "numeric", **AFTER}, {"kind": "numeric"},
    {"kind": "regex", "pattern": "a+b"}, {"kind": "format", **TAGS}, {"kind": "length", "minimum": 3, "margin": 2},
]  # fmt: skip
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "{", "}", "42", "-1,000", ".", "####", "\n", "é", "\0"]
)


@given(st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
def test_whatever_a_policy_writes_is_worth_something_from_0_to_1(response: str) -> None:
    for spec in SPECS:
        verdict = rule_of(AnswerRule.model_validate(spec))(response, "42")
        assert 0 <= verdict.value <= 1 and verdict.label


@pytest.mark.parametrize("response", ["{" * 10**6, r"\boxed{" * 10**5, "<answer>" * 10**5, "1," * 10**6, "9" * 10**6])
def test_no_response_makes_a_rule_slow(response: str) -> None:
    began = time.monotonic()
    for spec in SPECS:
        rule_of(AnswerRule.model_validate(spec))(response, "42")
    assert time.monotonic() - began < 5


def test_every_kind_but_python_is_built_in() -> None:
    for kind in RuleKind:
        more = {"regex": {"pattern": "a"}, "format": TAGS, "length": {"minimum": 1}, "python": {"function": "f"}}
        spec = AnswerRule.model_validate({"kind": kind, **more.get(kind, {})})
        if kind is RuleKind.PYTHON:
            with pytest.raises(ConfigurationError, match="runs in a worker"):
                rule_of(spec)
        else:
            assert callable(rule_of(spec))
