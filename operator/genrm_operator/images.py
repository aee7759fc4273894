"""What the engine containers of a model run, by digest: a tag moves, and a node keeps what it has. Pure.

Engines of two images compute two rewards. While a run holds a Lease they are those of one: a pod whose tag has come to
mean something else since does not serve before no run does. Without a run it serves, and that is told; what it computes
is the canary's affair. Digests are compared where an image was pulled by one. Of one that was imported a runtime knows
another kind of digest, which says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from genrm_api.effective import effective_spec
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason

from genrm_operator.observed import Pod
from genrm_operator.trouble import Trouble


def pinned(rm: RewardModel, pods: Sequence[Pod], *, run: bool) -> str | None:
    """NAME@DIGEST of the image that those who score a run have had since it came; `None` without one.

    `run`: somebody holds a Lease. What the status says stays for as long as pods ask for an image of this name, and
    through a night without pods.
    """
    if not run or not effective_spec(rm).pin_during_lease:
        return None
    there = [pod for pod in pods if not pod.deleting and not pod.held]
    before = rm.status.pinned.image if rm.status is not None and rm.status.pinned is not None else None
    if before is not None and (not there or any(_is_named(pod, before) for pod in there)):
        return before
    served = (pod for pod in there if pod.serving or pod.verified_boot_id is not None)
    found = {whole for pod in served if (whole := _whole(pod)) is not None}
    return found.pop() if len(found) == 1 else None


def judge(pods: Sequence[Pod], pin: str | None) -> list[Pod]:
    """The pods, with a word on those that must not serve because the run that is under way began with another image."""
    if pin is None:
        return list(pods)
    return [_astray(pod, pin) if _is_moved(pod, pin) else pod for pod in pods]


def _whole(pod: Pod) -> str | None:
    """The name is enough where it holds a digest."""
    if pod.image is None or "@" in pod.image:
        return pod.image
    return f"{pod.image}@{_digest(pod.image_id)}" if pod.image_id is not None and "@" in pod.image_id else None


def _is_named(pod: Pod, pin: str) -> bool:
    return pod.image is not None and pod.image in (pin, pin.rpartition("@")[0])


def _is_moved(pod: Pod, pin: str) -> bool:
    name, _, digest = pin.rpartition("@")
    pulled = pod.image_id is not None and "@" in pod.image_id
    return pulled and pod.image == name and _digest(str(pod.image_id)) != digest


def _astray(pod: Pod, pin: str) -> Pod:
    name, _, digest = pin.rpartition("@")
    why = (
        f"runs {name} as {_digest(str(pod.image_id))}, and the run that holds a Lease is scored by {digest} "
        f"(status.pinned.image): the tag moved; it does not serve before no run holds one; write {pin} in "
        "spec.engine.image, or spec.rollout.pinDuringLease: false to let it serve"
    )
    return dataclasses.replace(pod, astray=True, trouble=pod.trouble or Trouble(Reason.IMAGE_MOVED, why))


def running(pods: Sequence[Pod]) -> str | None:
    """The image of all pods, with its digest; `None` where it is not known yet, or not the same."""
    found = {pod.image_id for pod in pods}
    return found.pop() if len(found) == 1 else None


def moved(pods: Sequence[Pod]) -> str | None:
    """A sentence, where pods that were given the same name of an image run different ones."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for pod in pods:
        if pod.image is not None and pod.image_id is not None:
            by_name.setdefault(pod.image, {}).setdefault(_digest(pod.image_id), []).append(pod.name)
    return next((_sentence(name, found) for name, found in sorted(by_name.items()) if len(found) > 1), None)


def _digest(image_id: str) -> str:
    """Without the repository: it may have come from a mirror."""
    return image_id.rpartition("@")[2]


def _sentence(image: str, found: Mapping[str, Sequence[str]]) -> str:
    who = "; ".join(f"{digest}: {', '.join(sorted(names))}" for digest, names in sorted(found.items()))
    return (
        f"spec.engine.image: {image} is not the same in all pods ({who}), so that they may give different scores; "
        "write one of the digests in place of the tag"
    )
