"""How a pod is replaced: by one that comes beside it, or, where there is no room for one more, after it has gone.

A surge pod needs GPUs of its own while the old one has its. Whether there are any only the scheduler knows, or a quota,
which say so of the pod that waits. So every rollout begins with a surge, and the old pod serves until the new one does.
Where that one has found no room for a while, and the end of no other pod is in sight that would make some, the
Deployment removes an old pod first, for the rest of this rollout: its annotation names the revision, and so the next
operator goes on with it and the next rollout begins with a surge again. Where room would not help, the old pods stay.

Slots are no affair of this module, nor are engines that span nodes (`children`). Pure.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from genrm_api.effective import EffectiveSpec, effective_spec
from genrm_api.names import ANNOTATION_REVISION, GROUP, deployment_name
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason

from genrm_operator.observed import Pod
from genrm_operator.rollout import ANNOTATION_INPUTS, ANNOTATION_TEMPLATE
from genrm_operator.trouble import Trouble

ANNOTATION_RECREATES: Final = f"{GROUP}/recreates"
"""On a Deployment: the revision whose pods come only as old ones go."""

PATIENCE_SECONDS: Final = 15.0
"""For which a pod may find no room: the scheduler tries again within 10 s after something has changed. The old pods
serve meanwhile."""

END_SECONDS: Final = 60.0
"""What a pod may take to go once nobody is inside. One whose node is gone never does, and nobody waits for that."""

_SURGE: Final[Mapping[str, Any]] = {"maxSurge": 1, "maxUnavailable": 0}
_RECREATE: Final[Mapping[str, Any]] = {"maxSurge": 0, "maxUnavailable": 1}

_NO_HELP: Final = "Preemption is not helpful for scheduling"
_NO_VICTIM: Final = "No preemption victims found"
"""What the scheduler says of nodes that no pod's end would open to the one that waits, and of those of which it cannot
rule that out."""
_QUOTA: Final = "exceeded quota"


@dataclass(frozen=True, slots=True)
class Rolling:
    """What makes engine pods says of them: which revision they should be, and how they become that."""

    revision: str
    recreates: str | None
    inputs: str | None = None
    """What its template was made from (`rollout`)."""

    @classmethod
    def of(cls, owner: Mapping[str, Any]) -> Self | None:
        """Of a Deployment or a LeaderWorkerSet; `None` if its pods are no engines.

        Of a LeaderWorkerSet only the metadata is known, and the template by what the operator has noted there.
        """
        notes = owner["metadata"].get("annotations") or {}
        template = (owner.get("spec") or {}).get("template")
        found = _noted(notes) if template is None else template["metadata"].get("annotations") or {}
        if (revision := found.get(ANNOTATION_REVISION)) is None:
            return None
        return cls(str(revision), notes.get(ANNOTATION_RECREATES), notes.get(ANNOTATION_INPUTS))


@dataclass(frozen=True, slots=True)
class Surge:
    """How a rollout gets on, as of one look."""

    revision: str | None = None
    """What it leads to; `None`: there is none."""
    recreates: bool = False
    """An old pod goes first."""
    begins: bool = False
    """That was decided just now."""
    lacks: str | None = None
    """What is said of a pod that waits for room."""
    since: float = 0.0
    """Monotonic seconds at which it began to wait, with nothing else to wait for than the pods of `ending`."""
    ending: frozenset[str] = frozenset()
    last: bool = False
    """All old pods have gone."""
    look_again_at: float | None = None

    @property
    def says(self) -> str | None:
        """A sentence for the status."""
        why = "" if self.lacks is None else f" ({self.lacks})"
        if self.recreates:
            return f"there is no room for a pod beside the old ones{why}, so each comes after an old one has gone"
        return None if self.lacks is None else f"a pod of the new revision finds no room yet{why}; the old ones stay"

    def look(
        self, rm: RewardModel, shelf: Mapping[str, Rolling], pods: Collection[Pod], refusal: Trouble | None,
        now: float, *, waits: bool = False,
    ) -> Surge:  # fmt: skip
        """What has become of the rollout since this one.

        Args:
            shelf: what the model's Deployments say, by name.
            refusal: why the cluster makes no pods.
            waits: the old pods score a run that is under way, and none of them goes before it is over.
        """
        rolling, effective = shelf.get(deployment_name(rm.name)), effective_spec(rm)
        if rolling is None:
            return NO_ROLLOUT
        if all(pod.revision == rolling.revision for pod in pods):
            return self._end(rolling.revision, pods, now)
        surge = Surge(rolling.revision)
        if not effective.surges:
            return surge
        surge = dataclasses.replace(surge, lacks=_lacks(rolling.revision, pods, refusal))
        if rolling.recreates == rolling.revision:
            return dataclasses.replace(surge, recreates=True)
        if surge.lacks is None:
            return surge
        ending = frozenset(pod.uid for pod in pods if pod.deleting)
        waited = self.revision == rolling.revision and self.lacks is not None and self.ending == ending
        since = self.since if waited else now
        surge = dataclasses.replace(surge, since=since, ending=ending)
        if waits:
            return surge
        due = since + PATIENCE_SECONDS + (effective.lifecycle.drain_timeout + END_SECONDS if ending else 0.0)
        if now < due:
            return dataclasses.replace(surge, look_again_at=due)
        return dataclasses.replace(surge, recreates=True, begins=not self.recreates)

    def _end(self, revision: str, pods: Collection[Pod], now: float) -> Surge:
        """The old pods have gone. Who waits for their room gets it as soon as the scheduler has seen that, too."""
        lacks = _lacks(revision, pods, None)
        if not self.recreates or self.revision != revision or lacks is None:
            return NO_ROLLOUT
        since = self.since if self.last else now
        due = since + PATIENCE_SECONDS
        if now >= due:
            return NO_ROLLOUT
        return Surge(revision, recreates=True, lacks=lacks, since=since, last=True, look_again_at=due)

    def judge(self, pods: Iterable[Pod]) -> list[Pod]:
        """The pods, without a complaint of those that wait for the room of others, which is how a rollout goes."""
        return [dataclasses.replace(pod, trouble=None) if _waits(pod, self.revision) else pod for pod in pods]


NO_ROLLOUT: Final = Surge()


def _noted(notes: Mapping[str, str]) -> Mapping[str, Any]:
    """The annotations of the pods that answer, as they are noted; anybody may have written that."""
    try:
        found = json.loads(notes[ANNOTATION_TEMPLATE])["leaderTemplate"]["metadata"]["annotations"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def strategy(effective: EffectiveSpec) -> dict[str, Any]:
    """How a Deployment replaces its pods when nothing is known of the room that there is."""
    return {"type": "RollingUpdate", "rollingUpdate": dict(_SURGE if effective.surges else _RECREATE)}


def lay(manifests: Iterable[dict[str, Any]], revision: str | None) -> list[dict[str, Any]]:
    """The manifests; a Deployment that leads to this revision removes an old pod first."""
    return [_recreating(m) if revision is not None and _leads_to(m) == revision else m for m in manifests]


def _leads_to(manifest: Mapping[str, Any]) -> str | None:
    rolling = Rolling.of(manifest) if manifest["kind"] == "Deployment" else None
    return None if rolling is None else rolling.revision


def _recreating(deployment: Mapping[str, Any]) -> dict[str, Any]:
    meta, spec = deployment["metadata"], deployment["spec"]
    notes = {**meta.get("annotations", {}), ANNOTATION_RECREATES: _leads_to(deployment)}
    rolls = {"type": "RollingUpdate", "rollingUpdate": dict(_RECREATE)}
    return {**deployment, "metadata": {**meta, "annotations": notes}, "spec": {**spec, "strategy": rolls}}


def _lacks(revision: str, pods: Iterable[Pod], refusal: Trouble | None) -> str | None:
    said = (pod.trouble.message for pod in pods if pod.trouble is not None and _waits(pod, revision))
    quota = refusal.message if refusal is not None and _QUOTA in refusal.message else None
    return next(said, quota)


def _waits(pod: Pod, revision: str | None) -> bool:
    """Whether this new pod has no node, and might find one when another pod has gone."""
    if pod.deleting or pod.trouble is None or pod.trouble.reason != Reason.UNSCHEDULABLE or pod.revision != revision:
        return False
    return _NO_HELP not in pod.trouble.message or _NO_VICTIM in pod.trouble.message
