"""What of a RewardModel this library can score with, and what it must refuse.

The API has a key from the day its meaning is fixed; the code that carries it out may come later. A run whose judge
would be asked in another way than its spec says must not start: scores that look right and mean something else are
worse than none. Nor must one start whose template or pattern cannot work. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from genrm_api.judging import FailurePolicy
from genrm_api.rewardmodel import RewardModel, RewardModelType
from genrm_api.scoring import Normalise, Scoring, ScoringMode

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.judges import pointwise_judge

Sentence = tuple[str, str]
"""The field, below `spec`, and what to say of it."""

_LATER: Final = "is not carried out by this version of the plugin"

_SCORING: Final[Sequence[tuple[str, Callable[[Scoring], object | None], str]]] = (
    ("mode", lambda s: None if s.mode in (None, ScoringMode.POINTWISE) else s.mode, "write pointwise"),
    ("normalise", lambda s: None if s.normalise in (None, Normalise.NONE) else s.normalise, "write none"),
    (
        "onFailure.policy",
        lambda s: None if s.on_failure.policy in (FailurePolicy.DROP, FailurePolicy.VALUE) else s.on_failure.policy,
        "write drop or value",
    ),
)


def unsupported_scoring(scoring: Scoring) -> Sentence | None:
    """The first key of a scoring spec that would not, or could not, be done as it says; `None` if there is none."""
    for key, asked_for, instead in _SCORING:
        if (asked := asked_for(scoring)) is not None:
            return f"scoring.{key}", f"{asked} {_LATER}; {instead}"
    try:
        pointwise_judge(scoring)
    except ConfigurationError as e:
        return e.field, e.sentence
    return None


def unsupported(rm: RewardModel) -> Sentence | None:
    """The first thing that keeps this library from scoring with a model, `None` if there is none."""
    if rm.spec.type is not RewardModelType.GENERATIVE:
        return "type", f"{rm.spec.type} {_LATER}; name a RewardModel of type Generative"
    return unsupported_scoring(rm.spec.scoring)
