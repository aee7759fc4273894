"""Models that answer with a number: what to send, and how to read the number out of each engine's answer. Pure.

A classifier's head reads the last token of a text. The number is the head's own, not what an activation makes of it:
a sigmoid hides how large a large value is, and a softmax over one label is always 1. vLLM called the switch
`activation` before 0.11.2 and `use_activation` since, and takes no offence at a name that it does not know, so both are
sent. Where an engine answers for every token (vLLM's `/pooling` of some models), the last one counts.

    vLLM /classify      data[0].probs = [number]
    vLLM /pooling       data[0].data = [number] or [[number], ...] by token
    SGLang /classify    embedding = [number]; a list of such objects for a list of texts
    /v1/embeddings      data[0].embedding = [number]

Bodies take `messages` where the engine writes the chat with its own template (vLLM), and a text, or its tokens, where
it does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from genrm_scoring.errors import ParseFailed

_T = TypeVar("_T")


def classify_body(model: str, asked: str | Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """For vLLM's `/classify` and `/pooling`: a text, or a chat for the engine to write."""
    what = {"input": asked} if isinstance(asked, str) else {"messages": [dict(message) for message in asked]}
    return {"model": model, **what, "use_activation": False, "activation": False}


def sglang_body(asked: str | Sequence[int]) -> dict[str, Any]:
    """For SGLang's own `/classify`: a text, or its tokens."""
    return {"text": asked} if isinstance(asked, str) else {"input_ids": list(asked)}


def embeddings_body(model: str, asked: str | Sequence[int]) -> dict[str, Any]:
    """For `/v1/embeddings`: a text, or its tokens."""
    return {"model": model, "input": asked if isinstance(asked, str) else list(asked)}


def read_vllm_classify(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return read_with(body, lambda found: _only(_first(found["data"])["probs"]))


def read_vllm_pooling(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return read_with(body, lambda found: _only(_last_token(_first(found["data"])["data"])))


def read_sglang_classify(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return read_with(body, lambda found: _only((_first(found) if isinstance(found, list) else found)["embedding"]))


def read_embeddings_score(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or is no number but a vector.
    """
    return read_with(body, lambda found: _only(_first(found["data"])["embedding"]))


def read_with(body: bytes, read: Callable[[Any], _T]) -> _T:
    """What `read` finds in a JSON document.

    Raises:
        ParseFailed: it is of another form.
    """
    try:
        return read(json.loads(body))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
        raise ParseFailed(f"no number in {body[:200]!r} ({type(e).__name__}: {str(e)[:80]})") from None


def _first(rows: Sequence[Any]) -> Any:
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows for one text")
    return rows[0]


def _last_token(rows: Sequence[Any]) -> Any:
    """Of numbers by token those of the last; else they are the text's already."""
    return rows[-1] if isinstance(rows[-1], list) else rows


def _only(numbers: Sequence[Any]) -> float:
    if len(numbers) != 1:
        raise ValueError(f"{len(numbers)} labels; a score is one number (step scores are out of scope)")
    return read_number(numbers[0])


def read_number(number: Any) -> float:
    """
    Raises:
        ValueError: it is none, or not finite.
    """
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"{number!r} is no number")
    return float(number)
