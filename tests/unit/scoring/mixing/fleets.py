"""Fleets and the scores of their terms, for the tests of mixing."""

from __future__ import annotations

from typing import Any

from genrm_api.rewardfleet import RewardFleetSpec
from genrm_scoring.mixing import Mixture
from genrm_scoring.types import Outcome, Score, ScoreSource
from hypothesis import strategies as st

FAILURES = [o for o in Outcome if o is not Outcome.OK]


def mixture(*terms: dict[str, Any], **spec: Any) -> Mixture:
    return Mixture.of(RewardFleetSpec.model_validate({"terms": list(terms), **spec}))


def rule(name: str = "correct", **more: Any) -> dict[str, Any]:
    return {"name": name, "rule": {"kind": "exact"}, **more}


def model(name: str = "judged", **more: Any) -> dict[str, Any]:
    return {"name": name, "rewardModel": {"name": "judge"}, **more}


def gated(name: str = "judged", by: str = "correct", **more: Any) -> dict[str, Any]:
    return model(name, gate={"term": by, **more})


def own(value: float, source: ScoreSource = ScoreSource.JUDGE) -> Score:
    return Score(value, Outcome.OK, source)


def failed(outcome: Outcome = Outcome.TIMEOUT, detail: str = "late") -> Score:
    return Score(None, outcome, ScoreSource.DROPPED, detail=detail)


def sample(**scores: float | Score) -> dict[str, Score]:
    return {name: score if isinstance(score, Score) else own(score) for name, score in scores.items()}


NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 5e-324])
WEIGHTS = st.sampled_from([1, -1, 0.5, 2, 1e-3, 1e200])
POLICIES = st.sampled_from(
    [{"policy": "drop"}, {"policy": "group_drop"}, {"policy": "group_mean"}, {"policy": "value", "value": -7.25}]
)
TRANSFORMS = st.sampled_from(
    [
        {"kind": "affine", "scale": -3, "offset": 0.5},
        {"kind": "affine", "scale": 1e200},
        {"kind": "clip", "minimum": -1, "maximum": 1},
        {"kind": "sigmoid"},
        {"kind": "piecewise", "points": [{"score": 0.65, "value": 0.1}, {"score": 0.85, "value": 1}]},
    ]
)
NORMALISATIONS = st.sampled_from(
    [{"kind": kind} for kind in ("none", "minmax", "maxabs", "zscore", "rank")]
    + [{"kind": kind, "scope": "running"} for kind in ("minmax", "maxabs", "zscore")]
    + [{"kind": "zscore", "scope": "running", "halfLife": 4, "clip": 2}]
)
ELSE = st.sampled_from([{"policy": "skip"}, {"policy": "value", "value": -0.5}])
EXPRESSIONS = ("a", "a + b", "a / b", "log(a) if b > 0 else exp(c)", "a ** b - c", "min(a, b) and sqrt(c)")


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Any fleet whose terms are called a, b and c; a is a rule, and the others may be gated by it."""
    combine = draw(st.sampled_from(["add", "mul", "min", "max", "geomean", "power", "expression"]))
    terms = []
    for name in "abc"[: draw(st.integers(1, 3)) if combine != "expression" else 3]:
        term = rule(name) if name == "a" else model(name)
        term["weight"] = abs(draw(WEIGHTS)) if combine == "geomean" else draw(WEIGHTS)
        if draw(st.booleans()):
            term["transform"] = draw(st.lists(TRANSFORMS, min_size=1, max_size=2))
        if draw(st.booleans()):
            term["normalise"] = draw(NORMALISATIONS)
        if draw(st.booleans()):
            term["onFailure"] = draw(POLICIES)
        if name != "a" and draw(st.booleans()):
            term["gate"] = {"term": "a", "else": draw(ELSE)}
        if name != "b" and combine in ("add", "mul") and draw(st.booleans()):
            term["combine"] = draw(st.sampled_from(["add", "mul"]))
        if name == "b" and combine != "expression" and draw(st.booleans()):
            term["combine"] = "none"
        terms.append(term)
    spec: dict[str, Any] = {"combine": combine, "onFailure": draw(POLICIES)}
    if combine == "expression":
        spec["expression"] = draw(st.sampled_from(EXPRESSIONS))
        for term in terms:
            if "gate" in term:
                term["gate"]["else"] = {"policy": "value", "value": 0.25}
    if combine == "add" and draw(st.booleans()):
        spec["initial"] = draw(st.sampled_from([0, 2.5]))
    return mixture(*terms, **spec)


SCORES = (
    st.builds(own, NUMBERS)
    | st.builds(failed, st.sampled_from(FAILURES))
    | st.just(Score(9.75, Outcome.TIMEOUT, ScoreSource.POLICY))
)


def groups(of: Mixture) -> st.SearchStrategy[list[dict[str, Score]]]:
    names = [term.name for term in of.terms]
    rules = st.sampled_from([own(1.0, ScoreSource.RULE), own(0.0, ScoreSource.RULE)]) | SCORES
    return st.lists(st.fixed_dictionaries({n: rules if n == "a" else SCORES for n in names}), min_size=1, max_size=6)
