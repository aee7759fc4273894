"""The OpenAI chat wire format: a question as a request body, an HTTP reply as an `Answer` or as the error it is.

Pure functions. What OpenAI's format has no word for is said in the words of the engine that is asked. An answer counts
only if the engine says that it ended by itself (`finish_reason: stop`; a guided choice ends so too).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from genrm_api.rewardmodel import EngineName, Sampling, Structured

from genrm_scoring.errors import Aborted, ConfigurationError, RequestRefused, ServerFailed, Truncated
from genrm_scoring.parsers.logprob import TOP
from genrm_scoring.replies import refusal, stamps
from genrm_scoring.transport import Reply
from genrm_scoring.types import Answer

PATH: Final = "/v1/chat/completions"
_SPECIAL: Final = re.compile(r"[\\^$.|?*+()\[\]{}/]")
"""What has a meaning in the regular expressions of any of SGLang's grammar backends. `re.escape` escapes more, and some
of them do not know `\\ ` or `\\-`."""


def request_body(
    model: str,
    messages: list[dict[str, str]],
    sampling: Sampling,
    engine: EngineName = EngineName.VLLM,
    *,
    vote: int = 0,
    logprobs: bool = False,
    schema: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body for `PATH`. `schema` is the JSON that the judge reads, for an answer that is held to it."""
    body: dict[str, Any] = {"model": model, "messages": messages}
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP}
    settings = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": judgement_seed(sampling.seed, messages, vote) if sampling.seeded else None,
        "chat_template_kwargs": sampling.chat_template_kwargs,
    }
    constraint = constrained_to(sampling.structured, engine, schema) if sampling.structured is not None else {}
    return body | {key: value for key, value in settings.items() if value is not None} | constraint


def constrained_to(
    structured: Structured, engine: EngineName, schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The form of the answer as the engine takes it. SGLang has no choice, and ignores vLLM's words."""
    if structured.choice is None:
        if schema is None:
            raise ConfigurationError("scoring.sampling.structured.jsonObject", "the judge reads no JSON; remove it")
        if engine is EngineName.SGLANG:
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}}
        return {"structured_outputs": {"json": schema}}
    match engine:
        case EngineName.SGLANG:
            # Without ^ and $: the expression always is of the whole answer, and outlines refuses the two.
            return {"regex": f"({'|'.join(_SPECIAL.sub(_escaped, text) for text in structured.choice)})"}
        case EngineName.VLLM | EngineName.CUSTOM:
            return {"structured_outputs": {"choice": structured.choice}}


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def judgement_seed(base: int | None, messages: list[dict[str, str]], vote: int = 0) -> int:
    """The seed of one judgement: fixed by the base seed, if there is one, what is asked, and which of its votes this
    is, so that a retry asks for the same answer and another vote for another."""
    content = json.dumps([base, messages, *([vote] if vote else [])], ensure_ascii=False, sort_keys=True)
    return int.from_bytes(hashlib.sha256(content.encode(errors="surrogatepass")).digest()[:4]) >> 1


def read_answer(reply: Reply, *, logprobs: bool = False) -> Answer:
    """Read an HTTP reply. Whoever reads probabilities needs no more than the first words, so there an answer that ran
    into its limit of tokens is one too.

    Raises:
        AttemptFailed: the subclass says what the reply means.
    """
    if reply.status != 200:
        raise refusal(reply)
    try:
        body = json.loads(reply.body)
        choice = body["choices"][0]
        reason, text = choice.get("finish_reason"), choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError(f"content is a {type(text).__name__}")
        usage = body.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tokens = tuple((choice.get("logprobs") or {}).get("content") or ()) if logprobs else None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
        raise ServerFailed(f"200 with something that is no chat completion: {reply.body[:200]!r}") from e
    match reason:
        case _ if reason == "stop" or (reason == "length" and tokens):
            return Answer(text, *counts, *stamps(reply), tokens)
        case "length":
            raise Truncated(f"the answer hit its limit of tokens ({counts[1]})")
        case "abort":
            raise Aborted("the engine aborted the request")
        case _:
            raise RequestRefused(f"the engine ended the answer with finish_reason {reason!r}")
