"""The failure policy of one run, in place of those of what it is scored by; pure.

A resource says what a score that failed means for all who are scored by it. One of them may want it otherwise: a first
run that is to stop at whatever fails, a long one that is to go on. It then says so for the score of a sample, whatever
that is made of. In a fleet this takes the place of the fleet's policy and of every term's own: a term's number is not
what the run speaks of, and one that its policy made up would hide from the run's that something has failed. What a
closed gate counts for stays, since a closed gate is no failure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from genrm_api.judging import OnFailure
from genrm_api.rewardfleet import FleetFailure, RewardFleet, RewardFleetSpec
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from genrm_scoring.errors import ConfigurationError

Resource = RewardModel | RewardFleet


def policy_of(written: Any, where: str) -> OnFailure:
    """A run's policy as it was written, in the words of a resource's `onFailure`; `where` names the place.

    Raises:
        ConfigurationError
    """
    if not isinstance(written, Mapping) or "policy" not in written:
        raise ConfigurationError(
            where, f"found {written!r}; write what onFailure is in a resource: {{policy: value, value: -1}}"
        )
    try:
        policy = OnFailure.model_validate(dict(written))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        part, sentence = ".".join(map(str, first["loc"])), first["msg"]
        if not part:  # one of its rules, whose sentence begins with the field
            part, _, sentence = sentence.removeprefix("Value error, spec.scoring.onFailure.").partition(": ")
        elif first["type"] != "extra_forbidden":
            sentence = f"found {first['input']!r}; {sentence[0].lower()}{sentence[1:]}"
        raise ConfigurationError(f"{where}.{part}", sentence) from None
    if policy.value is not None and not math.isfinite(policy.value):  # YAML and Hydra can write such, JSON cannot
        raise ConfigurationError(f"{where}.value", f"found {policy.value}; write a finite number")
    return policy


def under(resource: Resource, policy: OnFailure | None) -> Resource:
    """The resource as a run with this policy is scored by it; without one, as it is."""
    if policy is None:
        return resource
    spec = resource.spec
    if isinstance(spec, RewardFleetSpec):
        of_fleet = FleetFailure(policy=policy.policy, value=policy.value)
        terms = [term.model_copy(update={"on_failure": None}) for term in spec.terms]
        return resource.model_copy(update={"spec": spec.model_copy(update={"on_failure": of_fleet, "terms": terms})})
    scoring = spec.scoring.model_copy(update={"on_failure": policy})
    return resource.model_copy(update={"spec": spec.model_copy(update={"scoring": scoring})})


def policies_of(resource: Resource) -> dict[str, OnFailure]:
    """The resource's own: of the whole score by the name "", of terms by theirs, where they say anything."""
    if isinstance(resource, RewardModel):
        return {"": resource.spec.scoring.on_failure}
    terms = {term.name: term.on_failure for term in resource.spec.terms if term.on_failure is not None}
    return {"": resource.spec.on_failure, **terms}


def written_out(policy: OnFailure) -> dict[str, Any]:
    """As `policy_of` reads it."""
    return policy.model_dump(mode="json", by_alias=True, exclude_none=True)


def in_words(policy: OnFailure) -> str:
    return str(policy.policy) if policy.value is None else f"{policy.policy} {policy.value:g}"
