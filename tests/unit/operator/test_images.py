"""Which image a model's pods run, by what their nodes say."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator.images import judge, moved, pinned, running
from genrm_operator.observed import Pod

from tests.unit.operator.test_lifecycle import make_pod

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def pods(*found: tuple[str, str | None]) -> list[Pod]:
    return [make_pod(name=f"judge-{n}", image=image, image_id=by) for n, (image, by) in enumerate(found)]


@pytest.mark.parametrize(
    ("found", "one", "sentence"),
    [
        ([], None, None),
        ([("vllm:1", None)], None, None),
        ([("vllm:1", f"hub/vllm@{A}"), ("vllm:1", f"hub/vllm@{A}")], f"hub/vllm@{A}", None),
        ([("vllm:1", f"hub/vllm@{A}"), ("vllm:1", f"mirror/vllm@{A}")], None, None),
        ([("vllm:1", f"hub/vllm@{A}"), ("vllm:1", None)], None, None),
        ([("vllm:1", f"hub/vllm@{A}"), ("vllm:2", f"hub/vllm@{B}")], None, None),
        ([("vllm:1", A), ("vllm:1", B), ("vllm:1", A)], None, f"({A}: judge-0, judge-2; {B}: judge-1)"),
    ],
    ids=["no pods", "not known yet", "one", "from a mirror", "one is not known yet", "a rollout", "the tag moved"],
)
def test_a_tag_that_moved_is_told(found: list[tuple[str, str | None]], one: str | None, sentence: str | None) -> None:
    assert running(pods(*found)) == one
    said = moved(pods(*found))
    assert said is sentence or (said is not None and sentence is not None and sentence in said)


def model(pin: str | None = None, **spec: Any) -> RewardModel:
    status = None if pin is None else {"pinned": {"image": pin}}
    return RewardModel.model_validate(
        {
            "metadata": {"name": "judge", "namespace": "rl", "uid": "u"},
            "spec": {"model": {"uri": "hf://a/b"}, **spec},
            "status": status,
        }
    )


NOT_PINNED = {"rollout": {"pinDuringLease": False}}
OLD, NEW = f"hub/vllm@{A}", f"hub/vllm@{B}"


@pytest.mark.parametrize(
    ("rm", "found", "run", "pin"),
    [
        (model(), [("vllm:1", OLD)], False, None),
        (model(**NOT_PINNED), [("vllm:1", OLD)], True, None),
        (model(), [("vllm:1", OLD), ("vllm:1", f"mirror/vllm@{A}")], True, f"vllm:1@{A}"),
        (model(), [("vllm:1", OLD), ("vllm:1", None)], True, f"vllm:1@{A}"),
        (model(), [("vllm:1", OLD), ("vllm:1", NEW)], True, None),
        (model(), [("vllm:1", A)], True, None),
        (model(), [(f"vllm@{A}", A)], True, f"vllm@{A}"),
        (model(f"vllm:1@{A}"), [("vllm:1", NEW)], True, f"vllm:1@{A}"),
        (model(f"vllm:1@{A}"), [], True, f"vllm:1@{A}"),
        (model(f"vllm:1@{A}"), [("vllm:1", NEW)], False, None),
        (model(f"vllm:1@{A}"), [("vllm:2", NEW)], True, f"vllm:2@{B}"),
    ],
    ids=[
        "no run", "not wanted", "one, by two mirrors", "one is not known yet", "two from the beginning", "imported",
        "the spec has a digest", "all are newer", "a night without pods", "the run is over", "another name",
    ],
)  # fmt: skip
def test_a_run_is_scored_by_the_image_that_scored_it_first(
    rm: RewardModel, found: list[tuple[str, str | None]], run: bool, pin: str | None
) -> None:
    assert pinned(rm, pods(*found), run=run) == pin


def test_who_never_served_pins_nothing() -> None:
    new = make_pod(image="vllm:1", image_id=NEW, verified_boot_id=None)
    assert pinned(model(), [new], run=True) is None
    assert pinned(model(), [new, *pods(("vllm:1", OLD))], run=True) == f"vllm:1@{A}"


@pytest.mark.parametrize(
    ("image", "by", "out"),
    [
        ("vllm:1", OLD, False),
        ("vllm:1", f"mirror/vllm@{A}", False),
        ("vllm:1", NEW, True),
        ("vllm:1", None, False),
        ("vllm:1", B, False),
        ("vllm:2", NEW, False),
        (f"vllm@{B}", NEW, False),
    ],
    ids=["the same", "by a mirror", "the tag moved", "not known yet", "imported", "a rollout", "as written"],
)
def test_a_pod_of_another_image_scores_no_run(image: str, by: str | None, out: bool) -> None:
    (pod,) = judge(pods((image, by)), f"vllm:1@{A}")
    assert pod.astray is out
    if out:
        assert pod.trouble is not None and pod.trouble.reason == "ImageMoved"
        assert f"write vllm:1@{A} in spec.engine.image" in pod.trouble.message
    assert not judge(pods((image, by)), None)[0].astray
