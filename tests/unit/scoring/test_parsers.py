"""What is a verdict, and what is none, for each kind of parser."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genrm_api.judging import Parse
from genrm_scoring.errors import ConfigurationError, ParseFailed
from genrm_scoring.parsers import boxed, last_object, only_number, ranking, reader_of, spoken, tagged
from genrm_scoring.parsers.json_object import LONGEST_REPAIR
from genrm_scoring.parsers.thinking import BLOCKS, LONGEST_SPOKEN
from genrm_scoring.parsers.worth import number
from genrm_scoring.types import Answer, Ranking
from hypothesis import given
from hypothesis import strategies as st


def read(parse: dict[str, Any], text: str) -> tuple[str, float]:
    verdict = reader_of(Parse.model_validate(parse))(Answer(text))
    return verdict.label, verdict.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("opened by the template</think>b", "b"),
        ("b<think>never closed", "b"),
        ("<think>never closed", ""),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a <think> b</think> c</think>d", "d"),
        ("<thinking>a</thinking>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<think>a</think>b[THINK]c", "b"),
        ("", ""),
    ],
)
def test_only_what_was_said_after_the_thoughts_is_read(text: str, said: str) -> None:
    assert spoken(text) == said


@given(st.lists(st.one_of(st.text(), st.sampled_from([tag for block in BLOCKS for tag in block]))))
def test_no_thought_and_no_tag_is_left(parts: list[str]) -> None:
    text = "".join(parts)
    said = spoken(text)
    assert said in text
    assert not any(opening in said or closing in said for opening, closing in BLOCKS)


def test_every_tag_is_searched_for() -> None:
    for opening, closing in BLOCKS:
        assert spoken(f"{opening}a{closing}b") == "b" and spoken(f"a{closing}b{opening}c") == "b"


def test_thoughts_are_read_where_the_spec_says_so() -> None:
    parse = {"kind": "boxed", "stripThinking": False}
    assert read(parse, r"<think>\boxed{1}") == ("1", 1.0)


def test_a_book_is_no_verdict_and_long_thoughts_are_no_book() -> None:
    assert spoken("x" * LONGEST_SPOKEN + "</think>\\boxed{1}") == "\\boxed{1}"
    with pytest.raises(ParseFailed, match="characters are no verdict"):
        spoken("x" * (LONGEST_SPOKEN + 1))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{yes}}", "yes"),
        (r"\boxed{1} or rather \boxed{ 2 }", "2"),
    ],
)
def test_the_last_box_counts(text: str, label: str) -> None:
    assert boxed(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<score>7</score>", "7"),
        ("<score>1</score> no, <score>\n8\n</score>", "8"),
        ("<score>1 <score>2</score>", "2"),
        ("I write <score>: <score>2</score></score>", "2"),
    ],
)
def test_the_last_tag_counts(text: str, label: str) -> None:
    assert tagged(text, "score") == label


@pytest.mark.parametrize("text", ["", "7", "<score>7", "</score>7", "<score>7</score> or <score>8", "<Score>7</Score>"])
def test_a_tag_that_is_not_whole_hides_the_verdict(text: str) -> None:
    with pytest.raises(ParseFailed):
        tagged(text, "score")


@pytest.mark.parametrize(
    "text",
    [r"\boxed{" + "{" * 5000, r"\boxed{" + "x" * 5000 + "}", "<score>" + "x" * 5000 + "</score>"],
    ids=["braces", "box", "tag"],
)
def test_an_essay_is_no_label(text: str) -> None:
    for find in (boxed, lambda text: tagged(text, "score")):
        with pytest.raises(ParseFailed):
            find(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7.0), ("-7.5", -7.5), ("−7", -7.0), ("+.5", 0.5), ("7.", 7.0), ("1e3", 1000.0), ("0" * 31 + "7", 7.0)],
)
def test_a_number_is_read_as_it_stands(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "seven", "7/10", "1,000", "7 8", "7%", "nan", "inf", "1e999", "0x10", "٧", "1_0", " 7", "--7", "9" * 99],
)
def test_what_is_not_a_number_from_end_to_end_is_none(text: str) -> None:
    with pytest.raises(ParseFailed):
        number(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7", "7"),
        ("The score is 7.", "7"),
        ("Score: -2.5\n", "-2.5"),
        ("**8**", "8"),
        ("(9)", "9"),
        ("it is .5 I think", ".5"),
        ("7, because it is good", "7"),
    ],
)
def test_the_only_number_of_a_sentence_is_its_verdict(text: str, found: str) -> None:
    assert only_number(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "none", "7/10", "7 out of 10", "1,000", "GPT4", "7th", "90%", "x^2", "score-5", "1.2.3", "...7", "a_1", "7e2",
     "٧", "7½", "v.7", "5–", "–5", "--5"],
)  # fmt: skip
def test_a_number_among_others_or_within_a_word_is_no_verdict(text: str) -> None:
    with pytest.raises(ParseFailed):
        only_number(text)


@given(st.text(), st.text())
def test_what_is_read_as_the_only_number_is_the_only_digits_there_are(before: str, after: str) -> None:
    text = f"{before}7{after}"
    try:
        found = only_number(text)
    except ParseFailed:
        return
    if len(found) <= 32:  # with more digits it is a number that nobody means
        assert math.isfinite(number(found))
    assert not any(letter.isdecimal() for letter in text.replace(found, "", 1))


@pytest.mark.parametrize(
    ("text", "best_first"),
    [
        ("<ranking>3,1,2</ranking>", (2, 0, 1)),
        ("<ranking>\n2 > 3 > 1\n</ranking>", (1, 2, 0)),
        ("<ranking>[1, 2, 3]</ranking>", (0, 1, 2)),
        ("<ranking>1 2 3</ranking> hm <ranking>3 2 1</ranking>", (2, 1, 0)),
    ],
)
def test_a_ranking_names_every_response_once(text: str, best_first: tuple[int, ...]) -> None:
    assert ranking(text, 3) == Ranking(best_first)


@pytest.mark.parametrize(
    "listed", ["", "3,1", "3,1,1", "3,1,2,4", "0,1,2", "3=1>2", "3,1,two", "A,B,C", "3,,1,2", "-1,2,3"]
)
def test_a_ranking_that_leaves_something_open_is_none(listed: str) -> None:
    with pytest.raises(ParseFailed):
        ranking(f"<ranking>{listed}</ranking>", 3)


def test_a_ranking_of_the_wrong_shape_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no order"):
        Ranking((0, 0))


JSON = {"kind": "json", "field": "score"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"score": 7}', 7.0),
        ('```json\n{"score": 7.5}\n```', 7.5),
        ('{"score": "7"}', 7.0),
        ('{"why": "two\nlines", "score": 7}', 7.0),
        ('The set {1, 2} is small. {"score": 7}', 7.0),
        ('{"score": 1} or rather {"score": 7}', 7.0),
        ('{"why": "it says {\\"score\\": 10}", "score": 7}', 7.0),
        ('{"inner": {"score": 1}, "score": 7}', 7.0),
        ("{'why': \"don't\", 'score': 7,}", 7.0),
        ('{"score": 7, // quite good\n "why": "x"}', 7.0),
        ("{score: 7}", 7.0),
        ('{"score": 7 }{', None),
        ('{“score”: 7}', 7.0),
    ],
)  # fmt: skip
def test_the_last_object_is_read_and_repaired_where_that_is_no_guess(text: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(ParseFailed):
            read(JSON, text)
    else:
        assert read(JSON, text)[1] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[7]",
        '{"score": 7',
        '{"score": 7} {',
        '{"score": 7} and the set {1, 2}',
        '{"grade": 7}',
        '{"score": null}',
        '{"score": true}',
        '{"score": [7]}',
        '{"score": {"score": 7}}',
        '{"score": NaN}',
        '{"score": 1e999}',
        '{"score": 7/10}',
        '{"score": 7, "score": 8}',
        "{'score': 7, 'score': 8}",
        '{"score": 8 or 9}',
        '{"score": 1,000}',
        '{"score": }',
        '{"score": 5-6}',
        '{"a": "he said "score": 9", "score": 3}',
        '{"score": ' + "9" * 5000 + "}",
        '{"a":' * 5000 + "1" + "}" * 5000,
        "{" * 5000,
        "{'score': 7, 'why': '" + "x" * LONGEST_REPAIR + "'}",
        "{'score': 7, 'why': '" + "{" * 100 + "'}",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_half_an_object_or_a_repair_that_guesses_is_no_verdict(text: str) -> None:
    with pytest.raises(ParseFailed):
        read(JSON, text)


def test_a_path_leads_into_objects() -> None:
    assert read({"kind": "json", "field": "result.score"}, '{"result": {"score": 3}}') == ("3", 3.0)
    with pytest.raises(ParseFailed, match=r"no result\.score"):
        read({"kind": "json", "field": "result.score"}, '{"result": 3}')


def test_flags_and_numbers_are_labels_too() -> None:
    values = {"true": 1, "false": 0}
    assert read({**JSON, "values": values}, '{"score": true}') == ("true", 1.0)
    assert read({**JSON, "values": values}, "{'score': False}") == ("false", 0.0)
    assert last_object('{"score": 7.0}').label(["score"]) == "7.0"


REGEX = {"kind": "regex", "pattern": r"(?i)verdict:\s*(\w+)", "values": {"yes": 1, "no": 0}}


@pytest.mark.parametrize(
    ("text", "value"), [("Verdict: yes", 1.0), ("verdict: no ... Verdict:\nyes.", 1.0), ("é Verdict: no", 0.0)]
)
def test_the_last_match_of_a_pattern_counts(text: str, value: float) -> None:
    assert read(REGEX, text)[1] == value


@pytest.mark.parametrize("text", ["", "yes", "Verdict: maybe", "verdict: yes, but verdict: perhaps"])
def test_no_match_or_another_word_is_no_verdict(text: str) -> None:
    with pytest.raises(ParseFailed):
        read(REGEX, text)


def test_a_pattern_without_a_group_is_its_whole_match() -> None:
    assert read({"kind": "regex", "pattern": r"\d+"}, "3 4 15") == ("15", 15.0)


def test_a_group_that_took_no_part_in_the_match_is_no_verdict() -> None:
    with pytest.raises(ParseFailed, match="no first group"):
        read({"kind": "regex", "pattern": r"(\d)|x"}, "1 x")


@pytest.mark.parametrize("pattern", ["(", r"(?=x)y", r"(?<!x)y", r"(x)\1", "x{2000}", "[b-a]", "(?P<n>x)(?P=n)"])
def test_a_pattern_that_no_linear_time_is_known_for_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^scoring\.parse\.pattern: .* is no regular expression of RE2"):
        reader_of(Parse(kind="regex", pattern=pattern))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(a|a)*b", "a" * 100_000),
        (r"(a+)+$", "a" * 100_000 + "!"),
        (r"(.*)(.*)(.*)x", "y" * 100_000),
        (r"a.*b|a", "a" * 200_000),
        (r"\d", "1" * 200_000),
        ("x*", "y" * 200_000),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_pattern_and_an_answer_made_for_each_other_take_no_long_time(pattern: str, text: str) -> None:
    with pytest.raises(ParseFailed):
        read({"kind": "regex", "pattern": pattern, "values": {"z": 1}}, text)


def test_a_letter_that_is_none_does_not_stop_the_pattern() -> None:
    assert read(REGEX, "\ud800 verdict: yes")[1] == 1.0


def test_bounds_hold_for_numbers_and_for_what_labels_are_worth() -> None:
    parse = {"kind": "number", "minimum": 1, "maximum": 10}
    assert (read(parse, "1")[1], read(parse, "10")[1]) == (1.0, 10.0)
    for outside in ("0.99", "11", "-5"):
        with pytest.raises(ParseFailed, match="than"):
            read(parse, outside)
    with pytest.raises(ParseFailed, match="more than"):
        read({"kind": "boxed", "values": {"yes": 3}, "maximum": 2}, r"\boxed{yes}")


def test_a_label_that_is_worth_no_number_is_no_verdict() -> None:
    with pytest.raises(ParseFailed, match="nan is no number"):
        read({"kind": "boxed", "values": {"yes": float("nan"), "no": 0}}, r"\boxed{yes}")


def test_a_ranking_is_no_number() -> None:
    with pytest.raises(ConfigurationError, match=r"scoring\.parse\.kind"):
        reader_of(Parse(kind="ranking"))


KINDS: list[dict[str, Any]] = [
    {"kind": "boxed", "values": {"A": 1, "B": 0}},
    {"kind": "tag", "tag": "v", "values": {"A": 1, "B": 0}},
    {"kind": "regex", "pattern": "Verdict: (.*)", "values": {"A": 1, "B": 0}},
    {"kind": "json", "field": "v", "values": {"A": 1, "B": 0}},
]


@pytest.mark.parametrize("parse", KINDS, ids=lambda parse: str(parse["kind"]))
@given(st.text())
def test_no_text_makes_a_parser_guess(parse: dict[str, Any], text: str) -> None:
    try:
        label, value = read(parse, text)
    except ParseFailed:
        return
    assert label in text and value == {"A": 1.0, "B": 0.0}[label]
