"""When engine pods are replaced: when what their owners asked for changes, and not because the operator did.

A pod template follows from the spec, the installation's settings, and this version of the operator. A new version may
write it differently, ship another door, or name a volume otherwise; replacing thousands of loaded engines for that, at
the hour of an upgrade, is nobody's wish. So the Deployment (of each slot, or
the LeaderWorkerSet) carries, beside the template, what it was made from. As long
as that is the same, the template that runs is kept to the letter (and still put back when somebody changes it), and the
next change of the spec brings the new form. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from genrm_api.names import GROUP, LABEL_SLOT
from genrm_api.rewardmodel import RewardModel

from genrm_operator.observed import DOOR_VOLUME, ENGINE_CONTAINER, PIN_VOLUME
from genrm_operator.settings import Settings
from genrm_operator.tokens import admin_token, token_digest

ANNOTATION_INPUTS: Final = f"{GROUP}/template-inputs"
"""On a Deployment: a digest of what its template was made from."""
ANNOTATION_SEAL: Final = f"{GROUP}/template-seal"
"""On a Deployment: proves that both were written by the operator, so that nobody's edit of them is kept as ours."""
ANNOTATION_TEMPLATE: Final = f"{GROUP}/template"
"""On a Deployment: the template as it was made, JSON."""

DOOR_PROTOCOL: Final = 1
"""Raised when the operator can no longer speak to the doors of the version before the last: these are replaced."""

_TEMPLATES: Final[Mapping[str, str]] = {"Deployment": "template", "LeaderWorkerSet": "leaderWorkerTemplate"}
"""Where in the spec of a child of this kind it says what its pods are."""

_NOT_IN_THE_TEMPLATE: Final = frozenset({"replicas", "lifecycle", "scoring", "access", "rollout", "routing"})
"""Fields of the spec that change nothing in a running pod."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a Deployment says of its own template."""

    inputs: str
    template: str
    seal: str

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Self | None:
        notes = deployment["metadata"].get("annotations") or {}
        try:
            return cls(notes[ANNOTATION_INPUTS], notes[ANNOTATION_TEMPLATE], notes[ANNOTATION_SEAL])
        except KeyError:
            return None

    @classmethod
    def make(cls, made_from: str, template: Mapping[str, Any], key: bytes) -> Self:
        text = json.dumps(template, separators=(",", ":"))
        return cls(made_from, text, _seal(made_from, text, key))

    def holds(self, made_from: str, key: bytes) -> bool:
        """Whether it is ours, and made from the same."""
        return self.inputs == made_from and hmac.compare_digest(self.seal, _seal(self.inputs, self.template, key))

    def stands(self, made_from: str, there: Collection[str], key: bytes) -> bool:
        """Whether nothing speaks against its template: what it mounts is there too."""
        return self.holds(made_from, key) and _mounted(json.loads(self.template)) <= set(there)

    def annotations(self) -> dict[str, str]:
        return {ANNOTATION_INPUTS: self.inputs, ANNOTATION_TEMPLATE: self.template, ANNOTATION_SEAL: self.seal}


def _seal(made_from: str, template: str, key: bytes) -> str:
    return hmac.new(key, f"template\0{made_from}\0{template}".encode(), hashlib.sha256).hexdigest()[:32]


def inputs(rm: RewardModel, image: str, settings: Settings) -> str:
    """Digest of all that somebody asked for and that the template depends on.

    Only what differs from its default counts, so that a field which a new version adds changes no digest.
    """
    spec = rm.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    asked = {name: value for name, value in spec.items() if name not in _NOT_IN_THE_TEMPLATE}
    token = token_digest(admin_token(settings.master_key, rm.namespace, rm.name, rm.metadata["uid"]))
    whole = {"spec": asked, "image": image, "token": token, "door": DOOR_PROTOCOL}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def engine_image(manifests: Sequence[Mapping[str, Any]]) -> str:
    """The image that the engines would run: of all settings, the one that a platform team changes to have a rollout."""
    images = (c["image"] for m in manifests for c in _containers(m) if c["name"] == ENGINE_CONTAINER)
    return str(next(images, ""))


def settle(
    manifests: Sequence[Mapping[str, Any]],
    made_from: str,
    kept: Mapping[str, Kept],
    there: Collection[str],
    key: bytes,
    arrived: Collection[str] = (),
    *,
    pinned: bool = False,
) -> list[dict[str, Any]]:
    """Put the templates that run in the place of those that this version would write, where nobody asked for a change.

    Args:
        manifests: all children as this version would make them.
        made_from: `inputs` of now.
        kept: what the Deployments that exist say, by name.
        there: names of the ConfigMaps that exist. A template whose ConfigMap is gone cannot be kept.
        key: the operator's master key, for the seal.
        arrived: names of the Deployments of slots whose pods run, as these Deployments now want them.
        pinned: a run is under way, and is scored by what runs now, whatever anybody asks for.

    Returns:
        The children to apply. ConfigMaps that no template mounts are left out.
    """
    settled = [dict(manifest) for manifest in manifests]
    deployments = [manifest for manifest in settled if manifest["kind"] in _TEMPLATES]
    new = {m["metadata"]["name"] for m in settled if m["kind"] == "ConfigMap"}
    wanted: set[str] = set()
    waiting = _waiting(deployments, made_from, kept, there, key, arrived)
    for deployment in deployments:
        name, spec, where = deployment["metadata"]["name"], dict(deployment["spec"]), _TEMPLATES[deployment["kind"]]
        before = kept.get(name)
        if not any(container["name"] == ENGINE_CONTAINER for container in _containers(deployment)):
            wanted |= _mounted(spec[where])
            continue  # a router is replaced in a second, and nothing is lost with it
        own = Kept.make(made_from, spec[where], key)
        wanted_inputs = before.inputs if before is not None and (pinned or name in waiting) else made_from
        if before is not None and before.stands(wanted_inputs, there, key):
            own, spec[where] = before, json.loads(before.template)
        metadata = deployment["metadata"]
        notes = {**metadata.get("annotations", {}), **own.annotations()}
        deployment |= {"spec": spec, "metadata": {**metadata, "annotations": notes}}
        wanted |= _mounted(spec[where], DOOR_VOLUME, PIN_VOLUME)
    unused = new - wanted
    return [m for m in settled if m["kind"] != "ConfigMap" or m["metadata"]["name"] not in unused]


def waits(manifests: Sequence[Mapping[str, Any]], made_from: str) -> bool:
    """Whether some of these children still run what was asked for before."""
    return any(kept.inputs != made_from for manifest in manifests if (kept := Kept.of(manifest)) is not None)


def _waiting(
    deployments: Sequence[Mapping[str, Any]],
    made_from: str,
    kept: Mapping[str, Kept],
    there: Collection[str],
    key: bytes,
    arrived: Collection[str],
) -> set[str]:
    """Slots that stay as they are for now, because a change is under way in another one of the same model.

    A Deployment replaces its own pods one by one, and of several nobody would. So a slot whose pod runs is changed only
    when those of all others run; where none runs, nothing is lost by a change.
    """
    slots = [d["metadata"]["name"] for d in deployments if _is_slot(d) and d["spec"]["replicas"]]
    run = [n for n in slots if n in arrived and n in kept and kept[n].stands(kept[n].inputs, there, key)]
    to_change = [name for name in run if kept[name].inputs != made_from]
    return set(to_change[1:] if len(run) == len(slots) else to_change)


def _is_slot(deployment: Mapping[str, Any]) -> bool:
    return LABEL_SLOT in (deployment["spec"].get("selector") or {}).get("matchLabels", {})


def has_arrived(deployment: Mapping[str, Any]) -> bool:
    """Whether this is a slot's, and its pod runs as it now wants it."""
    meta, status = deployment["metadata"], deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1) if _is_slot(deployment) else 0
    seen = status.get("observedGeneration") == meta.get("generation")
    return wanted > 0 and seen and status.get("updatedReplicas", 0) == status.get("availableReplicas", 0) == wanted


def _containers(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if manifest["kind"] not in _TEMPLATES:
        return ()
    containers: Sequence[Mapping[str, Any]] = _front(manifest["spec"][_TEMPLATES[manifest["kind"]]])["containers"]
    return containers


def _front(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec of the pod that answers: of a group of pods, the one that leads it."""
    spec: Mapping[str, Any] = template.get("leaderTemplate", template)["spec"]
    return spec


def _mounted(template: Mapping[str, Any], *volumes: str) -> set[str]:
    """The ConfigMaps of ours that a template mounts: the door's, without which no pod starts, or those of `volumes`."""
    return {
        volume["configMap"]["name"]
        for volume in _front(template).get("volumes") or ()
        if volume["name"] in (volumes or (DOOR_VOLUME,)) and "configMap" in volume
    }
