"""The request formats of training frameworks: what a request says, as samples, and scores as its answer. Pure.

    reward_api     POST /get_reward2, /get_reward   one sample, {"score": …}
    OpenRLHF       POST /get_reward                 lists, {"rewards": [...], "scores": [...]}
    slime          POST /slime                      one sample, a bare number
    NeMo-Gym       POST /verify, /compare           one response, or all of a prompt
    ours           POST /v1/score                   any number, with every term and outcome

No format but ours has a word for "no score". There a failed score is an HTTP error that says why, so that nobody takes
it for a zero; NeMo-Gym alone says it in the answer, by the failure class that masks the sample. Among responses that
are compared, one without a score has the reward null.

What is asked about is text. A request that also shows an image, or wants scores of single steps, is refused when it is
read (422): the rest of it would be another question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from genrm_scoring.conversations import Turn, as_text, refuse_other_than_text, text_in, turns_of
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.ground_truths import as_json
from genrm_scoring.groups import Report
from genrm_scoring.types import Outcome, Sample, Score
from pydantic import BaseModel, ConfigDict, Field, model_validator

OF_THE_SAMPLE: Final = frozenset(
    {Outcome.REFUSED, Outcome.TOO_LONG, Outcome.PARSE_FAILED, Outcome.TRUNCATED, Outcome.SKIPPED}
)
"""Failures that asking again would bring again."""
MOST_SAMPLES: Final = 4096
"""In one request."""


class Request(BaseModel):
    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, body: Any) -> Any:
        """
        Raises:
            ValueError: something else is asked about.
        """
        try:
            if isinstance(body, Mapping):
                refuse_other_than_text(body, "request")
                for where, chat in cls.chats_in(body):
                    turns_of(_messages(chat), where)
        except ConfigurationError as e:
            raise ValueError(str(e)) from None
        return body

    @staticmethod
    def chats_in(body: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any]]]:
        """Its conversations, by their fields; a prompt may be one."""
        if isinstance(prompt := body.get("prompt"), list):
            yield "prompt", prompt


class RewardApiRequest(Request):
    """reward_api: one response, decoded. `response_str` is taken where it is given, else what follows the prompt."""

    data_source: str | None = None
    solution_str: str
    ground_truth: Any = None
    extra_info: dict[str, Any] | None = None
    prompt_str: str | None = None
    response_str: str | None = None


class OpenRlhfRequest(Request):
    """OpenRLHF: prompts, and prompts with their responses. It sends one sample at a time: of several URLs all but the
    first get none, and an error from one of them would cost the sample its reward."""

    query: Annotated[list[str], Field(max_length=MOST_SAMPLES)]
    prompts: list[str]
    labels: list[Any] | None = None


class SlimeRequest(Request):
    """slime's `--rm-type remote_rm`."""

    prompt: str | list[dict[str, Any]]
    response: str
    label: Any = None


class VerifyRequest(Request):
    """NeMo-Gym's `/verify`; the ground truth is the task's `expected_answer`, `ground_truth` or `label`."""

    responses_create_params: dict[str, Any]
    response: dict[str, Any]

    @staticmethod
    def chats_in(body: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any]]]:
        for field, key in (("responses_create_params", "input"), ("response", "output")):
            yield from _said_in(body.get(field), field, key)


class CompareRequest(Request):
    """NeMo-Gym's `/compare`. A target to which nobody passes the principle on is not asked."""

    conversation_history: list[dict[str, Any]]
    response_objs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_SAMPLES)]
    principle: str | None = None

    @staticmethod
    def chats_in(body: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any]]]:
        if isinstance(history := body.get("conversation_history"), list):
            yield "conversation_history", history
        if isinstance(responses := body.get("response_objs"), list):
            for response in responses:
                yield from _said_in(response, "response_objs", "output")


def _said_in(said: Any, field: str, key: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """The conversation in an object of the Responses API.

    Raises:
        ConfigurationError: it is neither that nor a text.
    """
    chat = said.get(key) if isinstance(said, Mapping) else None
    if isinstance(chat, list):
        yield f"{field}.{key}", chat
    elif chat is not None and not isinstance(chat, str):
        raise ConfigurationError(f"{field}.{key}", f"is a {type(chat).__name__}; write a text, or a list of items")


class ScoredSample(Request):
    model_config = ConfigDict(extra="forbid")

    prompt: str | list[dict[str, Any]] = Field(description="The prompt as text, or as chat messages.")
    response: str
    ground_truth: Any = Field(None, description="What rules compare with, and judges are shown.")
    data_source: str = ""
    extra: dict[str, Any] = Field(default_factory=dict, description="What else the data set says.")
    group: str | None = Field(
        None, description="Responses of one group are judged together. Default: all of a request with the same prompt."
    )


class ScoreRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: str | None = Field(None, description="A RewardFleet or RewardModel. Default: the gateway's only one.")
    samples: Annotated[list[ScoredSample], Field(min_length=1, max_length=MOST_SAMPLES)]


# -- what requests say


def of_reward_api(request: RewardApiRequest) -> Sample:
    prompt = request.prompt_str or ""
    response = request.response_str
    if response is None:
        response = request.solution_str.removeprefix(prompt)
    return Sample(prompt, response, ground_truth=as_json(request.ground_truth), data_source=request.data_source or "",
                  extra=request.extra_info or {})  # fmt: skip


def of_openrlhf(request: OpenRlhfRequest) -> list[Sample]:
    """
    Raises:
        ValueError: the lists have different lengths.
    """
    labels = request.labels or [None] * len(request.query)
    if not len(request.query) == len(request.prompts) == len(labels):
        raise ValueError(
            f"query has {len(request.query)} items, prompts {len(request.prompts)}, labels {len(labels)}; "
            "send as many of each"
        )
    return [
        Sample(prompt, query.removeprefix(prompt), ground_truth=as_json(label))
        for query, prompt, label in zip(request.query, request.prompts, labels, strict=True)
    ]


def of_slime(request: SlimeRequest) -> Sample:
    return _sample(request.prompt, request.response, request.label)


def of_verify(request: VerifyRequest) -> Sample:
    task = request.model_extra or {}
    truth = next((task[key] for key in ("expected_answer", "ground_truth", "label") if key in task), None)
    asked = request.responses_create_params.get("input") or ""
    return _sample(
        asked if isinstance(asked, str) else _messages(asked), spoken_in(request.response), truth, extra=task
    )


def of_compare(request: CompareRequest) -> list[Sample]:
    """The principle says what is good, not what is right: it is for judges who are told, and nothing to be equal to."""
    said = request.conversation_history
    extra = {} if request.principle is None else {"principle": request.principle}
    return [_sample(said, spoken_in(response), None, extra=extra) for response in request.response_objs]


def of_score(sample: ScoredSample) -> Sample:
    return _sample(sample.prompt, sample.response, sample.ground_truth, sample.data_source, sample.extra)


def _sample(
    prompt: Any, response: str, truth: Any, data_source: str = "", extra: Mapping[str, Any] | None = None
) -> Sample:
    """A prompt is a text or a conversation, as runs of verl send it."""
    messages: tuple[Turn, ...] = () if isinstance(prompt, str) else turns_of(prompt, "prompt")
    return Sample(
        prompt if isinstance(prompt, str) else as_text(messages),
        response,
        ground_truth=as_json(truth),
        data_source=data_source,
        extra=extra or {},
        messages=messages,
    )


def spoken_in(response: Mapping[str, Any]) -> str:
    """The text of a Responses API object: its messages, without reasoning and calls of tools."""
    output = response.get("output")
    if isinstance(output, str):
        return output
    return "\n".join(text_in(message.get("content"), "response.output") for message in _messages(output or ()))


def _messages(items: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Those of a conversation's items that are messages."""
    return [item for item in items if isinstance(item, Mapping) and item.get("type", "message") == "message"]


def grouped(samples: Sequence[Sample], names: Sequence[str | None]) -> list[list[int]]:
    """Places of the samples that are judged together: of one name, or without one of one prompt."""
    groups: dict[tuple[bool, str], list[int]] = {}
    for place, (sample, name) in enumerate(zip(samples, names, strict=True)):
        groups.setdefault((name is not None, sample.question if name is None else name), []).append(place)
    return list(groups.values())


# -- answers


def in_words(score: Score) -> dict[str, Any]:
    """A score with all that is known of it, for `/v1/score` and for errors."""
    terms = {
        term.name: {"value": term.value, "raw": term.raw, "outcome": term.outcome, "source": term.source}
        | ({"detail": term.detail} if term.detail else {})
        for term in score.terms
    }
    return {"value": score.value, "outcome": score.outcome, "source": score.source, "detail": score.detail} | (
        {"terms": terms} if terms else {}
    )


def numbers(score: Score) -> dict[str, float]:
    """Its terms, for logs that take numbers only."""
    return {term.name: term.value for term in score.terms if term.value is not None}


def status_of(failed: Sequence[Score]) -> int:
    """503 if asking again may bring a score, 422 if not."""
    return 422 if all(score.outcome in OF_THE_SAMPLE for score in failed) else 503


def as_reward_api(score: Score) -> dict[str, float]:
    assert score.value is not None
    return {**numbers(score), "score": score.value}


def as_openrlhf(scores: Sequence[Score]) -> dict[str, Any]:
    values = [score.value for score in scores]
    names = {name: None for score in scores for name in numbers(score)}
    logs = {name: [numbers(score).get(name) for score in scores] for name in names}
    return {"rewards": values, "scores": values, "extra_logs": logs}


def as_verify(request: VerifyRequest, score: Score) -> dict[str, Any]:
    said = as_json(request.model_dump())  # Python's JSON has numbers that are none
    if score.value is None:
        return {**said, "reward": 0.0, **_failure(score)}
    return {**said, "reward": score.value} | ({"reward_components": numbers(score)} if score.terms else {})


def as_compare(scores: Sequence[Score], report: Report | None = None) -> dict[str, Any]:
    """A response without a score has none among the `rewards` either, and `failures` says why.

    Their judge grades each of a pair from 1 to 5, and the pair from 1 (the first is better) to 6. A preference for the
    first is put on both scales, so that none of it is 3, 3 and 3.5, as with them.
    """
    results: list[dict[str, float]] = []
    asked = Counter[tuple[int, int]]()
    for said in () if report is None else report.comparisons:
        pair, preference = (said.first, said.second), said.preference
        if said.asked and max(pair) < len(scores):  # an anchor is nobody of theirs
            grades = {"score_1": 1 + 4 * preference, "score_2": 5 - 4 * preference, "ranking": 6 - 5 * preference}
            results.append({"response_i": pair[0], "response_j": pair[1], "judge_idx": asked[pair], **grades})
            asked[pair] += 1
    failures = [{"response": place, **_failure(score)} for place, score in enumerate(scores) if score.value is None]
    return {
        "rewards": [score.value for score in scores],
        "comparison_results": results,
        "metrics": {} if report is None else _metrics(report),
    } | ({"failures": failures} if failures else {})


def _metrics(report: Report) -> dict[str, float]:
    return {
        "questions": report.questions,
        "rounds": report.rounds,
        "failed": sum(report.failed.values()),
        "ties": report.standings.tally.ties,
        "circular_triads": report.standings.tally.circular_triads,
    }


def _failure(score: Score) -> dict[str, str]:
    """NeMo-Gym's words for a judge that failed."""
    return {"_ng_failure_class": "judge_failed", "_ng_failure_judge_error": f"{score.outcome}: {score.detail}"}
