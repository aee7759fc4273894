"""A run that begins in the middle of a rollout is scored by pods of one revision, and by no others.

The others rest until the run is over or the rollout replaces them. If some pods of the new revision could serve when
the run came, they score it: the rollout goes on in its course, and brings it more of them. Else those that were there
before do, and the rollout waits for the run. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from genrm_api.effective import effective_spec
from genrm_api.rewardmodel import RewardModel

from genrm_operator.observed import Pod
from genrm_operator.surging import Rolling, Surge


@dataclass(frozen=True, slots=True)
class Choice:
    """Who scores the run that is under way.

    Pods are told apart by their revision. Those of a model with several Deployments, one for each slot, by what these
    were made from: one that another version of the operator made has another revision for the same spec.
    """

    name: str | None = None
    """`None`: everybody may."""
    new: str | None = None
    """What the rollout leads to."""
    names: Mapping[str | None, str] = field(default_factory=dict)
    """Of pods with slots, by revision."""

    @property
    def goes_on(self) -> bool:
        """The rollout does, although a run is under way."""
        return self.name is not None and self.name == self.new

    @property
    def finishes(self) -> str | None:
        """What the change is made from that goes on in one slot after another."""
        return self.new if self.goes_on and self.names else None

    def apply(self, pods: Iterable[Pod]) -> list[Pod]:
        """The pods, with a word on those that are kept from serving."""
        if self.name is None:
            return list(pods)
        return [dataclasses.replace(pod, held=_name(pod, self.names) != self.name) for pod in pods]


EVERYBODY: Final = Choice()


def expected(rm: RewardModel, surge: Surge, pods: Iterable[Pod]) -> int:
    """How many pods there are when all have come that may score: fewer than its replicas where others have taken the
    places of some, and nobody can give these back before the run is over."""
    replicas, there = rm.spec.replicas, [pod for pod in pods if not pod.deleting]
    if not (held := [pod for pod in there if pod.held]):
        return replicas
    if not effective_spec(rm).surges or surge.recreates:
        return max(replicas - len(held), 1)  # nobody comes beside those that are there
    waits = any(pod.revision == surge.revision for pod in held)
    return min(replicas, max(len(there) - len(held), 1)) if waits else replicas


def choose(
    pods: Sequence[Pod], shelf: Mapping[str, Rolling], made_from: str | None, *, run: bool, before: str | None = None
) -> Choice:
    """Who scores a run.

    Args:
        shelf: what the model's Deployments say, or its LeaderWorkerSet; by name.
        made_from: what they would be made from now (`rollout.inputs`).
        run: one is under way that wants one revision.
        before: the revision that scored it until now. It does as long as there is a pod of it, or will be again.
    """
    if not run or not shelf:
        return EVERYBODY
    names: dict[str | None, str] = {}
    if len(shelf) > 1:
        names = {rolling.revision: rolling.inputs or rolling.revision for rolling in shelf.values()}
        new = made_from
    else:
        (rolling,) = shelf.values()
        new = rolling.revision
    there = [pod for pod in pods if not pod.deleting]
    to_come = {names.get(rolling.revision, rolling.revision) for rolling in shelf.values()}
    if before is not None and (was := names.get(before, before)) in {_name(pod, names) for pod in there} | to_come:
        name: str | None = was
    else:
        name = _first(there, new, names)
    return EVERYBODY if {_name(pod, names) for pod in pods} | {name} <= {new} else Choice(name, new, names)


def _first(there: Sequence[Pod], new: str | None, names: Mapping[str | None, str]) -> str | None:
    """Who scores a run that nobody has scored yet."""
    serving = {_name(pod, names) for pod in there if pod.serving}
    joined = {_name(pod, names) for pod in there if pod.passed or (pod.ready and not pod.gated)}
    some = serving or joined
    if new in some or not some:
        return new
    proven = some & {_name(pod, names) for pod in there if pod.may_have_scored}
    return min(proven or some)


def _name(pod: Pod, names: Mapping[str | None, str]) -> str:
    return names.get(pod.revision, pod.revision or "")
