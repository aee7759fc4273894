"""A group's scores from its terms: what is computed, what a gate saves, and what a failure becomes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genrm_scoring.errors import FailureRaised
from genrm_scoring.failure import survivors_needed
from genrm_scoring.mixing import Mixture, mix
from genrm_scoring.types import Outcome, Score, ScoreSource
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scoring.mixing.fleets import failed, gated, groups, mixture, mixtures, model, own, rule, sample

A, B = model("a"), model("b")


def scores(of: Mixture, *group: dict[str, Score]) -> tuple[Score, ...]:
    return mix(of, group, {}, learn=True).scores


def values(of: Mixture, *group: dict[str, Score]) -> list[float | None]:
    return [score.value for score in scores(of, *group)]


@pytest.mark.parametrize(
    ("spec", "terms", "expected"),
    [
        ({}, (A, B), 3 + 5),
        ({"initial": 10}, (A, B), 10 + 3 + 5),
        ({}, (A | {"weight": 0.5}, B | {"weight": -2}), 1.5 - 10),
        ({"combine": "mul"}, (A | {"weight": 0.5}, B), 1.5 * 5),
        ({"combine": "mul", "initial": 2}, (A, B), 2 * 3 * 5),
        ({"initial": 1}, (A, B | {"combine": "mul"}), (1 + 3) * 5),
        ({"combine": "mul"}, (A | {"combine": "add"}, B, model("c", combine="add")), 3 * 5 + 7),
        ({}, (A | {"combine": "mul"}, B), 3 + 5),
        ({"combine": "min"}, (A, B | {"weight": 0.5}), 2.5),
        ({"combine": "max"}, (A, B | {"weight": 0.5}), 3),
        ({"combine": "power"}, (A | {"weight": 2}, B | {"weight": -1}), 9 / 5),
        ({"combine": "geomean"}, (A | {"weight": 3}, B), (27 * 5) ** 0.25),
        ({"combine": "expression", "expression": "a * b + 1"}, (A, B), 16),
        ({"combine": "expression", "expression": "clip(b, 0, 4) if a == 3 and not b < 0 else -a"}, (A, B), 4),
        ({}, (A, B | {"combine": "none"}), 3),
        ({}, (A, B | {"transform": [{"kind": "affine", "scale": 2}, {"kind": "clip", "maximum": 9}]}), 3 + 9),
    ],
)
def test_terms_are_combined_as_the_fleet_says(spec: dict[str, Any], terms: tuple[Any, ...], expected: float) -> None:
    (score,) = scores(mixture(*terms, **spec), sample(a=3, b=5, c=7))
    assert score.value == pytest.approx(expected, abs=1e-12)
    assert (score.outcome, score.source) == (Outcome.OK, ScoreSource.MIX)


def test_every_terms_number_is_reported_with_the_score() -> None:
    fleet = mixture(rule(), model(normalise={"kind": "minmax"}, transform=[{"kind": "affine", "scale": 10}]))
    for score, raw, value in zip(
        scores(fleet, sample(correct=1, judged=0.2), sample(correct=0, judged=0.4)), (0.2, 0.4), (-1, 1), strict=True
    ):
        term = score.terms[1]
        assert (term.name, term.raw, term.value) == ("judged", raw, pytest.approx(value))


def test_who_drops_a_sample_still_hears_what_its_terms_were() -> None:
    (dropped, *_) = scores(
        mixture(rule(), model()), sample(correct=1, judged=failed()), *[sample(correct=1, judged=1)] * 3
    )
    assert dropped.value is None and dropped.detail == "judged: late"
    assert [(term.name, term.value, term.outcome) for term in dropped.terms] == [
        ("correct", 1, Outcome.OK),
        ("judged", None, Outcome.TIMEOUT),
    ]


class TestGates:
    def test_what_a_gate_keeps_closed_is_not_asked(self) -> None:
        fleet = mixture(rule(), gated(), model("other"))
        assert fleet.open({}) == ("correct", "other")
        assert fleet.open(sample(correct=0)) == ("other",)
        assert fleet.open(sample(correct=1)) == ("judged", "other")
        assert fleet.open(sample(correct=1, judged=1, other=1)) == ()

    @pytest.mark.parametrize(
        ("gate", "number", "opens"),
        [
            ({}, 1, True),
            ({}, 1 + 1e-7, True),
            ({}, 1 + 1e-5, False),
            ({"tolerance": 0}, 1 - 1e-12, False),
            ({"equals": 0}, 0, True),
            ({"equals": 0.5, "tolerance": 0.1}, 0.6, True),
            ({"atLeast": 0.5}, 0.5, True),
            ({"atLeast": 0.5}, 0.4999999, False),
            ({}, failed(), False),
            ({"equals": 9}, Score(9, Outcome.TIMEOUT, ScoreSource.POLICY), False),
        ],
    )
    def test_a_gate_opens_at_its_number_and_never_on_a_failure(
        self, gate: dict[str, Any], number: float | Score, opens: bool
    ) -> None:
        assert ("judged" in mixture(rule(), gated(**gate)).open(sample(correct=number))) is opens

    def test_a_skipped_term_is_no_zero(self) -> None:
        skipping = mixture(rule(), gated(), combine="mul")
        assert values(skipping, sample(correct=0.25)) == [0.25]
        assert values(mixture(rule(), gated(), combine="min"), sample(correct=0.25)) == [0.25]

    @pytest.mark.parametrize("policy", [{"policy": "value", "value": 9}, {"policy": "group_drop"}, {"policy": "raise"}])
    def test_what_was_not_asked_has_not_failed(self, policy: dict[str, Any]) -> None:
        group = [sample(correct=0), sample(correct=1, judged=3)]
        assert values(mixture(rule(), gated() | {"onFailure": policy}), *group) == [0, 4]

    def test_a_written_number_stands_for_a_skipped_term_and_is_no_failure(self) -> None:
        fleet = mixture(rule(), gated(**{"else": {"policy": "value", "value": -2}}) | {"weight": 0.5})
        (score,) = scores(fleet, sample(correct=0.25))
        assert (score.value, score.outcome, score.source) == (0.25 - 1, Outcome.OK, ScoreSource.MIX)
        assert (score.terms[1].value, score.terms[1].outcome) == (-2, Outcome.SKIPPED)

    def test_a_sample_in_which_no_term_takes_part_has_no_score(self) -> None:
        fleet = mixture(rule(combine="none"), gated(), initial=0)
        (score, *_) = scores(fleet, sample(correct=0), *[sample(correct=1, judged=1)] * 2)
        assert (score.value, score.outcome, score.source) == (None, Outcome.SKIPPED, ScoreSource.DROPPED)
        assert not score.failed

    def test_numbers_of_closed_gates_enter_no_statistics(self) -> None:
        gate = {"term": "correct", "else": {"policy": "value", "value": 100}}
        fleet = mixture(rule(combine="none"), model(gate=gate, normalise={"kind": "minmax"}))
        group = [sample(correct=1, judged=1), sample(correct=1, judged=3), sample(correct=0)]
        assert values(fleet, *group) == [-1, 1, 100]

    def test_a_term_that_should_have_been_asked_is_missed(self) -> None:
        with pytest.raises(ValueError, match="judged was not scored"):
            scores(mixture(rule(), gated()), sample(correct=1))


class TestFailures:
    GROUP = (sample(a=failed(), b=1), sample(a=2, b=1), sample(a=4, b=1), sample(a=6, b=2))

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ({"policy": "drop"}, [None, 3, 5, 8]),
            ({"policy": "group_drop"}, [None] * 4),
            ({"policy": "value", "value": -1}, [-1, 3, 5, 8]),
            ({"policy": "group_mean"}, [16 / 3, 3, 5, 8]),
        ],
    )
    def test_the_fleets_policy_is_about_the_score(self, policy: dict[str, Any], expected: list[float | None]) -> None:
        assert values(mixture(A, B, onFailure=policy), *self.GROUP) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ({"policy": "drop"}, [None, 3, 5, 8]),
            ({"policy": "group_drop"}, [None] * 4),
            ({"policy": "value", "value": -1}, [0, 3, 5, 8]),
            ({"policy": "group_mean"}, [5, 3, 5, 8]),
        ],
    )
    def test_a_terms_policy_is_about_the_term(self, policy: dict[str, Any], expected: list[float | None]) -> None:
        fleet = mixture(A | {"onFailure": policy}, B, onFailure={"policy": "value", "value": -100})
        found = scores(fleet, *self.GROUP)
        assert [score.value for score in found] == pytest.approx(expected)
        assert found[0].outcome is Outcome.TIMEOUT
        assert found[0].source is (ScoreSource.DROPPED if expected[0] is None else ScoreSource.POLICY)

    @pytest.mark.parametrize("where", ["fleet", "term"])
    def test_policy_raise_stops_the_run_and_says_why(self, where: str) -> None:
        raising = {"onFailure": {"policy": "raise"}}
        fleet = mixture(A, B, **raising) if where == "fleet" else mixture(A | raising, B)
        with pytest.raises(FailureRaised, match=r"timeout under policy raise: .*late"):
            scores(fleet, *self.GROUP)

    def test_a_mean_of_no_siblings_is_no_number(self) -> None:
        fleet = mixture(A | {"onFailure": {"policy": "group_mean"}})
        assert values(fleet, sample(a=failed()), sample(a=failed())) == [None, None]

    def test_a_failure_of_a_term_that_is_only_reported_costs_nothing(self) -> None:
        assert values(mixture(A | {"combine": "none"}, B), *self.GROUP) == [1, 1, 1, 2]

    def test_a_failure_of_a_rule_that_gates_is_a_failure(self) -> None:
        fleet = mixture(rule(combine="none"), gated(**{"else": {"policy": "value", "value": 0}}))
        group = [sample(correct=failed(), judged=1), *[sample(correct=1, judged=1)] * 3]
        assert values(fleet, *group) == [None, 1, 1, 1]

    def test_a_number_for_a_rule_that_failed_opens_no_gate_and_hides_no_failure(self) -> None:
        by_policy = rule(combine="none", onFailure={"policy": "value", "value": 1})
        (score,) = scores(mixture(by_policy, gated(), B), sample(correct=failed(), b=3))
        assert (score.value, score.outcome, score.source) == (3, Outcome.TIMEOUT, ScoreSource.POLICY)

    def test_a_number_that_another_policy_wrote_counts_as_the_failure_that_it_is(self) -> None:
        group = [sample(a=Score(0, Outcome.TIMEOUT, ScoreSource.POLICY)), *[sample(a=1)] * 3]
        (score, *_) = scores(mixture(A), *group)
        assert (score.value, score.outcome) == (None, Outcome.TIMEOUT)

    @pytest.mark.parametrize(
        "not_asked",
        [failed(Outcome.SKIPPED, "there is no reference"), Score(None, Outcome.OK, ScoreSource.GROUP_DROPPED)],
    )
    def test_what_no_gate_kept_from_being_asked_is_a_failure(self, not_asked: Score) -> None:
        (score, *_) = scores(mixture(A), sample(a=not_asked), *[sample(a=1)] * 3)
        assert (score.value, score.outcome, score.failed) == (None, Outcome.REFUSED, True)

    @pytest.mark.parametrize(
        ("fleet", "group"),
        [
            (mixture(A, B, combine="geomean"), sample(a=-1, b=1)),
            (mixture(A, B | {"weight": -1}, combine="power"), sample(a=1, b=0)),
            (mixture(A, B, combine="expression", expression="a / b"), sample(a=1, b=0)),
            (mixture(A, B, combine="expression", expression="a ** b"), sample(a=-1, b=0.5)),
            (mixture(A, B, combine="mul"), sample(a=1e200, b=1e200)),
            (mixture(A, B | {"transform": [{"kind": "affine", "scale": 1e200}]}), sample(a=1, b=1e200)),
        ],
    )
    def test_numbers_that_make_none_are_a_failure_with_a_sentence(
        self, fleet: Mixture, group: dict[str, Score]
    ) -> None:
        (score,) = scores(fleet, group)
        assert (score.value, score.outcome) == (None, Outcome.PARSE_FAILED)
        assert len(score.detail) > 10

    def test_scores_that_lie_too_far_apart_for_a_deviation_are_a_failure(self) -> None:
        fleet = mixture(A | {"normalise": {"kind": "zscore"}})
        found = scores(fleet, sample(a=1e200), sample(a=-1e200))
        assert [(s.value, s.outcome) for s in found] == [(None, Outcome.PARSE_FAILED)] * 2
        assert "too far away" in found[0].detail

    @pytest.mark.parametrize(
        ("n", "lost", "left"),
        [(1, 0, 1), (1, 1, 0), (2, 1, 0), (3, 1, 2), (3, 2, 0), (4, 2, 2), (4, 3, 0), (5, 2, 3), (5, 3, 0), (8, 4, 4)],
    )
    def test_a_group_that_lost_too_many_is_dropped_whole(self, n: int, lost: int, left: int) -> None:
        found = scores(mixture(A), *[sample(a=failed())] * lost, *[sample(a=1)] * (n - lost))
        assert sum(score.value is not None for score in found) == left
        if 0 < lost < n and not left:
            assert found[-1].source is ScoreSource.GROUP_DROPPED and found[-1].outcome is Outcome.OK


@given(st.data())
def test_no_number_leaves_that_nobody_gave_or_wrote(data: st.DataObject) -> None:
    fleet = data.draw(mixtures())
    group = data.draw(groups(fleet))
    found = mix(fleet, group, {}, learn=True).scores
    assert len(found) == len(group)
    for score, known in zip(found, group, strict=True):
        assert score.value is None or math.isfinite(score.value)
        assert [term.name for term in score.terms] == [term.name for term in fleet.terms]
        parts = [t for plan, t in zip(fleet.terms, score.terms, strict=True) if fleet.takes_part(plan)]
        if score.source is ScoreSource.MIX:
            assert any(term.value is not None for term in parts)
            for plan, term in zip(fleet.terms, score.terms, strict=True):
                if fleet.takes_part(plan) and known[term.name].outcome is not Outcome.OK:
                    assert term.outcome is Outcome.SKIPPED and plan.gate is not None, "a failure is never mixed in"
        if score.source is ScoreSource.POLICY:
            assert score.outcome is not Outcome.OK and score.detail
        if score.value is None:
            assert score.detail
        for term in score.terms:
            assert term.value is None or math.isfinite(term.value)
            if term.source is ScoreSource.POLICY:
                assert term.outcome is not Outcome.OK
    left = sum(score.value is not None for score in found)
    assert left in (0, len(group)) or left >= survivors_needed(len(group))


@given(st.data())
def test_relabelling_the_responses_of_a_group_permutes_their_scores(data: st.DataObject) -> None:
    fleet = data.draw(mixtures())
    group = data.draw(groups(fleet))
    order = data.draw(st.permutations(range(len(group))))
    there = mix(fleet, group, {}, learn=True)
    again = mix(fleet, [group[place] for place in order], {}, learn=True)
    for score, place in zip(again.scores, order, strict=True):
        before = there.scores[place]
        assert (score.value, score.source, score.outcome) == (before.value, before.source, before.outcome)


def test_the_same_group_is_worth_the_same_wherever_in_a_step_it_comes() -> None:
    fleet = mixture(A | {"normalise": {"kind": "zscore", "scope": "running"}})
    one, other = [sample(a=1), sample(a=2)], [sample(a=30), sample(a=50)]
    known = fleet.step_ended(mix(fleet, [sample(a=x) for x in (1, 4, 9)], {}, learn=True).running)
    first = mix(fleet, one, known, learn=True)
    then = mix(fleet, other, first.running, learn=True)
    later = mix(fleet, one, then.running, learn=True)
    assert [s.value for s in first.scores] == [s.value for s in later.scores]
    after = mix(fleet, one, fleet.step_ended(later.running), learn=True)
    assert [s.value for s in after.scores] != [s.value for s in first.scores]


def test_validation_moves_no_statistics() -> None:
    fleet = mixture(A | {"normalise": {"kind": "zscore", "scope": "running"}})
    known = mix(fleet, [sample(a=x) for x in (1, 4, 9)], {}, learn=True).running
    assert mix(fleet, [sample(a=100), sample(a=200)], known, learn=False).running == known
    assert mix(fleet, [sample(a=0.3)], {}, learn=False).scores[0].value == 0.3


def test_a_number_beside_a_verdict_is_worth_what_the_fleet_says() -> None:
    assert values(mixture(A), {"a": own(0.0)}) == [0.0]
