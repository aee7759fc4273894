"""A response without siblings, where scores come of comparing: `spec.scoring.alone`.

Validation asks for one response a prompt, as a rule, and one response has nobody to be compared with. The spec names a
text of the data set that it meets, and its score is the chance that it is preferred: the mean over the data set is the
win rate against that text. Or the model is asked about the response by itself. Groups of several know nothing of it:
who wants the text in all of them names it as `anchor`, which stands in here too where `alone` is absent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from genrm_api.comparing import DEFAULT_JUDGE, Aggregate, Anchor, Order, ScoringMode, Versus
from genrm_api.scoring import Scoring

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.failure import NO_POLICY, settle
from genrm_scoring.scorer import Scorer, score_of
from genrm_scoring.tournaments.anchor import anchor_text
from genrm_scoring.types import Judgement, Outcome, Sample, Score, ScoreSource

Own = Callable[[Sample], Awaitable[Judgement]]
"""Asks about one response by itself. Never raises for a judgement that fails."""
_NOBODY: Final = "one response alone: there is nobody to compare it with; write spec.scoring.alone"


def own_of(scoring: Scoring, scorer: Scorer) -> Own | None:
    """What asks about a response by itself, if `scoring` wants that of one that is alone.

    Sampling, votes and deadline are those of `scoring`; the form of the answer (`structured`) is not, which is of the
    judge that compares. Votes at temperature 0, which differ by the order of what is compared, would all be one here.
    """
    if scoring.alone is None or scoring.alone.vs is not Versus.POINTWISE:
        return None
    one = Scoring(
        mode=ScoringMode.POINTWISE,
        judge=scoring.alone.judge or DEFAULT_JUDGE,
        sampling=scoring.sampling.model_copy(update={"structured": None}),
        votes=None if scoring.sampling.temperature == 0 else scoring.votes,
        timeout=scoring.timeout,
    )
    return scorer.asking(one).judge


@dataclass(frozen=True, slots=True)
class Single:
    """What becomes of a response that is alone in its group; `own` as `own_of` makes it."""

    scoring: Scoring
    own: Own | None = None

    def __post_init__(self) -> None:
        alone = self.scoring.alone
        if alone is not None and alone.vs is Versus.POINTWISE and self.own is None:
            raise TypeError("spec.scoring.alone.vs: pointwise needs somebody to ask about one response; see own_of")

    @property
    def rules(self) -> Scoring:
        """How it is compared: both ways round, because one pair cannot be balanced and must not be told by who came
        first; and by the win rate on its own scale, because what a rule or a scale makes of a group says nothing of one
        pair."""
        kept = {"order": Order.BOTH, "aggregate": Aggregate.WINRATE, "schedule": None, "normalise": None}
        return self.scoring.model_copy(update={**kept, "compat": None})

    def opponent(self, sample: Sample) -> Sample | None:
        """Whom it meets; None if it meets nobody: then `score`.

        Raises:
            ConfigurationError: the data set has no text for the anchor.
        """
        found = self._opponent(sample)
        return found if isinstance(found, Sample) else None

    async def score(self, sample: Sample) -> Sequence[Score]:
        """Of a response that meets nobody, as the group that it is.

        Raises:
            FailureRaised
        """
        if self.own is not None:
            found = score_of(await self.own(sample), NO_POLICY)
        else:
            found = Score(None, Outcome.SKIPPED, ScoreSource.DROPPED, detail=str(self._opponent(sample)))
        return settle([found], self.scoring.on_failure)

    def _opponent(self, sample: Sample) -> Sample | str:
        """Whom it meets, or why nobody."""
        alone, anchor = self.scoring.alone, self.scoring.anchor
        if alone is None:
            return _NOBODY if anchor is None else met(anchor, sample)
        if alone.vs is Versus.POINTWISE:
            return "one response alone is looked at by itself"
        try:
            return met(Anchor(alone.vs), sample, "spec.scoring.alone.vs")
        except ConfigurationError as e:
            return str(e)


def met(anchor: Anchor, sample: Sample, field: str = "spec.scoring.anchor") -> Sample:
    """The anchor's text as a response to the same prompt.

    Raises:
        ConfigurationError: the data set does not have it.
    """
    return replace(sample, response=anchor_text(anchor, sample, field))
