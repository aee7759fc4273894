"""What goes through scoring, as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.types import (
    Answer,
    FailedAttempt,
    Judgement,
    Outcome,
    Question,
    Ranking,
    Sample,
    Score,
    ScoreSource,
    TermScore,
    Verdict,
)
from genrm_scoring.written import Written
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs among them
HELD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
"""As JSON can hold it."""
OBJECTS = st.dictionaries(TEXTS, HELD, max_size=3)
COUNTS = st.none() | st.integers(0, 10**6)
MESSAGES = st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple)
KNOWN = {
    "reference": st.none() | TEXTS, "data_source": TEXTS, "extra": OBJECTS, "ground_truth": HELD, "messages": MESSAGES,
}  # fmt: skip
SAMPLES = st.builds(Sample, TEXTS, TEXTS, TEXTS, st.none() | st.integers(), st.none() | st.integers(), **KNOWN)
QUESTIONS = st.builds(Question, TEXTS, st.lists(TEXTS, max_size=3).map(tuple), **KNOWN)
ENDPOINTS = st.builds(Endpoint, TEXTS, TEXTS, TEXTS)
RANKINGS = st.integers(1, 4).flatmap(lambda n: st.permutations(range(n))).map(lambda p: Ranking(tuple(p)))
VERDICTS = st.builds(Verdict, TEXTS, NUMBERS, st.dictionaries(TEXTS, NUMBERS, max_size=3), st.none() | RANKINGS)
ANSWERS = st.builds(
    Answer,
    TEXTS,
    COUNTS,
    COUNTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.none() | st.lists(OBJECTS, max_size=2).map(tuple),
)
ATTEMPTS = st.builds(FailedAttempt, ENDPOINTS, TEXTS, TEXTS, NUMBERS)
FAILED = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.OK])


@st.composite
def judgements(draw: st.DrawFn, votes: int = 2) -> Judgement:
    verdict = draw(st.none() | VERDICTS)
    return Judgement(
        draw(FAILED) if verdict is None else Outcome.OK,
        draw(NUMBERS),
        draw(st.integers(0, 9)),
        verdict,
        draw(st.none() | ANSWERS),
        draw(st.none() | ENDPOINTS),
        tuple(draw(st.lists(ATTEMPTS, max_size=2))),
        draw(TEXTS),
        tuple(draw(st.lists(judgements(0), max_size=votes))) if votes else (),
    )


@st.composite
def scores(draw: st.DrawFn, *, mixed: bool = True) -> Score | TermScore:
    source = draw(st.sampled_from(ScoreSource))
    drops = source in (ScoreSource.DROPPED, ScoreSource.GROUP_DROPPED)
    outcome = Outcome.OK if source.is_own else draw(FAILED)
    value = None if drops else draw(NUMBERS)
    if not mixed:
        return TermScore(draw(TEXTS), value, outcome, source, draw(st.none() | NUMBERS), draw(TEXTS))
    terms = draw(st.lists(scores(mixed=False), max_size=2))
    return Score(value, outcome, source, tuple(term for term in terms if isinstance(term, TermScore)), draw(TEXTS))


@given(SAMPLES | QUESTIONS | VERDICTS | RANKINGS | ANSWERS | ATTEMPTS | judgements() | scores() | scores(mixed=False))
def test_what_is_written_is_read_back_the_same(value: Written) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.as_json()))) == value


def test_a_document_holds_what_the_value_says_and_defaults_need_not_be_there() -> None:
    answer = Answer("8", 11, 7)
    judgement = Judgement(Outcome.OK, 1.5, 1, Verdict("8", 8.0), answer, Endpoint("http://a:1", "judge-0"))
    document = judgement.as_json()
    assert (document["outcome"], document["verdict"]["value"], document["endpoint"]["pod"]) == ("ok", 8.0, "judge-0")
    assert Judgement.from_json({"outcome": "asleep", "seconds": 2, "attempts": 0}) == Judgement(Outcome.ASLEEP, 2.0, 0)


OK = {"outcome": "ok", "seconds": 1, "attempts": 1, "verdict": {"label": "8", "value": 8}}


@pytest.mark.parametrize(
    ("kind", "document", "sentence"),
    [
        (Judgement, [], "Judgement: found []; write an object"),
        (Judgement, {"outcome": "ok", "seconds": 1}, "Judgement.attempts: missing"),
        (Judgement, OK | {"score": 1}, "Judgement.score: unknown; there are outcome, seconds, attempts"),
        (Judgement, OK | {"outcome": "fine"}, "Judgement.outcome: found 'fine'; write ok, parse_failed, refused"),
        (Judgement, OK | {"outcome": "timeout"}, "Judgement: a judgement has a verdict exactly if it is ok"),
        (Judgement, OK | {"seconds": "1"}, "Judgement.seconds: found '1'; write a number"),
        (Judgement, OK | {"seconds": True}, "Judgement.seconds: found True; write a number"),
        (Judgement, OK | {"attempts": 1.5}, "Judgement.attempts: found 1.5; write a whole number"),
        (Judgement, OK | {"detail": None}, "Judgement.detail: found None; write a text"),
        (Judgement, OK | {"votes": {}}, "Judgement.votes: found {}; write a list"),
        (Judgement, OK | {"votes": [OK, {}]}, "Judgement.votes.1.outcome: missing"),
        (Judgement, OK | {"verdict": {"label": "8", "value": float("inf")}}, "Judgement.verdict: inf is worth nothing"),
        (Verdict, {"label": "8", "value": 8, "facts": {"p": "x"}}, "Verdict.facts.p: found 'x'; write a number"),
        (Ranking, {"best_first": [0, 0]}, "Ranking: (0, 0) is no order"),
        (Sample, {"question": "?", "response": "!", "messages": [["user"]]}, "Sample.messages.0: found 1 values"),
        (Score, {"value": 0.0, "outcome": "timeout", "source": "judge"}, "Score: no score is 0.0 by judge after"),
        (Score, {"value": None, "outcome": "ok", "source": "dropped"}, "Score: no score is None by dropped after"),
    ],
)
def test_what_a_constructor_refuses_a_document_cannot_say_either(
    kind: type[Written], document: Any, sentence: str
) -> None:
    with pytest.raises(ValueError) as refused:
        kind.from_json(document)
    assert str(refused.value).startswith(sentence)
