"""What the engine containers of a model run, by digest: a tag moves, and a node keeps what it has. Pure.

Engines of two images compute two rewards. Nobody is kept out of service for it: two runtimes may call one image by two
digests, the one that was pulled and the one that was imported. It is told; what they compute is the canary's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genrm_operator.observed import Pod


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
