"""Expressions: arithmetic that is right, and everything else that is refused before it could run."""

from __future__ import annotations

import math

import pytest
from genrm_scoring.errors import ConfigurationError, MixFailed
from genrm_scoring.mixing.expression import parsed
from hypothesis import example, given
from hypothesis import strategies as st

TERMS = frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", 2),
        ("-a + 3 * b", 13),
        ("a ** b", 32),
        ("(a + b) / 2", 3.5),
        ("min(a, b, 1) + max(a, b)", 6),
        ("abs(-a) + sqrt(4) + exp(0) + log(1)", 5),
        ("clip(b, 0, 3)", 3),
        ("a if a > b else b", 5),
        ("1 < a < b", 1),
        ("a == 2 and b != 2", 1),
        ("not a or b < 0", 0),
        ("0 and 1 / 0 or a", 1),
        (" a ", 2),
        ("10 ** 300 * 0 + a", 2),
    ],
)
def test_arithmetic_is_what_it_says(text: str, expected: float) -> None:
    found = parsed(text, TERMS).value({"a": 2.0, "b": 5.0})
    assert found == pytest.approx(expected) and isinstance(found, float)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a +",
        "(a",
        "a b",
        "c",
        "__import__('os').system('true')",
        "a.__class__",
        "(1).__class__",
        "a[0]",
        "[a]",
        "{a: b}",
        "(a, b)",
        "'a'",
        "b'a'",
        "f'{a}'",
        "True",
        "None",
        "...",
        "1j",
        "a if b",
        "lambda a: a",
        "[a for a in b]",
        "(a := b)",
        "yield a",
        "await a",
        "max(*a)",
        "max(a, key=b)",
        "max(a)",
        "sqrt(a, b)",
        "clip(a)",
        "max",
        "max + a",
        "a(b)",
        "max(a, b)(a)",
        "eval(a)",
        "a; b",
        "a\nb",
        "a = b",
        "a @ b",
        "a // b",
        "a % b",
        "a << b",
        "a | b",
        "~a",
        "a in b",
        "a is b",
        "1if a else b",
        "9" * 400,
        "1e999",
        "(" * 300 + "a" + ")" * 300,
        "-" * 500 + "a",
        "a" + "+a" * 250,
        "a + " * 128 + "a",
        "a\0",
        "a" * 513,
    ],
)
def test_what_is_no_arithmetic_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.expression: "):
        parsed(text, TERMS)


@pytest.mark.parametrize(
    ("text", "a"),
    [
        ("1 / a", 0),
        ("log(a)", 0),
        ("sqrt(a)", -1),
        ("exp(a)", 1e6),
        ("a ** 0.5", -1),
        ("a ** 99", 1e30),
        ("a * a", 1e200),
    ],
)
def test_where_there_is_no_number_nothing_stands_for_it(text: str, a: float) -> None:
    with pytest.raises(MixFailed):
        parsed(text, TERMS).value({"a": float(a)})


@given(st.text(alphabet="ab019.+-*/()<>=! ,andormicliex", max_size=60), st.floats(-10, 10), st.floats(-10, 10))
@example("9**9**9**9", 1.0, 1.0)
@example("a<b<a and not b", 1.0, 2.0)
def test_whatever_is_written_ends_as_a_finite_number_or_with_an_error_of_ours(text: str, a: float, b: float) -> None:
    try:
        found = parsed(text, TERMS).value({"a": a, "b": b})
    except (ConfigurationError, MixFailed):
        return
    assert isinstance(found, float) and math.isfinite(found)


SUMS = st.recursive(
    st.sampled_from(["a", "b", "2", "0.5"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "<", ">="]), inner).map(" ".join).map("({})".format),
    max_leaves=12,
)


@given(SUMS, st.floats(-10, 10), st.floats(-10, 10))
def test_it_is_what_python_makes_of_it(text: str, a: float, b: float) -> None:
    theirs = eval(text, {"__builtins__": {}}, {"a": a, "b": b})
    assert parsed(text, TERMS).value({"a": a, "b": b}) == pytest.approx(float(theirs))
