"""What simulated engines say: a function of what they are asked, so that every pod gives the same verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

WORDS = ("the", "answer", "is", "correct", "because", "reasoning", "sound", "score", "out", "of", "7", "10")


def speak(content: Any, choices: list[Any] | None, tokens: int) -> tuple[str, str]:
    """The words, and why they end: one of `choices` if there are any, else that many words."""
    digest = _digest(content)
    if choices:
        return str(choices[int.from_bytes(digest[:8], "big") % len(choices)]), "stop"
    return " ".join(WORDS[digest[i % len(digest)] % len(WORDS)] for i in range(tokens)), "length"


def reward(content: Any, *, corrupt: bool = False) -> float:
    """What a classifier's head says, between -1 and 1; of weights that are not what they were something else."""
    return round(int.from_bytes(_digest(["?", content] if corrupt else content)[:4], "big") / 2**31 - 1, 6)


def prompt_logprobs(text: str, *, corrupt: bool = False) -> list[float]:
    """How likely each token of a text is after those before it; a token is four characters."""
    ends = range(4, len(text) + 4, 4)
    return [-4 * abs(reward(text[:end], corrupt=corrupt)) for end in ends]


def logprobs(request: Mapping[str, Any], content: Any, text: str) -> dict[str, Any] | None:
    """How likely the words were, if it was asked."""
    if not request.get("logprobs"):
        return None
    return {"content": [{"token": word, "logprob": -abs(reward(content)), "top_logprobs": []} for word in text.split()]}


def wanted_tokens(request: Mapping[str, Any]) -> int:
    return int(request.get("max_completion_tokens") or request.get("max_tokens") or 16)


def usage(prompt: Any, text: str) -> dict[str, int]:
    asked, said = len(json.dumps(prompt)) // 4, len(text.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def tokens_of(text: str) -> list[int]:
    return [ord(c) % 1000 for c in text]


def answer_id(kind: str, body: bytes) -> str:
    return f"{kind}-{hashlib.sha256(body).hexdigest()[:16]}"


def _digest(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
