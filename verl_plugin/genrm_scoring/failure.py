"""What failed scores mean for the samples of a group; pure.

A score that failed has no number. The policy says what that means: the sample is dropped, its whole group is, somebody
wrote a number down for it, it gets the mean of its siblings, or the run stops. Frameworks compute advantages over what
is left of a group, and give a lone survivor its raw score as advantage: so a group that lost too many is dropped whole.

Every score that leaves here either has a number that somebody gave or wrote down, or says that it has none and why.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from genrm_api.judging import FailurePolicy, OnFailure

from genrm_scoring.errors import FailureRaised
from genrm_scoring.types import Score, ScoreSource

NO_POLICY: Final = OnFailure(policy=FailurePolicy.DROP)
"""For a score about which somebody else decides later."""


def survivors_needed(n: int) -> int:
    """How many of a group of `n` must keep a number for it to be trained on: half of them, rounded up, and two."""
    return max(2, math.ceil(n / 2))


def settle(group: Sequence[Score], on_failure: OnFailure, failed: Collection[int] | None = None) -> tuple[Score, ...]:
    """The group after the policy was applied to what failed in it, in the same order.

    Args:
        group: the scores of all responses to one prompt.
        failed: places in the group that the policy is for; all that have no number, if not given.

    Raises:
        FailureRaised: a score failed under policy raise.
    """
    if failed is None:
        failed = [place for place, score in enumerate(group) if score.value is None]
    if not failed:
        return tuple(group)
    first = group[min(failed)]
    settled = list(group)
    match on_failure.policy:
        case FailurePolicy.RAISE:
            raise FailureRaised("a score", first.outcome, first.detail)
        case FailurePolicy.GROUP_DROP:
            return drop_group(group, f"a response to the same prompt ended as {first.outcome}, policy group_drop")
        case FailurePolicy.VALUE:
            for place in failed:
                settled[place] = replace(group[place], value=on_failure.value, source=ScoreSource.POLICY)
        case FailurePolicy.GROUP_MEAN:
            own = [score.value for score in group if score.value is not None and score.source.is_own]
            for place in failed if own else ():
                settled[place] = replace(group[place], value=mean(own), source=ScoreSource.POLICY)
    return tuple(settled)


def whole_enough(group: Sequence[Score]) -> tuple[Score, ...]:
    """The group as it is, or without any number if the drops in it left too few."""
    left = sum(score.value is not None for score in group)
    needed = survivors_needed(len(group))
    if left == len(group) or left == 0 or left >= needed:
        return tuple(group)
    return drop_group(group, f"only {left} of {len(group)} responses to this prompt kept a score, fewer than {needed}")


def drop_group(group: Sequence[Score], why: str) -> tuple[Score, ...]:
    """Nobody of the group has a number; who failed stays dropped for its own reason."""
    return tuple(
        score
        if score.source is ScoreSource.DROPPED
        else replace(score, value=None, source=ScoreSource.GROUP_DROPPED, detail=why)
        for score in group
    )


def mean(values: Sequence[float]) -> float:
    """The same in every order of the values, and never too large for a float."""
    return math.fsum(value / len(values) for value in values)
