"""How like its reference a response is: a number of an embedding model, or of a service that has one. Pure.

    openai-embeddings   /v1/embeddings of both texts; the cosine of the angle between their vectors, from -1 to 1
    get-bge-sim         VeRL-with-RMs' side service: {"sent1", "sent2"} → {"sim"}, stepped there already

That service makes 0.1 of a cosine up to 0.65 and 1 of one from 0.85 on. A term on an embedding model does the same by a
piecewise transform.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from genrm_api.terms import RewardApiFormat

from genrm_scoring.classifiers import read_number, read_with
from genrm_scoring.errors import ParseFailed, Unaskable
from genrm_scoring.speech import InOneStep, unread
from genrm_scoring.transport import Reply
from genrm_scoring.types import Answer, Question, Verdict

Vector = Sequence[float]
_NO_REFERENCE: Final = "the sample has no reference to be like; its data set needs reward_model.ground_truth"


@dataclass(frozen=True, slots=True)
class Similarity(InOneStep):
    """The URL of an endpoint is the whole route. `model` is the embedding model's name in requests."""

    wire_format: RewardApiFormat
    model: str = ""
    path: str = ""

    def body(self, question: Question, vote: int) -> bytes:
        """
        Raises:
            Unaskable: there is nothing to compare with.
        """
        (response,) = question.responses
        if not question.reference:
            raise Unaskable(_NO_REFERENCE)
        if self.wire_format is RewardApiFormat.GET_BGE_SIM:
            return json.dumps({"sent1": response, "sent2": question.reference}).encode()
        return json.dumps({"model": self.model, "input": [response, question.reference]}).encode()

    def answer(self, reply: Reply) -> Answer:
        return unread(reply)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        body = answer.text.encode()
        if self.wire_format is RewardApiFormat.GET_BGE_SIM:
            value = read_with(body, lambda found: read_number(found["sim"]))
        else:
            one, other = read_with(body, _vectors)
            value = cosine(one, other)
        return Verdict(f"{value:g}", value)


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


def _vectors(found: Any) -> tuple[list[float], list[float]]:
    """Of the response, and of the reference."""
    one, other = sorted(found["data"], key=lambda row: int(row["index"]))
    return [read_number(x) for x in one["embedding"]], [read_number(x) for x in other["embedding"]]
