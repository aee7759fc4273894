"""`spec.podTemplate` laid over the pod that we make.

Maps are merged, lists by the keys that Kubernetes merges them by, other lists replaced; null takes away what we set.
The parts on which the door, the verdict "alive" and the Services rest are ours: an overlay that touches them is refused
with a sentence, because a pod that came up without its door would be open to everybody.
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_api.pods import RESERVED_ENV_PATTERN, PodTemplate
from genrm_api.rewardmodel import TOKEN_ENV

from genrm_operator.engines.adapter import DOOR_MOUNT, MODEL_MOUNT
from genrm_operator.errors import Impossible
from genrm_operator.observed import ENGINE_CONTAINER

_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "tolerations": ("key", "operator", "value", "effect"),
    "hostAliases": ("ip",),
    "resourceClaims": ("name",),
    "readinessGates": ("conditionType",),
    "schedulingGates": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_OPTIONAL_KEYS: Final = {"protocol": "TCP", "key": "", "operator": "Equal", "value": "", "effect": ""}
_DEEP: Final = ("containers", "initContainers")
"""Whose items are merged. Items of other lists are replaced whole: a variable has one source, a volume one kind."""

_TYPED: Final = ("serviceAccountName", "imagePullSecrets", "schedulerName", "priorityClassName")
_ENGINE_PARTS: Final[Mapping[str, str]] = {
    "image": "write spec.engine.image",
    "command": "remove it; a server of your own is spec.engine.name: custom",
    "args": "write spec.engine.args",
    "envFrom": "write spec.env with valueFrom",
    "ports": "remove it; the engine listens where the Services expect it",
    "startupProbe": "remove it; the operator asks the door whether the engine lives",
    "readinessProbe": "remove it; the operator asks the door whether the engine lives",
    "livenessProbe": "remove it; the operator asks the door whether the engine lives",
}
_DRAINED_PARTS: Final[Mapping[str, str]] = {
    "lifecycle": "remove it; the pod closes its door and waits for those inside before it ends",
}
_OUR_VOLUMES: Final = {
    "door": "the door's code",
    "door-run": "the door's own",
    "weights-pin": "where the pod finds which weights to use",
    "model": "the weights of spec.model.uri",
}


def lay_over(template: Mapping[str, Any], overlay: PodTemplate, *, token_is_typed: bool) -> dict[str, Any]:
    """Return `template` with the overlay merged into it.

    Raises:
        Impossible: it takes a part that is not its own, or a list has no merge key.
    """
    out = copy.deepcopy(dict(template))
    if overlay.metadata is not None:
        for field, ours in (("labels", out["metadata"].get("labels")), ("annotations", None)):
            given: Mapping[str, str] = getattr(overlay.metadata, field) or {}
            if given:
                out["metadata"][field] = {**given, **(ours or {})}
    if overlay.spec is not None:
        drained = any("lifecycle" in container for container in out["spec"]["containers"])
        _refuse_ours(overlay.spec, token_is_typed, drained)
        out["spec"] = _merge(out["spec"], overlay.spec, "spec.podTemplate.spec")
    return out


def _refused(where: str, advice: str) -> Impossible:
    return Impossible("PodTemplateRefused", f"{where}: {advice}")


def _refuse_ours(spec: Mapping[str, Any], token_is_typed: bool, drained: bool) -> None:
    root = "spec.podTemplate.spec"
    for field in _TYPED:
        if field in spec:
            raise _refused(f"{root}.{field}", f"found; write spec.{field}")
    if "serviceAccount" in spec:
        raise _refused(f"{root}.serviceAccount", "found; write spec.serviceAccountName")
    if drained and "terminationGracePeriodSeconds" in spec:
        raise _refused(
            f"{root}.terminationGracePeriodSeconds",
            "found; write spec.lifecycle.sleep.drainTimeout, it follows from it",
        )
    for volume in _items(spec, "volumes", root):
        if (what := _OUR_VOLUMES.get(str(volume.get("name")))) is not None:
            raise _refused(f"{root}.volumes[{volume['name']}]", f"is {what}; use another name")
    for container in _items(spec, "containers", root):
        if container.get("name") != ENGINE_CONTAINER:
            continue
        where = f"{root}.containers[{ENGINE_CONTAINER}]"
        for field, advice in {**_ENGINE_PARTS, **(_DRAINED_PARTS if drained else {})}.items():
            if field in container:
                raise _refused(f"{where}.{field}", f"found; {advice}")
        for variable in _items(container, "env", where):
            name = str(variable.get("name"))
            if re.fullmatch(RESERVED_ENV_PATTERN, name):
                raise _refused(f"{where}.env[{name}]", "is reserved for the operator; remove it")
            if token_is_typed and name == TOKEN_ENV:
                raise _refused(f"{where}.env[{name}]", "is set by spec.model.credentialsSecretRef; remove one of them")
        for mount in _items(container, "volumeMounts", where):
            if _touches(path := str(mount.get("mountPath"))):
                raise _refused(f"{where}.volumeMounts[{path}]", "hides the door or the weights; use another mountPath")


def _touches(path: str) -> bool:
    """Whether a mount at `path` lies on, above or below one of ours."""
    there = "/" + posixpath.normpath(path).strip("/") + "/"
    there = there.replace("//", "/")
    return any(f"{ours}/".startswith(there) or there.startswith(f"{ours}/") for ours in (DOOR_MOUNT, MODEL_MOUNT))


def _items(holder: Mapping[str, Any], field: str, where: str) -> Sequence[Mapping[str, Any]]:
    found = holder.get(field, [])
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise _refused(f"{where}.{field}", f"found {found!r}; write a list of maps, of entries to add or to change")
    return found


def _merge(ours: Any, theirs: Any, where: str, field: str = "") -> Any:
    if field in _MERGE_KEYS:
        return _merge_list(ours or [], _items({field: theirs}, field, where), where, field)
    if not isinstance(theirs, Mapping):
        if isinstance(ours, Mapping):
            raise _refused(f"{where}.{field}".rstrip("."), f"found {theirs!r}; write a map")
        return theirs
    out = dict(ours) if isinstance(ours, Mapping) else {}
    inside = f"{where}.{field}".rstrip(".")
    for key, value in theirs.items():
        if value is None and key not in _MERGE_KEYS:
            out.pop(key, None)
        else:
            out[key] = _merge(out.get(key), value, inside, key)
    return out


def _merge_list(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], where: str, field: str
) -> list[Any]:
    keys = _MERGE_KEYS[field]

    def identity(item: Mapping[str, Any]) -> tuple[Any, ...]:
        found = tuple(item.get(key, _OPTIONAL_KEYS.get(key)) for key in keys)
        if any(part is None for part in found):
            raise _refused(f"{where}.{field}", f"an entry has no {' and '.join(keys)}; write it")
        return tuple(map(str, found))

    out = {identity(item): dict(item) for item in ours}
    seen: set[tuple[Any, ...]] = set()
    for item in theirs:
        who = identity(item)
        if who in seen:
            raise _refused(f"{where}.{field}", f"{who[0]} is there twice; write it once")
        seen.add(who)
        merged = _merge(out.get(who), item, f"{where}.{field}[{who[0]}]") if field in _DEEP else dict(item)
        out[who] = merged
    return list(out.values())
