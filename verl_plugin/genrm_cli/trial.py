"""Asking judges about pairs: a judge of one response about each, one that compares about both, in both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from genrm_api.comparing import ScoringMode
from genrm_api.judging import Combine
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring
from genrm_scoring.scorer import Scorer
from genrm_scoring.types import Judgement, Question, Sample
from genrm_scoring.votes import combined

from genrm_cli.preferences import Preference
from genrm_cli.verdicts import Trial

AT_ONCE: Final = 64
"""Pairs."""

Ask = Callable[[Preference, str, str], Awaitable[Judgement]]
"""About a response of a pair; the other one comes second where both are asked about."""


async def tried(
    rm: RewardModel, scorer: Scorer, pairs: Sequence[Preference], done: Callable[[], None], at_once: int = AT_ONCE
) -> list[Trial]:
    """`done` is called after each pair."""
    room = asyncio.Semaphore(at_once)
    compares, ask = rm.spec.scoring.mode in (ScoringMode.PAIRWISE, ScoringMode.LISTWISE), _asking(rm, scorer)

    async def one(pair: Preference) -> Trial:
        async with room:
            first, second = await asyncio.gather(
                ask(pair, pair.chosen, pair.rejected), ask(pair, pair.rejected, pair.chosen)
            )
        done()
        return Trial(first, second, compares)

    return list(await asyncio.gather(*map(one, pairs)))


def _asking(rm: RewardModel, scorer: Scorer) -> Ask:
    async def alone(pair: Preference, response: str, _: str) -> Judgement:
        return await scorer.judge(Sample(pair.prompt, response, messages=pair.messages))

    async def both(pair: Preference, first: str, second: str) -> Judgement:
        return await scorer.ask(Question(pair.prompt, (first, second), messages=pair.messages))

    votes = _votes_in_each_order(rm.spec.scoring)

    async def listed(pair: Preference, first: str, second: str) -> Judgement:
        question = Question(pair.prompt, (first, second), messages=pair.messages)
        found = await asyncio.gather(*(scorer.ask_once(question, number) for number in range(votes)))
        return found[0] if votes == 1 else combined(found, Combine.MEAN)

    match rm.spec.scoring.mode:
        case ScoringMode.PAIRWISE:
            return both
        case ScoringMode.LISTWISE:
            return listed
        case _:
            return alone


def _votes_in_each_order(scoring: Scoring) -> int:
    """Of the votes on a list, a run shows every second one in the reverse order of the one before. At temperature 0
    there are no two different ones in one order."""
    count = scoring.votes.count if scoring.votes is not None else 1
    return 1 if scoring.sampling.temperature == 0 else -(-count // 2)
