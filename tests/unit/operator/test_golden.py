"""Golden rows, as numbers: how far apart, how far is allowed, and that a ConfigMap gives back what it was given."""

from __future__ import annotations

import dataclasses
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
    recorded = Golden(
        golden.facts(RM, POD, "rev"), "judge-0", "b1", "2026-11-22T04:00:00Z", (Row(values, spread),), agreed
    )
    assert golden.read(golden.config_map(RM, {"k": recorded})) == {"k": recorded}


def test_a_config_map_that_somebody_changed_is_not_believed() -> None:
    recorded = Golden(golden.facts(RM, POD, "rev"), "judge-0", "b1", "2026-11-22T04:00:00Z", (Row((1.0,), 0.0),))
    changed = golden.config_map(RM, {"k": recorded})
    changed["data"]["k"] = changed["data"]["k"].replace("1.0", "2.0")
    assert golden.read(changed) is None


def test_the_newest_recordings_are_kept() -> None:
    made = {f"k{i}": Golden({}, "judge-0", "b1", f"2026-11-22T04:00:0{i}Z", (Row((1.0,), 0.0),)) for i in range(9)}
    assert set(golden.config_map(RM, made)["data"]) == {"k5", "k6", "k7", "k8"}
