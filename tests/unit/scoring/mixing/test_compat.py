"""compat: verl-with-rms mixes as VeRL-with-RMs does, to 1e-9.

Its way, row by row: the reward is the rule's; where that is exactly 1, the similarity counts with its weight, and each
reward model is added or multiplied in turn with its own; elsewhere they count as 0, in a product too.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from genrm_scoring.mixing import Mixture, mix
from genrm_scoring.types import Outcome
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scoring.mixing.fleets import failed, mixture, model, own, rule, sample


@dataclass(frozen=True)
class Reward:
    """One of its reward models: how it joins, its weight, and its score of each row."""

    join: str
    weight: float
    scores: tuple[float, ...]


def theirs(rules: list[float], bge: Reward | None, models: list[Reward]) -> list[float]:
    final = list(rules)
    passed = [1.0 if value == 1 else 0.0 for value in rules]
    if bge is not None:
        final = [f + bge.weight * s * p for f, s, p in zip(final, bge.scores, passed, strict=True)]
    for one in models:
        masked = [s * p for s, p in zip(one.scores, passed, strict=True)]
        if one.join == "add":
            final = [f + one.weight * s for f, s in zip(final, masked, strict=True)]
        else:
            final = [f * one.weight * s for f, s in zip(final, masked, strict=True)]
    return final


def ours(rules: list[float], bge: Reward | None, models: list[Reward], combine: str) -> list[float | None]:
    terms = [] if bge is None else [model("bge", weight=bge.weight, combine="add")]
    terms += [model(f"rm_{i}", weight=one.weight, combine=one.join) for i, one in enumerate(models)]
    fleet = mixture(rule(), *terms, compat="verl-with-rms", combine=combine)
    group = []
    for row, value in enumerate(rules):
        known = {"correct": own(value)}
        while asked := fleet.open(known):
            for name in asked:
                found = bge if name == "bge" else models[int(name.removeprefix("rm_"))]
                assert found is not None
                known[name] = own(found.scores[row])
        assert (len(known) == 1) == (value != 1 or not terms), "reward models are asked where the rule is exactly 1"
        group.append(known)
    return [score.value for score in mix(fleet, group, {}, learn=True).scores]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[float], Reward | None, list[Reward]]:
    rules = draw(st.lists(st.sampled_from([1.0, 0.0, -1.0, 0.5, 1 - 1e-12, 1 + 1e-7]), min_size=1, max_size=8))
    numbers = st.tuples(*[st.floats(-100, 100)] * len(rules))
    weights = st.floats(-3, 3).filter(bool)
    reward = st.builds(Reward, st.sampled_from(["add", "mul"]), weights, numbers)
    bge = draw(st.none() | st.builds(Reward, st.just("add"), weights, numbers))
    return rules, bge, draw(st.lists(reward, max_size=4))


@given(runs(), st.sampled_from(["add", "mul"]))
def test_it_equals_the_original(run: tuple[list[float], Reward | None, list[Reward]], combine: str) -> None:
    assert ours(*run, combine) == pytest.approx(theirs(*run), rel=1e-9, abs=1e-9)


def test_a_product_is_nothing_where_the_rule_does_not_pass() -> None:
    models = [Reward("add", 0.3, (1.0, 1.0)), Reward("mul", 0.5, (2.0, 2.0))]
    assert ours([1.0, 0.5], None, models, "add") == [(1 + 0.3) * 0.5 * 2, 0.0]
    assert ours([1.0, 0.5], None, models[::-1], "add") == [1 * 0.5 * 2 + 0.3, 0.0]


def fleet_of_two() -> Mixture:
    return mixture(rule(), model(onFailure={"policy": "value", "value": -1}), compat="verl-with-rms")


def test_what_the_original_called_minus_one_is_a_policy_here_and_says_so() -> None:
    right, wrong = mix(
        fleet_of_two(), [sample(correct=1, judged=failed()), sample(correct=0, judged=failed())], {}, learn=True
    ).scores
    assert (right.value, right.outcome) == (0.0, Outcome.TIMEOUT)
    assert (wrong.value, wrong.outcome) == (0.0, Outcome.OK)
