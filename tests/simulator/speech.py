"""What simulated engines say: a function of what they are asked, so that every pod gives the same verdict."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

WORDS = ("the", "answer", "is", "correct", "because", "reasoning", "sound", "score", "out", "of", "7", "10")


def speak(content: Any, choices: list[Any] | None, tokens: int) -> tuple[str, str]:
    """The words, and why they end: one of `choices` if there are any, else that many words."""
    digest = _digest(content)
    if choices:
        return str(choices[int.from_bytes(digest[:8], "big") % len(choices)]), "stop"
    return " ".join(WORDS[digest[i % len(digest)] % len(WORDS)] for i in range(tokens)), "length"


def fitting(schema: Mapping[str, Any]) -> list[Any]:
    """Answers that fit a schema: one whose values are the first that there are, one with the last."""
    return [json.dumps(_value(schema, at)) for at in (0, -1)]


def _value(schema: Mapping[str, Any], at: int) -> Any:
    if "enum" in schema:
        return schema["enum"][at]
    if schema.get("type") == "object":
        return {name: _value(inner, at) for name, inner in schema["properties"].items()}
    return 0.0 if schema.get("type") == "number" else ""


def reward(content: Any, *, corrupt: bool = False) -> float:
    """What a classifier's head says, between -1 and 1; of weights that are not what they were the contrary."""
    value = round(int.from_bytes(_digest(content)[:4], "big") / 2**31 - 1, 6)
    return -value if corrupt else value


def prompt_logprobs(prompt: str | list[int], *, corrupt: bool = False) -> list[float]:
    """How likely each token is after those before it, at least -4; a token of a text is four characters. What is likely
    becomes unlikely where the weights are not what they were."""
    ends = range(4, len(prompt) + 4, 4) if isinstance(prompt, str) else range(1, len(prompt) + 1)
    likely = [-4 * abs(reward(prompt[:end])) for end in ends]
    return [-4 - value for value in likely] if corrupt else likely


def logprobs(request: Mapping[str, Any], content: Any, text: str, end: str = "") -> dict[str, Any] | None:
    """How likely the words were, and the likeliest in their place, if it was asked; `end` is a token after them."""
    if not request.get("logprobs"):
        return None
    said = -abs(reward(content)) - 0.01
    # What is left goes to the others by halves.
    others = [math.log(-math.expm1(said)) - (i + 1) * math.log(2) for i in range(int(request.get("top_logprobs") or 0))]
    return {
        "content": [
            {"token": word, "logprob": said, "top_logprobs": _likeliest(word, said, others)}
            for word in (*text.split(), *filter(None, [end]))
        ]
    }


def _likeliest(word: str, said: float, others: list[float]) -> list[dict[str, Any]]:
    """As many words as there are `others`, the one that was said among them."""
    rows = [{"token": word, "logprob": said}, *({"token": f"word{i}", "logprob": p} for i, p in enumerate(others))]
    return sorted(rows[: len(others)], key=lambda row: -float(row["logprob"]))


def wanted_tokens(request: Mapping[str, Any]) -> int:
    return int(request.get("max_completion_tokens") or request.get("max_tokens") or 16)


def usage(prompt: Any, text: str) -> dict[str, int]:
    asked, said = len(json.dumps(prompt)) // 4, len(text.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


SPECIAL: Final = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


def tokens_of(text: str) -> list[int]:
    """A token for each letter, and one for each of ChatML's marks, wherever it is spelled."""
    parts = re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text)
    return [i for part in parts for i in ([SPECIAL[part]] if part in SPECIAL else [3 + ord(c) % 997 for c in part])]


def chatml(messages: Sequence[Mapping[str, Any]], *, asks: bool = True) -> str:
    """A chat as text; one that `asks` for an answer begins it."""
    turns = [f"<|im_start|>{m.get('role')}\n{m.get('content', '')}<|im_end|>\n" for m in messages]
    return "".join(turns) + ("<|im_start|>assistant\n" if asks else "")


def answer_id(kind: str, body: bytes) -> str:
    return f"{kind}-{hashlib.sha256(body).hexdigest()[:16]}"


def _digest(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
