"""What a pair comes to, as numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator import pairs
from genrm_operator.engines import adapter_for


@pytest.mark.parametrize(
    ("values", "score"),
    [((0.5,), 0.5), ((-3.0,), -3.0), ((0.1, 0.9), None), ((0.0,) * 896, None)],
)
def test_a_score_is_one_number(values: tuple[float, ...], score: float | None) -> None:
    assert pairs.score(values) == score


def test_who_says_nothing_has_no_score_that_is_above_another() -> None:
    nothing = pairs.score(())
    assert nothing is not None and math.isnan(nothing)


@pytest.mark.parametrize(
    ("prompt", "whole", "values", "mean"),
    [
        pytest.param((1, 2, 3), (1, 2, 3, 4, 5), (-9.0, -9.0, -1.0, -3.0), -2.0, id="what follows the prompt"),
        pytest.param((1, 2, 3), (1, 2, 7, 8), (-9.0, -1.0, -5.0), -3.0, id="from where they part"),
        pytest.param((1, 2, 3, 4), (1, 2, 3), (-9.0, -9.0), None, id="the template shows no response"),
        pytest.param((1,), (1, 2), (-4.0,), -4.0, id="one token after one"),
        pytest.param((7,), (1, 2), (-4.0,), -4.0, id="of the first token nothing is known"),
        pytest.param((), (1, 2), (-4.0,), -4.0, id="a prompt that is nothing"),
    ],
)
def test_how_likely_a_response_is(
    prompt: tuple[int, ...], whole: tuple[int, ...], values: tuple[float, ...], mean: float | None
) -> None:
    assert pairs.likelihood(prompt, whole, values) == mean


@pytest.mark.parametrize("values", [(), (-1.0,), (-1.0,) * 9])
def test_values_of_something_else_are_no_likelihood(values: tuple[float, ...]) -> None:
    found = pairs.likelihood((1,), (1, 2, 3), values)
    assert found is not None and math.isnan(found)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_conversation_is_rendered_as_for_a_judgement(engine: str) -> None:
    spec: dict[str, Any] = {"model": {"uri": "hf://a/b"}, "engine": {"name": engine}}
    spec["scoring"] = {"sampling": {"chatTemplateKwargs": {"enable_thinking": False}}}
    rm = RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl"}, "spec": spec})
    call = adapter_for(rm.spec.engine.name).rendering(rm, pairs.answered("2+2?", "4"), opens=False)
    assert call is not None and call.body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
        "add_generation_prompt": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }
