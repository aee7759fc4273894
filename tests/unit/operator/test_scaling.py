"""A sleeping model keeps its warm pods."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator.demand import Desired
from genrm_operator.scaling import as_it_counts, asked


def model(replicas: int, **spec: Any) -> RewardModel:
    whole = {"model": {"uri": "hf://a/b"}, "replicas": replicas} | spec
    return RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": whole})


@pytest.mark.parametrize(
    ("spec", "before", "desired", "counts"),
    [
        (2, {"judge": 4}, Desired.ASLEEP, 4),
        (2, {"judge": 4}, Desired.AWAKE, 2),
        (2, {"judge": 4}, Desired.OFF, 2),
        (6, {"judge": 4}, Desired.ASLEEP, 6),
        (2, {}, Desired.ASLEEP, 2),
        (0, {"judge": 4}, Desired.ASLEEP, 0),
    ],
)
def test_fewer_count_from_the_next_wake_more_and_none_at_once(
    spec: int, before: dict[str, int], desired: Desired, counts: int
) -> None:
    rm = model(spec)
    found = as_it_counts(rm, before, desired)
    assert found.spec.replicas == counts and (found is rm) == (counts == spec)
    assert rm.spec.replicas == spec, "the spec stays what it is"


def test_each_slot_is_a_replica_by_name() -> None:
    rm = model(1, gpu={"sharing": "SharedClaim", "slots": [{"name": "a"}]})
    assert as_it_counts(rm, {"judge": 4}, Desired.ASLEEP) is rm


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("4", 4), ("0", 0), (None, None), ("", None), ("-1", None), ("٣", None),
        pytest.param("9" * 5000, None, id="longer than Python reads"),
    ],
)  # fmt: skip
def test_what_is_written_is_read(word: str | None, number: int | None) -> None:
    annotations = {} if word is None else {"genrm.dev/replicas": word}
    assert asked({"metadata": {"annotations": annotations}}) == number
