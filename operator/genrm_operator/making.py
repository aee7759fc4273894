"""The children that a RewardModel should have now: from its spec, and from what those that are there say of themselves.

Pure but for the cache that it reads, and the same object for as long as nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from genrm_api.effective import effective_spec
from genrm_api.rewardmodel import RewardModel

from genrm_operator import pinning, rollout, surging
from genrm_operator.cache import Cache, Key
from genrm_operator.children import children
from genrm_operator.demand import Demand
from genrm_operator.door_source import door_source
from genrm_operator.engines import Adapter
from genrm_operator.memory import Made, MadeFrom
from genrm_operator.observed import Pod
from genrm_operator.settings import Settings


def made(
    cache: Cache,
    key: Key,
    rm: RewardModel,
    adapter: Adapter,
    settings: Settings,
    before: Made | None,
    wants: Demand,
    *,
    may_run: bool,
    recreates: str | None = None,
    finishes: str | None = None,
) -> Made:
    """What was made last, or anew.

    Args:
        before: what was made last.
        wants: says whether a run is under way; its engines are not replaced then, if the spec does not say otherwise.
        may_run: there may be engine pods: nobody else holds their slots, and somebody may need them.
        recreates: the revision for whose pods old ones have to go first (`surging`).
        finishes: the change that goes on although a run is under way (`one_revision`), as what it is made from.

    Raises:
        Impossible: the spec cannot be carried out.
    """
    out_of = MadeFrom(
        uid=rm.metadata["uid"],
        generation=rm.metadata.get("generation"),
        kept=dict(cache.kept[key]),
        maps=frozenset(name for kind, name in cache.children[key] if kind == "ConfigMap"),
        arrived=frozenset(cache.arrived[key]),
        replicas=rm.spec.replicas,
        may_run=may_run,
        pin=pinning.written(rm),
        pinned=_is_pinned(rm, wants, cache.pods[key].values()),
        recreates=recreates,
        finishes=finishes,
    )
    if before is not None and out_of in before.out_of:
        return before
    manifests = children(rm, adapter, door_source(), settings, may_run=may_run)
    made_from = rollout.inputs(rm, rollout.engine_image(manifests), settings)
    pinned = out_of.pinned and finishes != made_from
    settled = rollout.settle(
        manifests, made_from, out_of.kept, out_of.maps, settings.master_key, out_of.arrived, pinned=pinned
    )
    settled = surging.lay(settled, recreates)
    return Made.of(out_of, settled, made_from, waits=pinned and rollout.waits(settled, made_from))


def _is_pinned(rm: RewardModel, wants: Demand, pods: Iterable[Pod]) -> bool:
    """Whether a run may have been scored by what runs now.

    Engines that never came up have scored nobody, and the run may be waiting for just the change that mends them.
    """
    if not wants.held or not effective_spec(rm).pin_during_lease:
        return False
    if rm.status is not None and rm.status.pinned is not None and rm.status.pinned.revision is not None:
        return True
    there = [pod for pod in pods if not pod.deleting]
    if not there:  # they were taken away for the night
        return rm.status is not None and rm.status.last_wake_seconds is not None
    return any(pod.may_have_scored for pod in there)
