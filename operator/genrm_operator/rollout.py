"""When engine pods are replaced: when what their owners asked for changes, and not because the operator did.

A pod template follows from the spec, the installation's settings, and this version of the operator. A new version may
write it differently, ship another door, or name a volume otherwise; replacing thousands of loaded engines for that, at
the hour of an upgrade, is nobody's wish. So the Deployment carries, beside the template, what it was made from. As long
as that is the same, the template that runs is kept to the letter (and still put back when somebody changes it), and the
next change of the spec brings the new form. Pure.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from genrm_api.names import GROUP
from genrm_api.rewardmodel import RewardModel

from genrm_operator.engines.adapter import ENGINE_CONTAINER
from genrm_operator.observed import DOOR_VOLUME, PIN_VOLUME
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
    there: Collection[tuple[str, str]],
    key: bytes,
) -> list[dict[str, Any]]:
    """Put the templates that run in the place of those that this version would write, where nobody asked for a change.

    Args:
        manifests: all children as this version would make them.
        made_from: `inputs` of now.
        kept: what the Deployments that exist say, by name.
        there: (kind, name) of the children that exist. A template whose ConfigMap is gone cannot be kept.
        key: the operator's master key, for the seal.

    Returns:
        The children to apply. ConfigMaps that no template mounts are left out.
    """
    settled = [copy.deepcopy(dict(manifest)) for manifest in manifests]
    deployments = [manifest for manifest in settled if manifest["kind"] == "Deployment"]
    new = {m["metadata"]["name"] for m in settled if m["kind"] == "ConfigMap"}
    wanted: set[str] = set()
    for deployment in deployments:
        spec, before = deployment["spec"], kept.get(deployment["metadata"]["name"])
        if not any(container["name"] == ENGINE_CONTAINER for container in _containers(deployment)):
            wanted |= _mounted(spec["template"])
            continue  # a router is replaced in a second, and nothing is lost with it
        if (
            before is not None
            and before.holds(made_from, key)
            and _mounted(json.loads(before.template)) <= _maps(there)
        ):
            spec["template"] = json.loads(before.template)
        own = Kept.make(made_from, spec["template"], key)
        deployment["metadata"].setdefault("annotations", {}).update(own.annotations())
        wanted |= _mounted(spec["template"], DOOR_VOLUME, PIN_VOLUME)
    unused = new - wanted
    return [m for m in settled if m["kind"] != "ConfigMap" or m["metadata"]["name"] not in unused]


def _containers(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if manifest["kind"] != "Deployment":
        return ()
    containers: Sequence[Mapping[str, Any]] = manifest["spec"]["template"]["spec"]["containers"]
    return containers


def _mounted(template: Mapping[str, Any], *volumes: str) -> set[str]:
    """The ConfigMaps of ours that a template mounts: the door's, without which no pod starts, or those of `volumes`."""
    return {
        volume["configMap"]["name"]
        for volume in template["spec"].get("volumes") or ()
        if volume["name"] in (volumes or (DOOR_VOLUME,)) and "configMap" in volume
    }


def _maps(there: Collection[tuple[str, str]]) -> set[str]:
    return {name for kind, name in there if kind == "ConfigMap"}
