import pytest
from genrm_scoring.errors import ParseFailed
from genrm_scoring.judges import POINTWISE
from genrm_scoring.templates import defused
from genrm_scoring.types import Answer, Question, Verdict
from hypothesis import given
from hypothesis import strategies as st

judge = POINTWISE["boxed-true-false"]


def verdict(answer: str) -> Verdict:
    return judge.verdict(Answer(answer), Question("question", ("response",)))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r"\boxed{True}", 1.0),
        (r"\boxed{False}", 0.0),
        ("It adds up.\n\nFinal: \\boxed{ True }.", 1.0),
        (r"\boxed{\text{False}}", 0.0),
        (r"first \boxed{True}, on reflection \boxed{False}", 0.0),
        (r"<think>\boxed{False}?</think> \boxed{True}", 1.0),
        (r"opened by the template \boxed{False}</think>\boxed{True}", 1.0),
        (r"<think>a</think>b<think>c</think>\boxed{True}", 1.0),
    ],
)
def test_the_last_box_is_the_verdict(answer: str, value: float) -> None:
    assert verdict(answer).value == value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "True",
        r"\boxed{}",
        r"\boxed{true}",
        r"\boxed{Maybe}",
        r"\boxed{True or False}",
        r"\boxed{True",
        r"\boxed{True} but then \boxed{Fal",
        r"\boxed{\frac{1}{2}}",
        r"<think>it is \boxed{True}</think>",
        r"<think>it is \boxed{True}",
        r"boxed{True}",
    ],
)
def test_anything_else_is_no_verdict(answer: str) -> None:
    with pytest.raises(ParseFailed):
        verdict(answer)


@given(st.text())
def test_no_text_makes_the_parser_guess(text: str) -> None:
    try:
        found = verdict(text)
    except ParseFailed:
        return
    assert found.label in ("True", "False")
    assert f"{found.label}" in text


@given(st.text(), st.sampled_from(["True", "False"]))
def test_a_box_at_the_end_counts_whatever_came_before(text: str, label: str) -> None:
    thought = text.replace("<", "").replace("[", "").replace("◁", "").replace("【", "")
    assert verdict(f"{thought}\n\\boxed{{{label}}}").label == label


@given(st.text(), st.text())
def test_question_comes_first_and_response_last(question: str, response: str) -> None:
    (message,) = judge.messages(Question(question, (response,)))
    other = judge.messages(Question(question, (response + "x",)))[0]
    shared = len("You check solutions.") + len(question)
    assert message["role"] == "user"
    assert message["content"][:shared] == other["content"][:shared]
    assert message["content"].index(defused(question)) < len(message["content"]) - len(response)
