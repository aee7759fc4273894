"""The request formats of training frameworks: what a request says, as samples, and scores as its answer. Pure.

    reward_api     POST /get_reward2, /get_reward   one sample, {"score": …}
    OpenRLHF       POST /get_reward                 lists, {"rewards": [...], "scores": [...]}
    slime          POST /slime                      one sample, a bare number
    NeMo-Gym       POST /verify, /compare           one response, or all of a prompt
    ours           POST /v1/score                   any number, with every term and outcome

No format but ours has a word for "no score". There a failed score is an HTTP error that says why, so that nobody takes
it for a zero; NeMo-Gym alone says it in the answer, by the failure class that masks the sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from genrm_scoring.chat import as_text
from genrm_scoring.types import Outcome, Sample, Score
from pydantic import BaseModel, ConfigDict, Field

Chat = Sequence[Mapping[str, Any]]
OF_THE_SAMPLE: Final = frozenset(
    {Outcome.REFUSED, Outcome.TOO_LONG, Outcome.PARSE_FAILED, Outcome.TRUNCATED, Outcome.SKIPPED}
)
"""Failures that asking again would bring again."""
MOST_SAMPLES: Final = 4096
"""In one request."""


class Request(BaseModel):
    model_config = ConfigDict(extra="allow")


class RewardApiRequest(Request):
    """reward_api: one response, decoded. `response_str` is taken where it is given, else what follows the prompt."""

    data_source: str | None = None
    solution_str: str
    ground_truth: Any = None
    extra_info: dict[str, Any] | None = None
    prompt_str: str | None = None
    response_str: str | None = None


class OpenRlhfRequest(Request):
    """OpenRLHF: prompts, and prompts with their responses."""

    query: Annotated[list[str], Field(min_length=1, max_length=MOST_SAMPLES)]
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


class CompareRequest(Request):
    """NeMo-Gym's `/compare`."""

    conversation_history: list[dict[str, Any]]
    response_objs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_SAMPLES)]
    principle: str | None = None


class ScoredSample(BaseModel):
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
    return Sample(prompt, response, reference=reference(request.ground_truth), data_source=request.data_source or "",
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
        Sample(prompt, query.removeprefix(prompt), reference=reference(label))
        for query, prompt, label in zip(request.query, request.prompts, labels, strict=True)
    ]


def of_slime(request: SlimeRequest) -> Sample:
    return Sample(text_of(request.prompt), request.response, reference=reference(request.label))


def of_verify(request: VerifyRequest) -> Sample:
    task = request.model_extra or {}
    truth = next((task[key] for key in ("expected_answer", "ground_truth", "label") if key in task), None)
    asked = request.responses_create_params.get("input", "")
    return Sample(text_of(asked), spoken_in(request.response), reference=reference(truth), extra=task)


def of_compare(request: CompareRequest) -> list[Sample]:
    prompt = text_of(request.conversation_history)
    return [Sample(prompt, spoken_in(response), reference=request.principle) for response in request.response_objs]


def of_score(sample: ScoredSample) -> Sample:
    return Sample(
        text_of(sample.prompt),
        sample.response,
        reference=reference(sample.ground_truth),
        data_source=sample.data_source,
        extra=sample.extra,
    )


def text_of(prompt: str | Chat) -> str:
    """A prompt as text: its only message, or the whole conversation with its roles, as runs of verl send it."""
    if isinstance(prompt, str):
        return prompt
    return as_text([(str(message.get("role", "user")), _content(message.get("content"))) for message in prompt])


def spoken_in(response: Mapping[str, Any]) -> str:
    """The text of a Responses API object: its messages, without reasoning and calls of tools."""
    output = response.get("output")
    if isinstance(output, str):
        return output
    messages = [item for item in output or () if isinstance(item, Mapping) and item.get("type", "message") == "message"]
    return "\n".join(_content(message.get("content")) for message in messages)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))


def reference(truth: Any) -> str | None:
    """A ground truth that is a text or a number; what else it may be no rule can compare with."""
    if isinstance(truth, str):
        return truth
    if isinstance(truth, bool) or not isinstance(truth, int | float) or not math.isfinite(truth):
        return None
    return str(truth)


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
    said = request.model_dump()
    if score.value is None:
        why = f"{score.outcome}: {score.detail}"
        return {**said, "reward": 0.0, "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": why}
    return {**said, "reward": score.value} | ({"reward_components": numbers(score)} if score.terms else {})


def as_compare(scores: Sequence[Score]) -> dict[str, Any]:
    """Their list of single comparisons is in the words of their own judge, and stays empty."""
    return {"rewards": [score.value for score in scores], "comparison_results": [], "metrics": {}}
