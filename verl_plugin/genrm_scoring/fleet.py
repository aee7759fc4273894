"""Carrying out a RewardFleet: every term is asked for the samples whose gate lets it, then all is mixed (`mixing`).

Terms are asked at the same time. One with a gate waits for its rule, and for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from genrm_api.terms import Term

from genrm_scoring.errors import GenrmError
from genrm_scoring.mixing import Mixture, Running, mix
from genrm_scoring.sources import Source
from genrm_scoring.types import Sample, Score

Begun = asyncio.Future[Score | None]
"""What a term comes to for one sample; None if its gate is closed."""


async def wanted(begun: Begun) -> Score:
    """Of a sample whose gate is open."""
    score = await asyncio.shield(begun)
    assert score is not None, "a gate is decided by the rule's score alone, whoever asks"
    return score


class FleetScorer:
    """Itself a `Source`. Belongs to one event loop.

    Args:
        sources: by the name of the term; closed with it.
        running: states of running normalisation to go on from; `running` are those of now.
    """

    def __init__(
        self, mixture: Mixture, sources: Mapping[str, Source], running: Mapping[str, Running] | None = None
    ) -> None:
        self.mixture = mixture
        self.sources = sources
        self.running: Mapping[str, Running] = dict(running or {})

    async def scores(
        self, samples: Sequence[Sample], *, learn: bool = True, begun: Mapping[str, Sequence[Begun]] | None = None
    ) -> Sequence[Score]:
        """
        Args:
            samples: the responses to one prompt.
            learn: whether their numbers enter running normalisation; not in validation.
            begun: terms that have been asked already, with what comes of it for each sample.

        Raises:
            FailureRaised: a failure under policy raise.
            ConfigurationError: a rule's worker does not start.
        """
        known: list[dict[str, Score]] = [{} for _ in samples]
        ended = {term.name: asyncio.Event() for term in self.mixture.terms}
        begun = begun or {}

        async def ask(term: Term) -> None:
            if term.gate is not None:
                await ended[term.gate.term].wait()
            places = [place for place, scores in enumerate(known) if term.name in self.mixture.open(scores)]
            if (coming := begun.get(term.name)) is not None:
                found: Sequence[Score] = [await wanted(coming[place]) for place in places]
            else:
                found = await self.sources[term.name].scores([samples[place] for place in places]) if places else ()
            for place, score in zip(places, found, strict=True):
                known[place][term.name] = score
            ended[term.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for term in self.mixture.terms:
                    group.create_task(ask(term))
        except* GenrmError as failed:
            raise failed.exceptions[0] from None
        mixed = mix(self.mixture, known, self.running, learn=learn)
        self.running = mixed.running
        return mixed.scores

    def step_ended(self) -> None:
        """What was scored since the last call is now what later scores are normalised by."""
        self.running = self.mixture.step_ended(self.running)

    async def close(self) -> None:
        await asyncio.gather(*(source.close() for source in self.sources.values()))
