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
from itertools import pairwise
from typing import Any, Final, TypeVar

from genrm_scoring.errors import ParseFailed

Vector = Sequence[float]
_T = TypeVar("_T")


def classify_body(model: str, asked: str | Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """For vLLM's `/classify` and `/pooling`: a text, or a chat for the engine to write."""
    what = {"input": asked} if isinstance(asked, str) else {"messages": [dict(message) for message in asked]}
    return {"model": model, **what, "use_activation": False, "activation": False}


def embeddings_body(model: str, text: str) -> dict[str, Any]:
    """For `/v1/embeddings`."""
    return {"model": model, "input": text}


def sglang_body(asked: str | Sequence[int]) -> dict[str, Any]:
    """For SGLang's own `/classify`: a text, or its tokens."""
    return {"text": asked} if isinstance(asked, str) else {"input_ids": list(asked)}


def read_vllm_classify(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return _read(body, lambda found: _only(_first(found["data"])["probs"]))


def read_vllm_pooling(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return _read(body, lambda found: _only(_last_token(_first(found["data"])["data"])))


def read_sglang_classify(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or has more labels than one.
    """
    return _read(body, lambda found: _only((_first(found) if isinstance(found, list) else found)["embedding"]))


def read_embeddings_score(body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer is of another form, or is no number but a vector.
    """
    return _read(body, lambda found: _only(_first(found["data"])["embedding"]))


def read_embeddings(body: bytes) -> list[list[float]]:
    """The vectors of `/v1/embeddings`, in the order of the texts.

    Raises:
        ParseFailed: the answer is of another form.
    """

    def vectors(found: Any) -> list[list[float]]:
        rows = sorted(found["data"], key=lambda row: int(row["index"]))
        return [[_finite(x) for x in row["embedding"]] for row in rows]

    return _read(body, vectors)


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of the angle between two vectors, from -1 to 1.

    Raises:
        ParseFailed: they have different lengths, or one has none.
    """
    if len(one) != len(other):
        raise ParseFailed(f"vectors of {len(one)} and {len(other)} numbers")
    norms = math.hypot(*one) * math.hypot(*other)
    if not norms > 0 or not math.isfinite(norms):
        raise ParseFailed("a vector without a direction")
    product = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return max(-1.0, min(1.0, product / norms))


BGE_SIMILARITY: Final = ((0.65, 0.1), (0.85, 1.0))
"""What VeRL-with-RMs' `/get_bge_sim` makes of a similarity: 0.1 up to 0.65, 1 from 0.85 on. Between the two, where its
own words say nothing, a line."""


def piecewise(x: float, points: Sequence[tuple[float, float]]) -> float:
    """The line through `points`, whose x grow; level before the first and after the last."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def _read(body: bytes, read: Callable[[Any], _T]) -> _T:
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
        raise ValueError(f"{len(numbers)} labels")
    return _finite(numbers[0])


def _finite(number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"{number!r} is no number")
    return float(number)
