"""What the requests of other frameworks say, and what they are answered."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.comparing import Aggregate
from genrm_gateway import formats
from genrm_gateway.formats import (
    CompareRequest,
    OpenRlhfRequest,
    RewardApiRequest,
    ScoredSample,
    SlimeRequest,
    VerifyRequest,
)
from genrm_scoring.groups import Report
from genrm_scoring.tournaments import Comparison, aggregate
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource, TermScore
from pydantic import BaseModel, ValidationError

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]
TERMS = tuple(
    TermScore(name, value, Outcome.OK, ScoreSource.RULE, raw=value) for name, value in (("a", 1.0), ("b", 0.5))
)
MIXED = Score(1.5, Outcome.OK, ScoreSource.MIX, TERMS)
FAILED = Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED, detail="no answer within 5 s")


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({"solution_str": "2 + 2? 4", "prompt_str": "2 + 2? ", "response_str": "four"}, "four"),
        ({"solution_str": "2 + 2? 4", "prompt_str": "2 + 2? "}, "4"),
        ({"solution_str": "2 + 2? 4"}, "2 + 2? 4"),
        ({"solution_str": "So 2 + 2? 4", "prompt_str": "2 + 2? "}, "So 2 + 2? 4"),
        ({"solution_str": "x", "response_str": ""}, ""),
    ],
)
def test_reward_api_says_the_response_or_the_whole(fields: dict[str, Any], response: str) -> None:
    said = RewardApiRequest.model_validate(
        {**fields, "data_source": "sums", "extra_info": {"split": "test"}, "more": 1}
    )
    sample = formats.of_reward_api(said)
    assert (sample.response, sample.question) == (response, fields.get("prompt_str", ""))
    assert (sample.data_source, sample.extra) == ("sums", {"split": "test"})


@pytest.mark.parametrize(
    ("truth", "reference"),
    [("4", "4"), (4, "4"), (0.5, "0.5"), (None, None), (True, None), ({"a": 1}, None), (["4"], None), ("", "")],
)
def test_a_ground_truth_goes_on_as_it_is_and_is_a_reference_if_it_is_a_text_or_a_number(
    truth: Any, reference: str | None
) -> None:
    of = {"data_source": "d", "extra_info": {}}
    for sample in (
        formats.of_slime(SlimeRequest(prompt="p", response="r", label=truth)),
        formats.of_reward_api(RewardApiRequest(solution_str="r", ground_truth=truth, **of)),
        *formats.of_openrlhf(OpenRlhfRequest(query=["p r"], prompts=["p"], labels=[truth])),
        formats.of_score(ScoredSample(prompt="p", response="r", ground_truth=truth)),
        formats.of_verify(VerifyRequest(responses_create_params={}, response={}, label=truth)),
    ):
        assert (sample.ground_truth, sample.reference) == (truth, reference)


def test_openrlhf_says_prompts_with_their_responses() -> None:
    said = OpenRlhfRequest(query=["p1 r1", "p2 r2"], prompts=["p1", "p2"], labels=["4", 5])
    assert formats.of_openrlhf(said) == [Sample("p1", " r1", reference="4"), Sample("p2", " r2", ground_truth=5)]
    assert [s.reference for s in formats.of_openrlhf(OpenRlhfRequest(query=["p"], prompts=[""]))] == [None]
    with pytest.raises(ValueError, match="query has 1 items, prompts 2"):
        formats.of_openrlhf(OpenRlhfRequest(query=["p"], prompts=["p", "q"]))


def test_a_chat_is_a_text_with_its_roles_and_keeps_them() -> None:
    sample = formats.of_score(ScoredSample(prompt=CHAT, response="r"))
    assert sample.question == "[system]\nBe short.\n\n[user]\n2 + 2?"
    assert sample.messages == (("system", "Be short."), ("user", "2 + 2?"))
    one, text = (formats.of_score(ScoredSample(prompt=prompt, response="r")) for prompt in (CHAT[1:], "2 + 2?"))
    assert one.question == text.question == "2 + 2?" and (one.messages, text.messages) == ((("user", "2 + 2?"),), ())


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]}]
SPOKEN = {"output": [{"type": "message", "content": [{"type": "output_audio", "data": "x"}]}]}


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        (ScoredSample, {"prompt": IMAGE, "response": "r"}, "prompt: a message has a part of type image_url"),
        (ScoredSample, {"prompt": "p", "response": "r", "step_scores": [1]}, "request.step_scores: a response gets"),
        (SlimeRequest, {"prompt": IMAGE, "response": "r"}, "multimodal judges are out of scope"),
        (SlimeRequest, {"prompt": "p", "response": "r", "multimodal_inputs": {"images": ["x"]}}, "multimodal_inputs"),
        (RewardApiRequest, {"solution_str": "r", "images": ["x"]}, "request.images: found images"),
        (RewardApiRequest, {"solution_str": "r", "process_reward": True}, "process reward models"),
        (OpenRlhfRequest, {"query": ["q"], "prompts": [""], "images": ["x"]}, "request.images"),
        (
            VerifyRequest,
            {"responses_create_params": {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
             "response": {"output": "a"}},
            "responses_create_params.input: a message has a part of type input_image",
        ),
        (VerifyRequest, {"responses_create_params": {}, "response": SPOKEN}, "response.output: .* type output_audio"),
        (CompareRequest, {"conversation_history": IMAGE, "response_objs": [{"output": "a"}]}, "conversation_history: "),
        (CompareRequest, {"conversation_history": CHAT, "response_objs": [SPOKEN]}, "response_objs.*type output_audio"),
    ],
)  # fmt: skip
def test_a_request_that_is_about_more_than_text_is_refused(kind: type[BaseModel], body: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        kind.model_validate(body)


def test_a_refusal_is_what_the_policy_said() -> None:
    said = {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I will not."}]}]}
    assert formats.spoken_in(said) == "I will not."


def test_nemo_gym_says_a_responses_object_and_gets_it_back_with_a_reward() -> None:
    output = [
        {"type": "reasoning", "summary": [{"text": "hm"}]},
        {"type": "function_call", "name": "f"},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "It is "}, {"type": "output_text", "text": "4."}],
        },
    ]
    said = VerifyRequest.model_validate(
        {"responses_create_params": {"input": CHAT}, "response": {"output": output}, "expected_answer": "4"}
    )
    sample = formats.of_verify(said)
    assert (sample.response, sample.reference) == ("It is 4.", "4") and sample.question.startswith("[system]")
    right = formats.as_verify(said, MIXED)
    assert (right["reward"], right["reward_components"], right["expected_answer"]) == (1.5, {"a": 1.0, "b": 0.5}, "4")
    wrong = formats.as_verify(said, FAILED)
    assert wrong["_ng_failure_class"] == "judge_failed" and "timeout: no answer" in wrong["_ng_failure_judge_error"]


def test_nemo_gym_compares_all_responses_to_a_prompt() -> None:
    responses = [{"output": "a"}, {"output": "b"}]
    said = CompareRequest(conversation_history=CHAT, response_objs=responses, principle="Be kind.")
    first, second = formats.of_compare(said)
    assert (first.response, second.response) == ("a", "b")
    assert first.reference is None and first.extra == {"principle": "Be kind."}, "what is good is not what is right"
    said = CompareRequest(conversation_history=CHAT, response_objs=responses)
    assert [sample.extra for sample in formats.of_compare(said)] == [{}, {}]
    assert formats.as_compare([MIXED, MIXED])["rewards"] == [1.5, 1.5]


def test_an_anchor_is_none_of_the_responses_that_are_compared() -> None:
    said = (Comparison(0, 1, 0.25), Comparison(2, 0, 1.0), Comparison(1, 2, 1.0))
    report = Report(aggregate(Aggregate.WINRATE, 3, said), 3, 1, {}, comparisons=said)
    (only,) = formats.as_compare([MIXED, MIXED], report)["comparison_results"]
    grades = {"score_1": 2.0, "score_2": 4.0, "ranking": 4.75}
    assert only == {"response_i": 0, "response_j": 1, "judge_idx": 0, **grades}


def test_groups_are_by_name_or_by_prompt() -> None:
    samples = [formats.of_score(ScoredSample(prompt=prompt, response="r")) for prompt in ("p", "q", "p", "p", "p")]
    assert formats.grouped(samples, [None, None, None, "p", "p"]) == [[0, 2], [1], [3, 4]]


def test_answers_hold_numbers_where_their_frameworks_average_them() -> None:
    assert formats.as_reward_api(MIXED) == {"a": 1.0, "b": 0.5, "score": 1.5}
    plain = Score(2.0, Outcome.OK, ScoreSource.JUDGE)
    logs = {"a": [1.0, None], "b": [0.5, None]}
    assert formats.as_openrlhf([MIXED, plain]) == {"rewards": [1.5, 2.0], "scores": [1.5, 2.0], "extra_logs": logs}


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_a_failure_says_whether_asking_again_may_help(outcome: Outcome) -> None:
    again = outcome in (Outcome.TIMEOUT, Outcome.TRANSPORT, Outcome.ASLEEP, Outcome.ABORTED)
    failed = Score(None, outcome, ScoreSource.DROPPED)
    assert formats.status_of([failed]) == (503 if again else 422)
    assert formats.status_of([failed, FAILED]) == 503
