"""Scores, judgements and errors as values: what cannot be written down, and what survives a journey."""

import inspect
import math
import pickle

import pytest
from genrm_api.rewardmodel import FailurePolicy, OnFailure
from genrm_scoring import errors
from genrm_scoring.scorer import score_of
from genrm_scoring.types import Judgement, Outcome, Score, ScoreSource, TermScore, Verdict
from hypothesis import given
from hypothesis import strategies as st

FAILURES = [o for o in Outcome if o is not Outcome.OK]


@given(st.sampled_from(FAILURES))
def test_a_failed_judgement_never_becomes_a_number_by_itself(outcome: Outcome) -> None:
    score = score_of(Judgement(outcome, 1.0, 1), OnFailure())
    assert (score.value, score.source) == (None, ScoreSource.DROPPED)
    with pytest.raises(ValueError, match="no score is"):
        Score(0.0, outcome, ScoreSource.JUDGE)


@given(st.sampled_from(FAILURES), st.floats(-1, 1))
def test_a_number_by_policy_says_so(outcome: Outcome, value: float) -> None:
    score = score_of(Judgement(outcome, 1.0, 1), OnFailure(policy=FailurePolicy.VALUE, value=value))
    assert score == Score(value, outcome, ScoreSource.POLICY)


def test_a_verdict_is_the_score_under_any_policy() -> None:
    judgement = Judgement(Outcome.OK, 1.0, 1, Verdict("False", 0.0))
    assert score_of(judgement, OnFailure(policy=FailurePolicy.VALUE, value=9.0)).value == 0.0


@given(st.sampled_from(list(Outcome)), st.none() | st.floats(), st.sampled_from(list(ScoreSource)))
def test_number_outcome_and_source_always_agree(outcome: Outcome, value: float | None, source: ScoreSource) -> None:
    try:
        score = Score(value, outcome, source)
    except ValueError:
        with pytest.raises(ValueError, match="no score is"):
            TermScore("judged", value, outcome, source)
        return
    assert (score.value is None) == (source in (ScoreSource.DROPPED, ScoreSource.GROUP_DROPPED))
    assert score.value is None or math.isfinite(score.value)
    assert outcome is Outcome.OK or not source.is_own
    assert outcome is not Outcome.OK or source.is_own or source is ScoreSource.GROUP_DROPPED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_score(value: float) -> None:
    for kind, source in ((Outcome.OK, ScoreSource.JUDGE), (Outcome.TIMEOUT, ScoreSource.POLICY)):
        with pytest.raises(ValueError, match="no score is"):
            Score(value, kind, source)
        with pytest.raises(ValueError, match="no score is"):
            TermScore("judged", value, kind, source)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_verdict_and_the_outcome_ok_go_together(outcome: Outcome) -> None:
    verdict = None if outcome is Outcome.OK else Verdict("True", 1.0)
    with pytest.raises(ValueError, match="verdict"):
        Judgement(outcome, 1.0, 1, verdict)


def test_every_outcome_of_a_failed_attempt_is_a_failure() -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, errors.AttemptFailed)]
    assert len(kinds) > 10
    assert all(kind.outcome is not Outcome.OK for kind in kinds)


@pytest.mark.parametrize(
    "error",
    [
        errors.SampleDropped(Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED, detail="late")),
        errors.AccessDenied(403, "get", "leases", "rl", "no"),
        errors.NoSuchRewardModel("jugde", "rl", ["judge"]),
        errors.ConfigurationError("reward_model.name", "missing"),
        errors.NoEndpoint(3.0),
        errors.FailureRaised("term judged", Outcome.TIMEOUT, "late"),
        errors.BreakerTripped(20, 32, 0.2, ["sample 3 of prompt a: timeout"]),
    ],
)
def test_errors_survive_the_journey_between_processes(error: errors.GenrmError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_wrong_name_is_met_with_the_right_one() -> None:
    assert "did you mean judge?" in str(errors.NoSuchRewardModel("jugde", "rl", ["judge", "critic"]))
    assert "has none" in str(errors.NoSuchRewardModel("judge", "rl", []))
