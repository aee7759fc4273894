"""Golden rows, as numbers: how far apart, how far is allowed, and that a ConfigMap gives back what it was given."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_operator import golden
from genrm_operator.golden import Golden, Row
from genrm_operator.observed import Pod
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.test_lifecycle import CLOSED, make_pod

RM = RewardModel.model_validate(
    {"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"model": {"uri": "hf://a/b"}}}
)
AT = "2026-11-22T04:00:00Z"
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.lists(NUMBERS, min_size=1, max_size=8).map(tuple)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((1.0, 2.0), (1.0, 2.0), 0.0),
        ((1.0, 2.0), (2.0, 4.0), 1.5),
        ((1.0,), (1.0, 2.0), math.inf),
        ((), (), math.inf),
        ((math.nan,), (math.nan,), math.inf),
        ((1.0,), (math.inf,), math.inf),
    ],
)
def test_how_far_two_rows_are_apart(one: golden.Values, other: golden.Values, apart: float) -> None:
    assert golden.distance(one, other) == apart


@pytest.mark.parametrize(
    ("row", "kind", "limit"),
    [
        (Row((-3.0, -1.0), 0.0), RewardModelType.GENERATIVE, 0.1),
        (Row((-3.0, -1.0), 0.04), RewardModelType.GENERATIVE, 0.2),
        (Row((0.5,), 0.0), RewardModelType.CLASSIFIER, 0.02),
        (Row((-7.0, 5.0), 0.0), RewardModelType.CLASSIFIER, 0.12),
        (Row((0.5,), 0.01), RewardModelType.CLASSIFIER, 0.05),
    ],
)
def test_how_far_they_may_be(row: Row, kind: RewardModelType, limit: float) -> None:
    assert golden.allowed(row, kind) == pytest.approx(limit)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_a_row_that_is_usable_accepts_its_own_repeats(repeats: list[golden.Values]) -> None:
    row = Row.of(repeats)
    if golden.usable(row):
        assert all(
            golden.distance(row.values, once) <= golden.allowed(row, RewardModelType.GENERATIVE) for once in repeats
        )


def test_an_engine_that_computes_no_numbers_records_nothing() -> None:
    assert not golden.usable(Row.of([(math.nan, 1.0)]))
    assert not golden.usable(Row.of([()]))
    assert not golden.usable(Row.of([(1.0,), (math.inf,)]))


@pytest.mark.parametrize("longest", [None, 8192, 600, 100, 9, 1])
def test_a_text_fits_into_any_model(longest: int | None) -> None:
    for index, whole in enumerate(golden.TEXTS):
        text = golden.text(index, longest)
        assert text and whole.startswith(text) and text.isascii()
        assert longest is None or len(text) <= max(longest - golden.MARGIN_TOKENS, 1)


POD = make_pod(image_id="sha256:a", arguments="args", door=dataclasses.replace(CLOSED, device="H100"))


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(POD, image_id="sha256:b"),
        dataclasses.replace(POD, arguments="others"),
        dataclasses.replace(POD, door=dataclasses.replace(CLOSED, device="A100")),
    ],
)
def test_only_engines_of_one_kind_are_compared(other: Pod) -> None:
    assert golden.key(golden.facts(RM, POD, "rev")) != golden.key(golden.facts(RM, other, "rev"))
    assert golden.key(golden.facts(RM, POD, "rev")) != golden.key(golden.facts(RM, POD, "later"))
    again = dataclasses.replace(POD, uid="another", name="another", restarts=3)
    assert golden.key(golden.facts(RM, POD, "rev")) == golden.key(golden.facts(RM, again, "rev"))


def pod_of(image: str = "sha256:a", **engine: object) -> Pod:
    """As Kubernetes shows it, with the engine's container as given."""
    container = {"name": "engine", "command": ["python3"], "args": ["--dtype", "auto"], "env": [], **engine}
    status = {"containerStatuses": [{"name": "engine", "imageID": image}]}
    meta = {"name": "judge-0", "namespace": "rl", "uid": "u", "labels": {"genrm.dev/reward-model": "judge"}}
    return Pod.from_object({"metadata": meta, "spec": {"containers": [container]}, "status": status})


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (pod_of(), True),
        (
            pod_of(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "3"}, {"name": "GENRM_REVISION", "value": "r"}]),
            True,
        ),
        (pod_of(env=[{"name": "VLLM_ATTENTION_BACKEND", "value": "TRITON_ATTN"}]), False),
        (pod_of(args=["--dtype", "bfloat16"]), False),
        (pod_of(command=["python"]), False),
        (pod_of(image="sha256:b"), False),
    ],
)
def test_what_makes_an_engine_another_one(other: Pod, same: bool) -> None:
    found = [golden.key(golden.facts(RM, pod, "rev")) for pod in (pod_of(), other)]
    assert (found[0] == found[1]) is same


@pytest.mark.parametrize(
    ("values", "written"),
    [((-1.23456789, 0.1), (-1.23457, 0.1)), ((float("inf"),), (float("inf"),)), ((1.0,) * 999, (1.0,) * 512), ((), ())],
)
def test_no_more_is_written_down_than_it_says(values: golden.Values, written: golden.Values) -> None:
    assert golden.rounded(values) == written


@given(VALUES, st.floats(0, 1), st.booleans())
def test_a_config_map_gives_back_what_it_was_given(values: golden.Values, spread: float, agreed: bool) -> None:
    first = Golden(golden.facts(RM, POD, "rev"), "judge-0", "u0", "b1", AT, (Row(values, spread),), agreed)
    by_key = {"k": (first, said("b")), "other": (said("c"),)}
    assert golden.read(golden.config_map(RM, by_key)) == by_key


def test_a_config_map_that_somebody_changed_is_not_believed() -> None:
    changed = golden.config_map(RM, {"k": (said("a"),)})
    changed["data"]["k"] = changed["data"]["k"].replace("-1.0", "-2.0")
    assert golden.read(changed) is None


def test_one_in_the_form_of_another_version_is_not_believed() -> None:
    foreign = golden.config_map(RM, {"k": (said("a"),)})
    foreign["data"]["k"] = json.dumps(json.loads(foreign["data"]["k"])[0])
    foreign["metadata"]["annotations"][golden.ANNOTATION_DIGEST] = golden.digest(foreign["data"])
    assert golden.read(foreign) is None


def test_the_newest_recordings_are_kept() -> None:
    made = {f"k{i}": (dataclasses.replace(said("a"), recorded_at=f"2026-11-22T04:00:0{i}Z"),) for i in range(9)}
    assert set(golden.config_map(RM, made)["data"]) == {"k5", "k6", "k7", "k8"}


# -- a vote
#
# A start is written as the pod that starts, and what it computes: `a1` is pod a, and 1 is one way to compute.


def said(start: str, boot: int = 0) -> Golden:
    pod, way = start[0], float(start[1:] or 1)
    return Golden({}, pod, f"u-{pod}", f"boot-{start}-{boot}", AT, (Row((-way, -1.0), 0.0),))


def after(*starts: str) -> golden.Suspects:
    recordings: golden.Suspects = ()
    for boot, start in enumerate(starts):
        kind = RewardModelType.GENERATIVE
        recordings = golden.vote(recordings, said(start.rstrip("w"), boot), kind, woken=start.endswith("w"))
    return recordings


@pytest.mark.parametrize(
    ("starts", "believed", "agreed", "out"),
    [
        pytest.param(["a1"], "a", False, "", id="the first is believed: a fleet of one serves"),
        pytest.param(["a1", "b1"], "a", True, "", id="two agree"),
        pytest.param(["a1", "b2"], "a", False, "b", id="two differ: the first serves, the second does not"),
        pytest.param(["a1", "b2", "c1"], "a", True, "b", id="the third is for the first"),
        pytest.param(["a1", "b2", "c2"], "b", True, "a", id="the third is for the second, and the first is outvoted"),
        pytest.param(["a1", "b2", "c3"], "a", False, "bc", id="three differ: nothing is decided"),
        pytest.param(["a1", "b2", "c3", "d3"], "c", True, "ab", id="the fourth decides"),
        pytest.param(["a1", "b2", "c3", "d4", "e4"], "d", True, "ac", id="the first and the last others are kept"),
        pytest.param(["a1", "b1", "c2", "d2", "e2"], "a", True, "", id="what two agreed on stays, whoever comes"),
        pytest.param(["a1", "b2", "b2"], "a", False, "b", id="a pod that restarts has one voice"),
        pytest.param(["a1", "a1"], "a", False, "", id="as has the first"),
        pytest.param(["a1", "b2w"], "a", False, "", id="a sleep may break all alike: who wakes contradicts nobody"),
        pytest.param(["a1", "b2w", "c2w"], "a", False, "", id="not even two of them"),
        pytest.param(["a1", "b2", "c2w"], "a", False, "b", id="nor do they decide against the first"),
        pytest.param(["a1", "b1w"], "a", True, "", id="but it can confirm"),
    ],
)
def test_who_is_believed(starts: list[str], believed: str, agreed: bool, out: str) -> None:
    recordings = after(*starts)
    held_to = golden.believed(recordings)
    assert (held_to.pod, held_to.agreed) == (believed, agreed)
    assert {recorded.pod for recorded in recordings} == set(believed + out)
    assert golden.is_disputed(recordings) is (bool(out) and not agreed)
    wrong = {recorded.boot_id for recorded in recordings if recorded.pod in out} if agreed else set()
    assert golden.outvoted(recordings) == wrong


def test_who_was_outvoted_and_is_well_again_is_not_held_to_what_it_said() -> None:
    recordings = after("a1", "b2", "c2")
    well = dataclasses.replace(said("a2"), boot_id=recordings[0].boot_id)
    assert golden.outvoted(golden.vote(recordings, well, RewardModelType.GENERATIVE, woken=True)) == frozenset()


STARTS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("123"), st.sampled_from(["", "w"])), max_size=12)


@given(STARTS)
def test_one_voice_is_never_enough_to_change_what_is_believed(starts: list[tuple[str, str, str]]) -> None:
    """Whatever comes in whatever order: one recording is believed at a time, few are kept, and a change takes two."""
    recordings: golden.Suspects = ()
    for boot, (pod, way, woken) in enumerate(starts):
        before = recordings
        recordings = golden.vote(before, said(pod + way, boot), RewardModelType.GENERATIVE, woken=bool(woken))
        assert 1 <= len(recordings) <= golden.MOST_SUSPECTS
        if not before:
            continue
        was, now = golden.believed(before), golden.believed(recordings)
        if was.rows != now.rows:
            assert now.agreed and not was.agreed and not woken
            assert now.uid != f"u-{pod}" and any(recorded.rows == now.rows for recorded in before)
        assert now.agreed or not was.agreed, "what was agreed on stays so"
