"""Who scores a run that begins in the middle of a rollout: tables, and that nobody of another revision does."""

from __future__ import annotations

import dataclasses
from typing import Final

import pytest
from genrm_operator.observed import Pod
from genrm_operator.one_revision import EVERYBODY, choose, expected
from genrm_operator.surging import NO_ROLLOUT, Rolling, Surge
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.test_lifecycle import make_pod
from tests.unit.operator.test_surging import model

DEPLOYMENT: Final = {"judge": Rolling("new", None, "after")}
SLOTS: Final = {
    "judge-a": Rolling("new", None, "after"),
    "judge-b": Rolling("old", None, "before"),
    "judge-c": Rolling("old", None, "before"),
}


def pod(revision: str, **more: object) -> Pod:
    return make_pod(uid=revision, revision=revision, **more)


def but(pod: Pod, **changes: object) -> Pod:
    return dataclasses.replace(pod, **changes)


OLD, NEW = pod("old", serving=True), pod("new")


@pytest.mark.parametrize("shelf", [DEPLOYMENT, SLOTS], ids=["a Deployment", "slots"])
@pytest.mark.parametrize(
    ("pods", "held"),
    [
        ([OLD, NEW], "new"),
        ([OLD, but(NEW, passed=False)], "new"),
        ([OLD, but(NEW, serving=True)], "old"),
        ([but(OLD, serving=False), but(NEW, passed=False)], "new"),
        ([but(OLD, serving=False), NEW], "old"),
        ([but(OLD, deleting=True), but(NEW, passed=False)], "old"),
        ([but(OLD, serving=False, passed=False), but(NEW, passed=False)], "old"),
    ],
)
def test_a_run_that_comes_in_the_middle_of_a_rollout_is_scored_by_one_revision(
    shelf: dict[str, Rolling], pods: list[Pod], held: str
) -> None:
    choice = choose(pods, shelf, "after", run=True)
    assert {pod.revision for pod in choice.apply(pods) if pod.held} == {held}
    assert choice.goes_on is (held == "old"), "who is kept from serving is replaced, or waits"
    assert choice.finishes == ("after" if held == "old" and shelf is SLOTS else None)
    assert choose(pods, shelf, "after", run=False) == EVERYBODY
    assert EVERYBODY.apply(pods) == pods


@pytest.mark.parametrize(
    ("shelf", "pods", "made_from"),
    [
        ({}, [OLD, NEW], "after"),
        (DEPLOYMENT, [NEW, NEW], "after"),
        (DEPLOYMENT, [], "after"),
        (SLOTS, [], "after"),
        ({"judge-a": Rolling("new", None, "same"), "judge-b": Rolling("old", None, "same")}, [OLD, NEW], "same"),
    ],
    ids=["nobody knows", "none is under way", "no pods", "no pods in slots", "another operator wrote the same spec"],
)
def test_without_a_rollout_everybody_may(shelf: dict[str, Rolling], pods: list[Pod], made_from: str) -> None:
    assert choose(pods, shelf, made_from, run=True) == EVERYBODY


def test_a_second_change_of_the_spec_changes_nobody_that_scores() -> None:
    """It waits for the run, and so does the first, which had begun."""
    choice = choose([OLD, NEW], SLOTS, "later still", run=True)
    assert {pod.revision for pod in choice.apply([OLD, NEW]) if pod.held} == {"new"}
    assert not choice.goes_on and choice.finishes is None
    both = [OLD, but(NEW, serving=True)]
    first = choose(both, SLOTS, "later still", run=True).apply(both)
    still = [but(pod, serving=False) if pod.held else pod for pod in first]
    assert [pod.held for pod in choose(still, SLOTS, "later still", run=True).apply(still)] == [p.held for p in first]


def test_pods_from_before_there_were_revisions_are_of_one_too() -> None:
    pods = [but(OLD, revision=None), but(NEW, passed=False)]
    assert [pod.held for pod in choose(pods, DEPLOYMENT, None, run=True).apply(pods)] == [False, True]


@pytest.mark.parametrize("shelf", [DEPLOYMENT, SLOTS], ids=["a Deployment", "slots"])
@pytest.mark.parametrize("before", ["old", "new", "gone"])
@pytest.mark.parametrize(
    "pods",
    [[but(OLD, serving=False, passed=False), but(NEW, serving=True)], [OLD, but(NEW, passed=False)]],
    ids=["the old one has restarted", "the new one waits"],
)
def test_who_has_scored_a_run_goes_on(shelf: dict[str, Rolling], before: str, pods: list[Pod]) -> None:
    choice = choose(pods, shelf, "after", run=True, before=before)
    without = choose(pods, shelf, "after", run=True)
    scores = {pod.revision for pod in choice.apply(pods) if not pod.held}
    assert scores == {before} if before != "gone" else choice == without


def test_the_slot_whose_old_pod_was_lost_brings_another_one() -> None:
    (new,) = pods = [but(NEW, passed=False)]
    assert [pod.held for pod in choose(pods, SLOTS, "after", run=True, before="old").apply([new])] == [True]
    assert [pod.held for pod in choose(pods, DEPLOYMENT, "after", run=True, before="old").apply([new])] == [False]


@pytest.mark.parametrize(
    ("pods", "in_place", "beside"),
    [
        ([OLD, OLD], 2, 2),
        ([OLD], 2, 2),
        ([], 2, 2),
        ([OLD, but(NEW, held=True)], 1, 1),
        ([OLD, but(NEW, held=True), but(NEW, held=True)], 1, 1),
        ([but(NEW, held=True)], 1, 1),
        ([NEW, but(OLD, held=True)], 1, 2),
        ([but(OLD, held=True), but(OLD, held=True)], 1, 2),
        ([OLD, but(NEW, held=True, deleting=True)], 2, 2),
    ],
)
def test_whose_place_is_taken_by_one_that_may_not_score_is_not_waited_for(
    pods: list[Pod], in_place: int, beside: int
) -> None:
    ordered, surging = model(replicas=2, rollout={"surge": False}), model(replicas=2)
    assert expected(ordered, NO_ROLLOUT, pods) == expected(surging, Surge("new", recreates=True), pods) == in_place
    assert expected(surging, Surge("new"), pods) == beside


PODS = st.builds(
    pod,
    st.sampled_from(["old", "new", "older"]),
    serving=st.booleans(),
    deleting=st.booleans(),
    passed=st.booleans(),
    ready=st.booleans(),
    gated=st.booleans(),
)


@given(
    pods=st.lists(PODS, max_size=6),
    shelf=st.sampled_from([DEPLOYMENT, SLOTS]),
    made_from=st.sampled_from(["after", "before", "third"]),
)
def test_those_who_may_score_are_of_one_revision_and_there_are_some_if_anybody_could(
    pods: list[Pod], shelf: dict[str, Rolling], made_from: str
) -> None:
    choice = choose(pods, shelf, made_from, run=True)
    may = [p for p in choice.apply(pods) if not p.held and not p.deleting]
    assert len({p.revision for p in may}) <= 1
    assert may or not any(p.serving or p.passed for p in pods if not p.deleting)
    again = choose(choice.apply(pods), shelf, made_from, run=True)
    assert again == choice, "nor does the choice change by itself"
