import json
import re
from typing import Any

import pytest
from genrm_api.rewardmodel import EngineName, Sampling, Structured
from genrm_scoring import chat, errors
from genrm_scoring.transport import Reply
from hypothesis import given
from hypothesis import strategies as st

MESSAGES = [{"role": "user", "content": "is it?"}]


def reply(status: int = 200, body: object = None, **headers: str) -> Reply:
    return Reply(status, headers, body.encode() if isinstance(body, str) else json.dumps(body).encode())


def completion(content: object, reason: str = "stop") -> dict[str, object]:
    return {"choices": [{"message": {"content": content}, "finish_reason": reason}], "usage": {"prompt_tokens": 3}}


def test_only_what_the_spec_says_is_in_the_request() -> None:
    plain = chat.request_body("judge", MESSAGES, Sampling(seeded=False))
    assert plain == {"model": "judge", "messages": MESSAGES}


def test_sampling_reaches_the_engine_under_its_own_names() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.9,
        max_tokens=32,
        seed=1,
        structured=Structured(choice=[r"\boxed{True}", "b"]),
        chat_template_kwargs={"enable_thinking": False},
    )
    body = chat.request_body("judge", MESSAGES, sampling)
    assert body["temperature"] == 0.0
    assert (body["top_p"], body["max_tokens"]) == (0.9, 32)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["structured_outputs"] == {"choice": [r"\boxed{True}", "b"]}
    assert 0 <= body["seed"] < 2**31


STRUCTURED = Sampling(structured=Structured(choice=[r"\boxed{True}", "a.b|c", "d (e)/[f]^$+?*", "g-h #&~"]))


def test_sglang_is_given_a_choice_as_a_regular_expression_of_the_whole_answer() -> None:
    body = chat.request_body("judge", MESSAGES, STRUCTURED, EngineName.SGLANG)
    assert body["regex"] == r"(\\boxed\{True\}|a\.b\|c|d \(e\)\/\[f\]\^\$\+\?\*|g-h #&~)"
    assert "structured_outputs" not in body
    assert "regex" not in chat.request_body("judge", MESSAGES, Sampling(), EngineName.SGLANG)


SCHEMA = {"type": "object", "properties": {"a": {"enum": [0, 1]}}, "required": ["a"], "additionalProperties": False}
OBJECT = Sampling(structured=Structured(json_object=True))


def test_each_engine_is_held_to_the_json_of_the_judge_in_its_own_words() -> None:
    body = chat.request_body("judge", MESSAGES, OBJECT, schema=SCHEMA)
    assert body["structured_outputs"] == {"json": SCHEMA}
    body = chat.request_body("judge", MESSAGES, OBJECT, EngineName.SGLANG, schema=SCHEMA)
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}
    assert "structured_outputs" not in body
    assert "structured_outputs" not in chat.request_body("judge", MESSAGES, Sampling(), schema=SCHEMA)
    with pytest.raises(errors.ConfigurationError):
        chat.request_body("judge", MESSAGES, OBJECT)


def test_an_engine_of_ones_own_is_asked_as_vllm_is() -> None:
    bodies = [
        chat.request_body("judge", MESSAGES, STRUCTURED, engine) for engine in (EngineName.CUSTOM, EngineName.VLLM)
    ]
    assert bodies[0] == bodies[1] and "structured_outputs" in bodies[0]


@given(st.lists(st.text(min_size=1), min_size=2, max_size=8, unique=True), st.text())
def test_the_expression_fits_each_choice_and_nothing_else(choice: list[str], other: str) -> None:
    expression = chat.constrained_to(Structured(choice=choice), EngineName.SGLANG)["regex"]
    assert all(re.fullmatch(expression, text) for text in choice)
    assert bool(re.fullmatch(expression, other)) is (other in choice)


@given(st.integers(0, 2**31 - 1), st.text(), st.text())
def test_a_seed_follows_from_base_and_content_alone(base: int, one: str, other: str) -> None:
    def seed(text: str) -> int:
        return chat.judgement_seed(base, [{"role": "user", "content": text}])

    assert seed(one) == seed(one)
    assert 0 <= seed(one) < 2**31
    if one != other:
        assert seed(one) != seed(other)


def test_every_vote_has_a_seed_of_its_own_and_keeps_it() -> None:
    seeds = [chat.judgement_seed(1, MESSAGES, vote) for vote in range(16)]
    assert len(set(seeds)) == 16
    assert seeds == [chat.judgement_seed(1, MESSAGES, vote) for vote in range(16)]
    assert seeds[0] == chat.judgement_seed(1, MESSAGES)
    assert chat.request_body("judge", MESSAGES, Sampling(seed=1), vote=3)["seed"] == seeds[3]


def test_probabilities_are_asked_for_where_they_are_read() -> None:
    body = chat.request_body("judge", MESSAGES, Sampling(), logprobs=True)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    tokens = [{"token": "A", "logprob": -0.1, "top_logprobs": []}]
    answered = completion("A", "length")
    answered["choices"][0]["logprobs"] = {"content": tokens}  # type: ignore[index]
    assert chat.read_answer(reply(body=answered), logprobs=True).logprobs == tuple(tokens)
    with pytest.raises(errors.Truncated):
        chat.read_answer(reply(body=answered))
    with pytest.raises(errors.Truncated):
        chat.read_answer(reply(body=completion("A", "length")), logprobs=True)


def test_another_base_seed_gives_other_seeds() -> None:
    assert len({chat.judgement_seed(base, MESSAGES) for base in (None, 0, 1, 2)}) == 4


def test_a_judgement_has_a_seed_unless_that_is_switched_off() -> None:
    def seed(vote: int, **sampling: Any) -> Any:
        return chat.request_body("judge", MESSAGES, Sampling(**sampling), vote=vote).get("seed")

    assert seed(0) == seed(0) == chat.judgement_seed(None, MESSAGES)
    assert len({seed(0), seed(1), seed(0, seed=1), seed(1, seed=1)}) == 4
    assert seed(0, seeded=False) is None


def test_an_answer_carries_what_the_door_stamped_on_it() -> None:
    answer = chat.read_answer(reply(body=completion("yes"), **{"genrm-revision": "r1", "genrm-boot-id": "b1"}))
    assert (answer.text, answer.prompt_tokens, answer.revision, answer.boot_id) == ("yes", 3, "r1", "b1")


@pytest.mark.parametrize(
    ("got", "error"),
    [
        (reply(body=completion("x", "length")), errors.Truncated),
        (reply(body=completion("x", "abort")), errors.Aborted),
        (reply(body=completion("x", "content_filter")), errors.RequestRefused),
        (reply(body=completion("x", "tool_calls")), errors.RequestRefused),
        (reply(body="<html>"), errors.ServerFailed),
        (reply(body={"choices": []}), errors.ServerFailed),
        (reply(body=[]), errors.ServerFailed),
        (reply(body="[" * 100_000), errors.ServerFailed),
        (reply(body=completion(["x"])), errors.ServerFailed),
        (reply(500, "boom"), errors.ServerFailed),
        (reply(429, "slow down"), errors.ServerFailed),
        (reply(503, "asleep"), errors.NotServing),
        (reply(404, "no such model"), errors.RequestRefused),
        (reply(401, "who?"), errors.RequestRefused),
        (reply(400, "This model's maximum context length is 4096 tokens"), errors.PromptTooLong),
        (reply(400, "temperature must be positive"), errors.RequestRefused),
    ],
)
def test_every_other_reply_is_the_error_it_means(got: Reply, error: type[errors.AttemptFailed]) -> None:
    with pytest.raises(errors.AttemptFailed) as caught:
        chat.read_answer(got)
    assert type(caught.value) is error


def test_an_answer_without_text_is_left_to_the_judge() -> None:
    assert chat.read_answer(reply(body=completion(None))).text == ""


@given(st.binary(), st.integers(200, 599))
def test_no_bytes_break_the_reader(body: bytes, status: int) -> None:
    try:
        chat.read_answer(Reply(status, {}, body))
    except errors.AttemptFailed:
        return
