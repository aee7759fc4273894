"""A run whose spec asks for more than this library does is stopped with a sentence; none is scored otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring
from genrm_scoring.support import unsupported, unsupported_scoring

PARSE = {"kind": "number"}


def model(spec: dict[str, Any]) -> RewardModel:
    whole = {"model": {"uri": "hf://org/judge"}, **spec}
    spec = {key: value for key, value in whole.items() if value is not None}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl"}, "spec": spec})


@pytest.mark.parametrize(
    ("scoring", "field", "says"),
    [
        ({"mode": "pairwise"}, "scoring.mode", "pairwise is not carried out"),
        ({"mode": "listwise"}, "scoring.mode", "write pointwise"),
        ({"normalise": "zscore"}, "scoring.normalise", "write none"),
        ({"onFailure": {"policy": "group_mean"}}, "scoring.onFailure.policy", "group_mean is not carried out"),
        ({"onFailure": {"policy": "raise"}}, "scoring.onFailure.policy", "write drop or value"),
    ],
)
def test_what_is_not_done_yet_is_refused(scoring: dict[str, Any], field: str, says: str) -> None:
    found = unsupported_scoring(Scoring.model_validate(scoring))
    assert found is not None and found[0] == field and says in found[1]
    assert unsupported(model({"scoring": scoring})) == found


@pytest.mark.parametrize(
    ("scoring", "field", "says"),
    [
        ({"template": "{{ respnse }}", "parse": PARSE}, "scoring.template", "did you mean response?"),
        ({"template": "{{ question }}", "parse": PARSE}, "scoring.template", "never writes response"),
        (
            {"template": "{{ response }}", "parse": {"kind": "regex", "pattern": "(?=x)"}},
            "scoring.parse.pattern",
            "write it without",
        ),
    ],
)
def test_so_is_what_cannot_work(scoring: dict[str, Any], field: str, says: str) -> None:
    found = unsupported(model({"scoring": scoring}))
    assert found is not None and found[0] == field and says in found[1]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"type": "Classifier"}, "type"),
        ({"type": "External", "model": None, "external": {"url": "https://api.example.com/v1"}}, "type"),
    ],
)
def test_so_is_a_model_that_is_asked_in_another_way(spec: dict[str, Any], field: str) -> None:
    found = unsupported(model(spec))
    assert found is not None and found[0] == field and "not carried out" in found[1]


@pytest.mark.parametrize(
    "scoring",
    [
        {},
        {"mode": "pointwise", "judge": "boxed-true-false", "votes": {"count": 1}, "normalise": "none"},
        {"sampling": {"temperature": 0, "chatTemplateKwargs": {"enable_thinking": False}}, "timeout": "60s"},
        {"sampling": {"structured": {"choice": ["a", "b"]}}},
        {"onFailure": {"policy": "value", "value": 0}},
        {"judge": "five-criteria"},
        {"template": "{{ question }} {{ response }}", "parse": PARSE, "votes": {"count": 3}},
        {"calibrate": {"kind": "sigmoid", "scale": 2}},
    ],
)
def test_what_is_done_passes(scoring: dict[str, Any]) -> None:
    assert unsupported(model({"scoring": scoring})) is None
    assert unsupported(model({"scoring": scoring, "engine": {"name": "sglang"}})) is None
