"""Writes the CRD manifests from the pydantic models: `python -m genrm_api.crd FOLDER ...`.

Pydantic speaks JSON Schema, the API server wants a *structural* schema: no `$ref`, no `anyOf` around a type, no
`additionalProperties: false` beside properties (unknown fields are pruned, or refused under strict validation),
defaults only where the server shall inject them. `structural` is that translation, and adds every model's rules as CEL.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from genrm_api.names import GROUP, REWARD_FLEETS, REWARD_MODELS, VERSION
from genrm_api.rewardfleet import RewardFleet, RewardFleetSpec, RewardFleetStatus
from genrm_api.rewardmodel import RewardModel, RewardModelSpec, RewardModelStatus
from genrm_api.rules import AnyRule, ApiModel

Column = tuple[str, str, str, int, str]
"""Name, type, JSON path, priority and description of what `kubectl get` shows."""

PRINTER_COLUMNS: Final[tuple[Column, ...]] = (
    ("Phase", "string", ".status.phase", 0, "What the model is doing."),
    ("Awake", "integer", ".status.awake", 0, "Pods verified awake and serving."),
    ("Ready", "integer", ".status.ready", 0, "Pods whose engine lives, asleep or awake."),
    ("Desired", "integer", ".spec.replicas", 0, "Pods asked for."),
    ("Engine", "string", ".status.engine", 0, "Engine and version."),
    ("Last-Wake", "number", ".status.lastWakeSeconds", 0, "Seconds the last wake took."),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
    ("State", "string", ".spec.lifecycle.state", 1, "Auto, Awake, Asleep or Off."),
    ("Model", "string", ".spec.model.uri", 1, "Where the weights are."),
    ("Message", "string", ".status.conditions[?(@.type=='Ready')].message", 1, "Why it is, or is not, Ready."),
)


FLEET_COLUMNS: Final[tuple[Column, ...]] = (
    ("Phase", "string", ".status.phase", 0, "What the fleet is doing."),
    ("Ready", "integer", ".status.ready", 0, "Its reward models that are Ready."),
    ("Models", "integer", ".status.models", 0, "Reward models that its terms name."),
    ("Combine", "string", ".spec.combine", 0, "How terms become one score."),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
    ("Message", "string", ".status.conditions[?(@.type=='Ready')].message", 1, "Why it is, or is not, Ready."),
)


def reward_model_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of RewardModel."""
    names = {"kind": "RewardModel", "plural": REWARD_MODELS, "singular": "rewardmodel", "shortNames": ["rm"]}
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    description = "A reward model that operator and training runs know by name."
    schema = _whole(description, RewardModel.rules, RewardModelSpec, RewardModelStatus)
    return _definition(names, {"status": {}, "scale": scale}, PRINTER_COLUMNS, schema)


def reward_fleet_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of RewardFleet."""
    names = {"kind": "RewardFleet", "plural": REWARD_FLEETS, "singular": "rewardfleet", "shortNames": ["rf"]}
    description = "Reward models, rules and reward APIs that give one score together."
    schema = _whole(description, RewardFleet.rules, RewardFleetSpec, RewardFleetStatus)
    return _definition(names, {"status": {}}, FLEET_COLUMNS, schema)


def _definition(
    names: Mapping[str, Any], subresources: Mapping[str, Any], columns: Sequence[Column], schema: Mapping[str, Any]
) -> dict[str, Any]:
    kind, plural = names["kind"], names["plural"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": names["singular"],
                "shortNames": names["shortNames"],
                "categories": ["genrm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": dict(subresources),
                    "additionalPrinterColumns": [_column(*column) for column in columns],
                    "schema": {"openAPIV3Schema": dict(schema)},
                }
            ],
        },
    }


def _whole(
    description: str, rules: tuple[AnyRule, ...], spec: type[BaseModel], status: type[BaseModel]
) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec) | {"description": "What should exist."},
            "status": structural(status, defaults=False) | {"description": "What exists, written by the operator."},
        },
        **_cel(rules),
    }


def structural(model: type[BaseModel], *, defaults: bool = True) -> dict[str, Any]:
    """The structural OpenAPI v3 schema of `model`, its rules included."""
    schema = model.model_json_schema(by_alias=True)
    types = _rules_by_title(model)
    return _convert(schema, schema.get("$defs", {}), types, defaults)


def _rules_by_title(model: type[BaseModel]) -> dict[str, tuple[AnyRule, ...]]:
    found: dict[str, tuple[AnyRule, ...]] = {}

    def visit(kind: type[ApiModel]) -> None:
        found[kind.__name__] = kind.rules
        for sub in kind.__subclasses__():
            visit(sub)

    visit(ApiModel)
    assert model.__name__ in found, f"{model.__name__} is no ApiModel"
    return found


def _convert(
    node: Mapping[str, Any], defs: Mapping[str, Any], types: Mapping[str, tuple[AnyRule, ...]], defaults: bool
) -> dict[str, Any]:
    node = _without_indirection(node, defs)
    out: dict[str, Any] = {}
    if node.get("type") == "integer" and defaults:
        # A schema takes 2.0 for an integer, and CEL does not: without this the verdict hung on which rules look at it.
        out |= {"x-kubernetes-validations": [{"rule": "self == int(self)", "message": "write it without a point"}]}
    for key, value in sorted(node.items(), key=lambda item: _KEY_ORDER.get(item[0], 5)):
        match key:
            case "properties":
                out[key] = {name: _convert(prop, defs, types, defaults) for name, prop in value.items()}
            case "items":
                out[key] = _convert(value, defs, types, defaults)
            case "additionalProperties":
                if isinstance(value, Mapping):
                    out[key] = _convert(value, defs, types, defaults)
                elif value:  # free below here
                    out["x-kubernetes-preserve-unknown-fields"] = True
            case "ge" | "le":  # how pydantic writes a bound outside of a validator of ours
                out["minimum" if key == "ge" else "maximum"] = value
            case "gt" | "lt":
                out |= _exclusive("minimum" if key == "gt" else "maximum", value)
            case "exclusiveMinimum" | "exclusiveMaximum":  # a number in JSON Schema 2020, a flag in OpenAPI 3.0
                out |= _exclusive(key.replace("exclusiveM", "m"), value)
            case "const":
                out["enum"] = [value]
            case "default":
                if defaults and value is not None:
                    out[key] = value
            case "title":
                if "properties" in node:  # a scalar's title is its own name, which may be that of a type
                    out |= _cel(types.get(value, ()))
            case "$defs":
                pass
            case _:
                out[key] = value
    return out


def _exclusive(bound: str, value: float) -> dict[str, Any]:
    return {bound: value, f"exclusive{bound.title()}": True}


_KEY_ORDER: Final = {"type": 0, "description": 1, "default": 2, "enum": 3, "required": 8, "properties": 9, "title": 10}
"""As people write schemas, so that a diff of the manifest reads well."""


def _without_indirection(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Follow `$ref`, and read `anyOf: [X, null]` as "X, may be left out", which is what an absent field means here."""
    flat = dict(node)
    for _ in range(4):
        if "$ref" in flat:
            target = defs[flat.pop("$ref").rsplit("/", 1)[1]]
            flat = {**target, **{k: v for k, v in flat.items() if k != "title"}}
        elif "anyOf" in flat:
            (only,) = (option for option in flat.pop("anyOf") if option.get("type") != "null")
            flat = {**only, **{k: v for k, v in flat.items() if k not in ("title", "type")}}
    return flat


def _cel(rules: tuple[AnyRule, ...]) -> dict[str, Any]:
    if not rules:
        return {}
    return {"x-kubernetes-validations": [{"rule": r.cel, "messageExpression": r.message} for r in rules]}


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if priority:
        column["priority"] = priority
    return column


def manifests() -> dict[str, str]:
    """File name → text of every generated manifest."""
    header = "# Generated by `make generate` from crds/genrm_api. Do not edit.\n"
    crds = {REWARD_MODELS: reward_model_crd(), REWARD_FLEETS: reward_fleet_crd()}
    return {
        f"{GROUP}_{plural}.yaml": header + yaml.safe_dump(crd, sort_keys=False, width=120, allow_unicode=True)
        for plural, crd in crds.items()
    }


def main(folders: list[str]) -> None:
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in manifests().items():
            (Path(folder) / name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
