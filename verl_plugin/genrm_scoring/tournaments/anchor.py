"""A text that plays along and is not trained: the data set's chosen answer, a reference, a baseline's answer.

In a group of n it is player number n. It is judged like the others and helps to place them, and what it comes to is no
reward: it is the yardstick that says how good the policy is, where scores inside a group always have the same mean.

A group of one has no pairs; what it meets is the matter of `genrm_scoring.alone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from genrm_api.comparing import Anchor

from genrm_scoring.conversations import text_in
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.ground_truths import in_words
from genrm_scoring.tournaments.standings import Conflicts, Standings
from genrm_scoring.types import Sample


@dataclass(frozen=True, slots=True)
class Anchored:
    """Standings without the anchor, and what it says of the policy.

    `beats_anchor` is the share of scored responses above the anchor, equal ones by half. Both it and `policy_mean`, the
    mean score of the responses, are None where there is nothing to compare.
    """

    scores: tuple[float | None, ...]
    anchor_score: float | None
    beats_anchor: float | None
    policy_mean: float | None
    conflicts: Conflicts | None


def without_anchor(standings: Standings) -> Anchored:
    """Take the last player, the anchor, out of the standings."""
    *scores, anchor = standings.scores
    scored = [score for score in scores if score is not None]
    above = None if anchor is None else [((score > anchor) - (score < anchor) + 1) / 2 for score in scored]
    return Anchored(
        scores=tuple(scores),
        anchor_score=anchor,
        beats_anchor=fmean(above) if above else None,
        policy_mean=fmean(scored) if scored else None,
        conflicts=standings.conflicts,
    )


def anchor_text(anchor: Anchor, sample: Sample, field: str = "spec.scoring.anchor") -> str:
    """The anchor's text for one prompt; `field` of the spec wants it.

    `chosen` and `baseline` are what the data set says beside, or, as preference data has it, in an object as ground
    truth. A conversation stands for its last message.

    Raises:
        ConfigurationError: the data set does not have it.
    """
    truth = sample.ground_truth
    if anchor is Anchor.REFERENCE:
        found, where = sample.reference or truth, "reward_model.ground_truth"
    else:
        beside = truth if isinstance(truth, Mapping) else {}
        found, where = sample.extra.get(anchor.value, beside.get(anchor.value)), f"extra_info.{anchor}"
    if isinstance(found, list) and found and isinstance(found[-1], Mapping):
        found = text_in(found[-1].get("content"), where)
    if isinstance(found, str) and found:
        return found
    said = "an empty text" if found == "" else in_words(found)
    raise ConfigurationError(
        field, f"{anchor} is wanted, and the data set has {said} as {where}; add the text, or remove it"
    )
