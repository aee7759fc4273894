"""A row of verl's data becomes a sample."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from genrm_scoring.types import Sample
from genrm_verl.samples import group_of, reference_of, sample_of

CHAT = [{"role": "user", "content": "What is 2 + 2?"}]


def test_a_row_of_the_new_trainer_says_everything() -> None:
    fields = {"raw_prompt": CHAT, "uid": "u", "session_id": 3, "global_steps": 7, "reward_model": {"ground_truth": "4"}}
    assert sample_of(fields, "It is 4.") == Sample("What is 2 + 2?", "It is 4.", "u", 3, 7, "4")


def test_a_row_of_the_old_trainer_says_less() -> None:
    assert sample_of({"raw_prompt": CHAT, "uid": "u"}, "r") == Sample("What is 2 + 2?", "r", "u")


def test_a_conversation_is_asked_about_with_its_roles() -> None:
    chat = [*CHAT, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}]
    question = sample_of({"raw_prompt": chat}, "r").question
    assert question == "[user]\nWhat is 2 + 2?\n\n[assistant]\n4\n\n[user]\nSure?"


@pytest.mark.parametrize(
    ("column", "reference"),
    [
        ({"ground_truth": "42", "style": "rule"}, "42"),
        ({"ground_truth": 42}, "42"),
        ({"ground_truth": Fraction(1, 2)}, "1/2"),
        ({"ground_truth": True}, None),
        ({"ground_truth": ["4", "four"]}, None),
        ({"ground_truth": {"chosen": "x"}}, None),
        ({"ground_truth": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_reference_is_a_ground_truth_that_is_a_text_or_a_number(column: Any, reference: str | None) -> None:
    assert reference_of(column) == reference


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
