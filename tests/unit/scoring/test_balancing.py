import pytest
from genrm_scoring.balancing import LeastInFlight
from genrm_scoring.endpoints import Endpoint
from genrm_scoring.errors import (
    Aborted,
    AttemptFailed,
    ConnectFailed,
    Disconnected,
    NoEndpoint,
    NotServing,
    ServerFailed,
)
from genrm_scoring.retries import RetryBudget
from hypothesis import given
from hypothesis import strategies as st

A, B, C = (Endpoint(f"http://10.0.0.{i}:8000", f"judge-{i}", f"uid-{i}") for i in range(3))
NOW = 100.0


def test_the_least_busy_endpoint_is_asked() -> None:
    balancer = LeastInFlight()
    balancer.started(A, NOW)
    balancer.started(A, NOW)
    balancer.started(B, NOW)
    assert balancer.pick([A, B], (), b"", NOW) == B


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=60))
def test_load_never_differs_by_more_than_one(affinities: list[bytes]) -> None:
    balancer = LeastInFlight()
    for affinity in affinities:
        balancer.started(balancer.pick([A, B, C], (), affinity, NOW), NOW)
    loads = [balancer.in_flight(e) for e in (A, B, C)]
    assert max(loads) - min(loads) <= 1


def test_questions_with_one_prefix_meet_and_different_ones_spread() -> None:
    first = [LeastInFlight().pick([A, B, C], (), f"question {i}".encode(), NOW) for i in range(60)]
    again = [LeastInFlight().pick([C, B, A], (), f"question {i}".encode(), NOW) for i in range(60)]
    assert first == again
    assert {e: first.count(e) > 10 for e in (A, B, C)} == {A: True, B: True, C: True}


@pytest.mark.parametrize("failure", [ConnectFailed("no"), Disconnected("gone")])
def test_who_was_not_there_is_left_alone_for_a_while(failure: AttemptFailed) -> None:
    balancer = LeastInFlight(eject_seconds=5.0)
    balancer.started(A, NOW)
    balancer.finished(A, failure, NOW)
    assert balancer.pick([A, B], (), b"", NOW + 4.9) == B
    with pytest.raises(NoEndpoint) as alone:
        balancer.pick([A], (), b"", NOW + 4.9)
    assert alone.value.retry_at == NOW + 5.0
    assert balancer.pick([A], (), b"", NOW + 5.0) == A


def test_a_closed_door_is_tried_again_sooner() -> None:
    balancer = LeastInFlight(not_serving_seconds=0.3)
    balancer.started(A, NOW)
    balancer.finished(A, NotServing("asleep"), NOW)
    with pytest.raises(NoEndpoint):
        balancer.pick([A], (), b"", NOW + 0.2)
    assert balancer.pick([A], (), b"", NOW + 0.3) == A


@pytest.mark.parametrize("failure", [ServerFailed("500"), Aborted("abort")])
def test_a_bad_answer_ejects_nobody(failure: AttemptFailed) -> None:
    balancer = LeastInFlight()
    balancer.started(A, NOW)
    balancer.finished(A, failure, NOW)
    assert balancer.pick([A], (), b"", NOW) == A


def test_an_endpoint_that_failed_this_judgement_comes_last() -> None:
    balancer = LeastInFlight()
    for _ in range(5):
        balancer.started(B, NOW)
    assert balancer.pick([A, B], {A}, b"", NOW) == B
    assert balancer.pick([A], {A}, b"", NOW) == A


def test_a_pod_that_took_over_an_address_starts_with_a_clean_slate() -> None:
    balancer = LeastInFlight()
    balancer.started(A, NOW)
    balancer.finished(A, ConnectFailed("no"), NOW)
    assert balancer.pick([Endpoint(A.url, "judge-0", "another uid")], (), b"", NOW)


def test_nobody_there_has_no_retry_time() -> None:
    with pytest.raises(NoEndpoint) as nobody:
        LeastInFlight().pick([], (), b"", NOW)
    assert nobody.value.retry_at is None


@given(st.lists(st.booleans(), max_size=300))
def test_retries_never_outnumber_judgements_by_more_than_the_start(retries: list[bool]) -> None:
    budget = RetryBudget(start=4.0)
    judgements = granted = 0
    for retry in retries:
        if retry:
            granted += budget.spend(0)
        else:
            judgements += 1
            budget.judgement_started()
    assert granted <= judgements + 4


def test_one_judgement_may_not_retry_for_ever() -> None:
    budget = RetryBudget(per_judgement=2)
    assert [budget.spend(already) for already in range(4)] == [True, True, False, False]


def test_the_loss_of_a_pod_with_all_that_was_in_flight_is_within_the_budget() -> None:
    budget = RetryBudget()
    for _ in range(512):
        budget.judgement_started()
    assert all(budget.spend(0) for _ in range(512))
