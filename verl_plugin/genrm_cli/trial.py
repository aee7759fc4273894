"""Asking judges about pairs: a judge of one response about each, a judge of two about both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import ScoringMode
from genrm_scoring.scorer import Scorer
from genrm_scoring.types import Judgement, Question, Sample

from genrm_cli.preferences import Preference
from genrm_cli.verdicts import Trial

AT_ONCE: Final = 64
"""Pairs."""


async def tried(
    rm: RewardModel, scorer: Scorer, pairs: Sequence[Preference], done: Callable[[], None], at_once: int = AT_ONCE
) -> list[Trial]:
    """`done` is called after each pair."""
    room = asyncio.Semaphore(at_once)
    pairwise = rm.spec.scoring.mode is ScoringMode.PAIRWISE

    async def one(pair: Preference) -> Trial:
        async with room:
            first, second = await asyncio.gather(
                _asked(scorer, pair, pairwise, chosen=True), _asked(scorer, pair, pairwise, chosen=False)
            )
        done()
        return Trial(first, second, pairwise)

    return list(await asyncio.gather(*map(one, pairs)))


async def _asked(scorer: Scorer, pair: Preference, pairwise: bool, *, chosen: bool) -> Judgement:
    """About the chosen response, or with it first; else about the other, or with that first."""
    one, other = (pair.chosen, pair.rejected) if chosen else (pair.rejected, pair.chosen)
    if pairwise:
        return await scorer.ask(Question(pair.prompt, (one, other), messages=pair.messages))
    return await scorer.judge(Sample(pair.prompt, one, messages=pair.messages))
