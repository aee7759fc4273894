"""Which image a model's pods run, by what their nodes say."""

from __future__ import annotations

import pytest
from genrm_operator.images import moved, running
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
