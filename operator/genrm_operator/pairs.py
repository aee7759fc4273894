"""Pairs of responses that a model's user wrote down, with a word which is the better one: what they come to. Pure.

Golden rows say that an engine computes what it computed before; a pair says that this is worth something. It is put to
an engine as a conversation, in the tokens that the engine's own chat template makes of it, because that is how it is
asked for scores. A classifier says how good the response is. A generative model is asked how likely the response is to
it: the mean log-probability of its tokens after the prompt. That is no verdict: the operator knows no judge's template
and reads no judge's answer, so a model may tell such a pair apart and still judge badly.

Where the response begins follows from tokens, not from text: they are what the template makes of the whole, less what
it makes of the prompt alone with the head of an answer. What it puts behind an answer counts as a part of it, and so
does what it puts between the two, as empty thoughts. Both are the same for the two of a pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from genrm_api.rewardmodel import RewardModelType

Tokens = tuple[int, ...]


def asks(prompt: str) -> list[dict[str, str]]:
    """The prompt alone."""
    return [{"role": "user", "content": prompt}]


def answered(prompt: str, response: str) -> list[dict[str, str]]:
    return [*asks(prompt), {"role": "assistant", "content": response}]


def score(values: Sequence[float]) -> float | None:
    """What a classifier's row comes to; `None`: it has several labels, or is an embedding. NaN: it says nothing."""
    return (*values, math.nan)[0] if len(values) <= 1 else None


def likelihood(prompt: Tokens, whole: Tokens, values: Sequence[float]) -> float | None:
    """The mean log-probability of a token of the response, in nats.

    Args:
        prompt: tokens of the prompt alone.
        whole: of prompt and response.
        values: the log-probability of each token of `whole` but the first, given those before it.

    Returns:
        `None`: the template shows nothing of the response. NaN: these values are of something else.
    """
    same = itertools.takewhile(lambda two: two[0] == two[1], zip(prompt, whole, strict=False))
    begins = max(sum(1 for _ in same), 1)
    if begins == len(whole):
        return None
    if len(values) != len(whole) - 1:
        return math.nan
    found = values[begins - 1 :]
    return sum(found) / len(found)


def told(kind: RewardModelType, better: float, worse: float) -> str:
    """The two values, for a message."""
    if kind is RewardModelType.CLASSIFIER:
        return f"the better response has the score {better:.4g}, the worse one {worse:.4g}"
    return f"a token of the better response has a log-probability of {better:.4g}, of the worse one {worse:.4g}"
