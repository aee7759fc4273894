"""The labels of a verdict that is read from probabilities (`parse.kind: logprob`): which they are, and whether a model
can say each of them in one token.

What is read is the distribution over the tokens of one place in the answer, so a label that a model's tokenizer takes
apart has no probability there: what it is worth is missing from every verdict, silently where it is seldom meant. Only
the model's own tokenizer knows. It is asked for each label as an answer says it: at the beginning of a line, where chat
templates put an answer, or by itself, or behind a space, all of which the parser reads as the label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from genrm_api.comparing import ScoringMode
from genrm_api.judging import Parse, ParseKind
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_api.scoring import Scoring

DIGITS: Final[Mapping[str, float]] = MappingProxyType({str(digit): digit for digit in range(10)})
"""Of a judge of one response, worth what they say."""
LETTERS: Final[Mapping[str, float]] = MappingProxyType({"A": 1, "B": 0})
"""Of a judge of two: the preference for the first. Whoever cannot decide says so by how probable both are."""
_LINE: Final = "\n"

Tokenize = Callable[[str], Awaitable[Sequence[int]]]
"""The tokens of a text, without those that a tokenizer puts around a whole prompt."""


def with_labels(parse: Parse, mode: ScoringMode | None) -> Parse:
    """`parse` with the labels that it leaves out."""
    if parse.kind is not ParseKind.LOGPROB or parse.values is not None:
        return parse
    return parse.model_copy(update={"values": dict(LETTERS if mode is ScoringMode.PAIRWISE else DIGITS)})


def labels_in(scoring: Scoring) -> tuple[str, ...]:
    """What is read by probabilities; empty: nothing."""
    parse = scoring.parse
    if parse is None or parse.kind is not ParseKind.LOGPROB:
        return ()
    return tuple(with_labels(parse, scoring.mode).values or ())


def labels_of(rm: RewardModel) -> tuple[str, ...]:
    return () if rm.spec.type is RewardModelType.CLASSIFIER else labels_in(rm.spec.scoring)


async def split_labels(labels: Sequence[str], tokenize: Tokenize) -> tuple[str, ...]:
    """Those that are more than one token, however an answer begins."""
    line = tuple(await tokenize(_LINE))

    async def is_one(label: str) -> bool:
        *before, _ = await tokenize(f"{_LINE}{label}")
        if tuple(before) == line:
            return True
        return any(len(tokens) == 1 for tokens in await asyncio.gather(tokenize(label), tokenize(f" {label}")))

    said = await asyncio.gather(*map(is_one, labels))
    return tuple(label for label, one in zip(labels, said, strict=True) if not one)


def why_split(labels: Sequence[str]) -> str:
    """What is wrong with labels that are not one token, and what to do."""
    quoted = ", ".join(map(repr, labels))
    return (
        f"{quoted} {'is' if len(labels) == 1 else 'are'} more than one token to this model, so that no probability is "
        "that of the label; write labels of one token each, as digits and letters are, or another parse.kind"
    )
