"""A row of verl's data becomes a sample."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.types import Sample
from genrm_verl.samples import ground_truth_of, group_of, sample_of

CHAT: list[dict[str, Any]] = [{"role": "user", "content": "What is 2 + 2?"}]
ASKED = (("user", "What is 2 + 2?"),)


def test_a_row_of_the_new_trainer_says_everything() -> None:
    fields = {"raw_prompt": CHAT, "uid": "u", "session_id": 3, "global_steps": 7, "reward_model": {"ground_truth": "4"}}
    said = Sample("What is 2 + 2?", "It is 4.", "u", 3, 7, "4", messages=(("user", "What is 2 + 2?"),))
    assert sample_of(fields, "It is 4.") == said


def test_a_row_of_the_old_trainer_says_less() -> None:
    assert sample_of({"raw_prompt": CHAT, "uid": "u"}, "r") == Sample("What is 2 + 2?", "r", "u", messages=ASKED)


def test_a_conversation_is_asked_about_with_its_roles() -> None:
    chat = [*CHAT, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}]
    sample = sample_of({"raw_prompt": np.array(chat, dtype=object)}, "r")
    assert sample.question == "[user]\nWhat is 2 + 2?\n\n[assistant]\n4\n\n[user]\nSure?"
    assert sample.messages == (*ASKED, ("assistant", "4"), ("user", "Sure?"))


def test_parts_of_text_are_one_text() -> None:
    parts = np.array([{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?", "image": None}])
    assert sample_of({"raw_prompt": [{"role": "user", "content": parts}]}, "r").messages == ASKED


IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"raw_prompt": IMAGE}, "data.prompt_key: a message has a part of type image, and text is all that is judged"),
        ({"raw_prompt": [{"role": "user", "content": np.array([{"image": b"x"}])}]}, "a part of type image"),
        ({"raw_prompt": [{"role": "user", "content": [7]}]}, "a part of a content is a int"),
        ({"raw_prompt": [{"role": "user", "content": 7}]}, "a content is a int; write a text"),
        ({"raw_prompt": CHAT, "videos": np.array([b"x"], dtype=object)}, "data.videos: found videos, and text is all"),
        ({"raw_prompt": CHAT, "multi_modal_data": {"images": [b"x"]}}, "data.multi_modal_data: found"),
        ({"raw_prompt": CHAT, "step_labels": [1, 0]}, "data.step_labels: a response gets one score here; scores of"),
        ({"raw_prompt": CHAT, "reward_model": {"step_scores": [1.0]}}, "reward_model.step_scores: .*process reward"),
        ({"raw_prompt": CHAT, "reward_model": {"ground_truth": {"step_rewards": [1]}}}, "ground_truth.step_rewards"),
        ({"raw_prompt": CHAT, "reward_model": {"ground_truth": b"4"}}, "a bytes, which JSON cannot hold; write a text"),
    ],
)
def test_a_row_that_is_more_than_text_is_refused_with_a_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        sample_of(fields, "r")


def test_a_row_without_media_may_have_the_columns_for_them() -> None:
    none = {"images": None, "image": float("nan"), "videos": np.array([]), "multi_modal_data": {"images": []}}
    assert sample_of({"raw_prompt": CHAT, **none}, "r").question == "What is 2 + 2?"


@pytest.mark.parametrize(
    ("column", "truth", "reference"),
    [
        ({"ground_truth": "42", "style": "rule"}, "42", "42"),
        ({"ground_truth": 42}, 42, "42"),
        ({"ground_truth": np.float64(0.5)}, 0.5, "0.5"),
        ({"ground_truth": Fraction(1, 2)}, "1/2", "1/2"),
        ({"ground_truth": Decimal("0.10")}, "0.10", "0.10"),
        ({"ground_truth": np.bool_(True)}, True, None),
        ({"ground_truth": np.array(["4", "four"])}, ["4", "four"], None),
        ({"ground_truth": {"target": 98, "numbers": np.array([44, 19])}}, {"target": 98, "numbers": [44, 19]}, None),
        ({"ground_truth": None}, None, None),
        ({"ground_truth": float("nan")}, None, None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_the_ground_truth_is_what_the_data_set_has_and_the_reference_its_text(
    column: Any, truth: Any, reference: str | None
) -> None:
    sample = sample_of({"raw_prompt": CHAT, "reward_model": column}, "r")
    assert sample.ground_truth == truth == ground_truth_of(column) and type(sample.ground_truth) is type(truth)
    assert sample.reference == reference


def test_columns_of_words_are_told_beside_the_extra_info() -> None:
    columns = {"rm_prompt_0": "Is this right? {response}", "chosen": np.array([{"role": "assistant", "content": "4"}])}
    others = {"index": 3, "uid": "u", "agent_name": "single", "raw_prompt_ids": [1, 2], "tools_kwargs": {"a": "b"}}
    sample = sample_of({"raw_prompt": CHAT, **columns, **others, "hint": "row", "extra_info": {"hint": "extra"}}, "r")
    assert sample.extra == {
        "rm_prompt_0": "Is this right? {response}",
        "chosen": [{"role": "assistant", "content": "4"}],
        "hint": "extra",
    }


def test_what_the_data_set_says_beside_becomes_plain() -> None:
    extra = {"index": np.int64(3), "weights": np.array([1.0, 2.0]), "chosen": "x", "nested": {"a": (1, np.str_("b"))}}
    fields = {"raw_prompt": CHAT, "data_source": np.str_("gsm8k"), "extra_info": extra}
    sample = sample_of(fields, "r")
    assert sample.data_source == "gsm8k"
    assert sample.extra == {"index": 3, "weights": [1.0, 2.0], "chosen": "x", "nested": {"a": [1, "b"]}}
    assert json.loads(json.dumps(sample.extra)) == sample.extra


def test_a_group_goes_by_verls_own_name_for_the_prompt() -> None:
    assert group_of({"raw_prompt": CHAT, "uid": "u", "global_steps": 1}) == "u"
    assert group_of({"raw_prompt": CHAT, "global_steps": 1}) != group_of({"raw_prompt": CHAT, "global_steps": 2})
