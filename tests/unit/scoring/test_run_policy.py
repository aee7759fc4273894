"""One run's failure policy in place of a resource's."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.judging import OnFailure
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError, FailureRaised
from genrm_scoring.mixing import Mixture, mix
from genrm_scoring.run_policy import in_words, policies_of, policy_of, under, written_out
from genrm_scoring.targets import Means, opened_target
from genrm_scoring.types import Sample, Score, ScoreSource

from tests.unit.scoring.mixing.fleets import failed, gated, model, rule, sample
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, says

KEEPS = {"onFailure": {"policy": "value", "value": 5}}


def fleet(*terms: dict[str, Any], **spec: Any) -> RewardFleet:
    metadata = {"name": "team", "namespace": "rl"}
    return RewardFleet.model_validate({"metadata": metadata, "spec": {"terms": terms, **spec}})


def external(url: str, **scoring: Any) -> RewardModel:
    spec = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s", **scoring}}
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl"}, "spec": spec})


def mixed(resource: RewardFleet, policy: dict[str, Any], *group: dict[str, Score]) -> tuple[Score, ...]:
    changed = under(resource, OnFailure.model_validate(policy))
    assert isinstance(changed, RewardFleet)
    return mix(Mixture.of(changed.spec), group, {}, learn=True).scores


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("drop", "run.on_failure: found 'drop'; write what onFailure is in a resource: {policy: value, value: -1}"),
        ({}, "run.on_failure: found {}; write what onFailure is"),
        ({"value": 0}, "run.on_failure: found {'value': 0}; write what onFailure is"),
        (["drop"], "run.on_failure: found ['drop']; write"),
        ({"policy": "ignore"}, "run.on_failure.policy: found 'ignore'; input should be 'drop', 'group_drop'"),
        (
            {"policy": "value"},
            "run.on_failure.value: missing under policy value; write the score of a failed judgement",
        ),
        (
            {"policy": "drop", "value": 0},
            "run.on_failure.value: found under policy drop, which has no use for it; remove it or write policy: value",
        ),
        ({"policy": "value", "value": "low"}, "run.on_failure.value: found 'low'; "),
        ({"policy": "value", "value": float("nan")}, "run.on_failure.value: found nan; "),
        ({"policy": "drop", "terms": {}}, "run.on_failure.terms: "),
    ],
)
def test_what_is_no_policy_is_refused_by_its_place(written: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy_of(written, "run.on_failure")
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("written", [{"policy": "raise"}, {"policy": "group_mean"}, {"policy": "value", "value": -1.5}])
def test_a_policy_is_written_down_as_it_is_read(written: dict[str, Any]) -> None:
    assert written_out(policy_of(written, "x")) == written


def test_a_run_without_one_is_scored_as_the_resource_says() -> None:
    team = fleet(rule(), model(**KEEPS))
    assert under(team, None) is team


def test_it_takes_the_place_of_every_policy_of_a_fleet_and_of_nothing_else() -> None:
    gate = {"else": {"policy": "value", "value": 0}}
    team = fleet(rule(), gated(**gate) | KEEPS, model("other", weight=2, **KEEPS), onFailure={"policy": "group_drop"})
    changed = under(team, OnFailure.model_validate({"policy": "raise"}))
    assert {name: in_words(policy) for name, policy in policies_of(changed).items()} == {"": "raise"}
    assert {name: in_words(policy) for name, policy in policies_of(team).items()} == {
        "": "group_drop",
        "judged": "value 5",
        "other": "value 5",
    }
    whole = fleet(rule(), gated(**gate), model("other", weight=2), onFailure={"policy": "raise"})
    assert isinstance(changed, RewardFleet) and Mixture.of(changed.spec) == Mixture.of(whole.spec)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"policy": "drop"}, [None, 3, 5, 8]),
        ({"policy": "group_drop"}, [None] * 4),
        ({"policy": "value", "value": -1}, [-1, 3, 5, 8]),
        ({"policy": "group_mean"}, [16 / 3, 3, 5, 8]),
    ],
)
@pytest.mark.parametrize(
    "terms_own", [{}, KEEPS, {"onFailure": {"policy": "group_drop"}}, {"onFailure": {"policy": "raise"}}]
)
def test_in_a_fleet_it_is_about_the_score_whatever_a_term_says_of_its_number(
    policy: dict[str, Any], expected: list[float | None], terms_own: dict[str, Any]
) -> None:
    team = fleet(model("a") | terms_own, model("b"), onFailure={"policy": "value", "value": -100})
    group = [sample(a=failed(), b=1), sample(a=2, b=1), sample(a=4, b=1), sample(a=6, b=2)]
    found = mixed(team, policy, *group)
    assert [score.value for score in found] == pytest.approx(expected)
    assert found[0].failed and found[0].terms[0].value is None, "no number that nobody gave hides it"


def test_raise_stops_at_a_term_whose_own_number_would_have_gone_on() -> None:
    team = fleet(model("a") | KEEPS, model("b"))
    with pytest.raises(FailureRaised, match="ended as timeout under policy raise: a: late"):
        mixed(team, {"policy": "raise"}, sample(a=failed(), b=1))


def test_a_closed_gate_and_a_term_that_is_only_reported_are_no_failures() -> None:
    gate = {"else": {"policy": "value", "value": 0}}
    team = fleet(rule(), gated(**gate), model("seen", combine="none", **KEEPS))
    (score,) = mixed(team, {"policy": "raise"}, sample(correct=0, seen=failed()))
    assert (score.value, score.failed) == (0, False)


def by_length(request: Request) -> str:
    text = request["messages"][0]["content"]
    return "I cannot tell." if "bad" in text[text.rindex("<response>") :] else r"\boxed{True}"


@pytest.mark.parametrize(
    ("policy", "values", "source"),
    [
        (None, [5.0, 1.0, 1.0], ScoreSource.POLICY),
        ({"policy": "value", "value": -1}, [-1.0, 1.0, 1.0], ScoreSource.POLICY),
        ({"policy": "drop"}, [None, 1.0, 1.0], ScoreSource.DROPPED),
        ({"policy": "group_drop"}, [None, None, None], ScoreSource.DROPPED),
        ({"policy": "group_mean"}, [1.0, 1.0, 1.0], ScoreSource.POLICY),
    ],
)
async def test_in_a_model_it_takes_the_place_of_the_models_own(
    policy: dict[str, Any] | None, values: list[float | None], source: ScoreSource
) -> None:
    async with ScriptedJudge(says(by_length)) as judge:
        rm = external(judge.url, **KEEPS)
        changed = under(rm, None if policy is None else OnFailure.model_validate(policy))
        async with opened_target(changed, Means()) as scored_by:
            found = await scored_by.scores([Sample("p", response) for response in ("bad", "good", "fine")])
    assert [score.value for score in found] == values and found[0].source is source
    assert rm.spec.scoring.on_failure.value == 5, "the resource itself is left as it is"
