"""When engine pods are replaced: for what somebody asked for, never for a new version of the operator."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator import rollout
from genrm_operator.rollout import Kept
from genrm_operator.settings import Settings

KEY = b"k" * 32
SETTINGS = Settings(master_key=KEY)


def model(spec: dict[str, Any] | None = None, uid: str = "u-1") -> RewardModel:
    whole = {"model": {"uri": "hf://org/judge"}, **(spec or {})}
    meta = {"name": "judge", "namespace": "rl", "uid": uid}
    return RewardModel.model_validate({"metadata": meta, "spec": whole})


def written(door: str, arg: str = "--new", image: str = "vllm:1") -> list[dict[str, Any]]:
    """Children as one version of the operator writes them."""
    template = {
        "spec": {
            "containers": [{"name": "engine", "image": image, "args": [arg]}],
            "volumes": [
                {"name": "cache", "emptyDir": {}},
                {"name": "door", "configMap": {"name": f"judge-door-{door}"}},
            ],
        }
    }
    return [
        {"kind": "ConfigMap", "metadata": {"name": f"judge-door-{door}"}},
        {"kind": "Deployment", "metadata": {"name": "judge"}, "spec": {"replicas": 2, "template": template}},
        {"kind": "Service", "metadata": {"name": "judge"}},
    ]


def settle(manifests: list[dict[str, Any]], before: list[dict[str, Any]], made_from: str = "a") -> list[dict[str, Any]]:
    """What is applied when `before` is what exists."""
    there = {(m["kind"], m["metadata"]["name"]) for m in before}
    kept = {m["metadata"]["name"]: k for m in before if m["kind"] == "Deployment" and (k := Kept.of(m))}
    return rollout.settle(manifests, made_from, kept, there, KEY)


def names(manifests: list[dict[str, Any]]) -> list[str]:
    return [f"{m['kind']}/{m['metadata']['name']}" for m in manifests]


def template(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return next(m["spec"]["template"] for m in manifests if m["kind"] == "Deployment")


def test_a_new_version_keeps_the_template_that_runs_and_the_door_that_it_mounts() -> None:
    first = settle(written("old", "--old"), [])
    assert names(first) == ["ConfigMap/judge-door-old", "Deployment/judge", "Service/judge"]
    upgraded = settle(written("new"), first)
    assert names(upgraded) == ["Deployment/judge", "Service/judge"], "no second door for pods that have one"
    assert template(upgraded) == template(first)
    assert upgraded[0] == first[1], "nothing to write, now and on the next look"
    assert settle(written("newer"), first)[0] == first[1]


def test_what_does_not_run_in_the_pod_follows_at_once() -> None:
    first = settle(written("old"), [])
    scaled = written("new")
    scaled[1]["spec"]["replicas"] = 5
    (deployment, _) = settle(scaled, first)
    assert deployment["spec"]["replicas"] == 5 and template([deployment]) == template(first)


def test_a_change_that_somebody_asked_for_brings_the_new_form() -> None:
    first = settle(written("old", "--old"), [], "a")
    changed = settle(written("new"), first, "b")
    assert names(changed)[0] == "ConfigMap/judge-door-new" and template(changed) == template(written("new"))
    assert settle(written("newer"), [*changed, *first[:1]], "b")[0]["spec"] == changed[1]["spec"]


def pinned(door: str) -> list[dict[str, Any]]:
    """A version that knows of pins, and a model whose weights are known."""
    manifests = written(door)
    pin = {"name": "weights-pin", "configMap": {"name": "judge-weights-1", "optional": True}}
    manifests[1]["spec"]["template"]["spec"]["volumes"].append(pin)
    return [{"kind": "ConfigMap", "metadata": {"name": "judge-weights-1"}}, *manifests]


def test_the_pin_of_the_weights_goes_where_it_is_mounted_and_nobody_waits_for_it() -> None:
    first = settle(pinned("old"), [])
    assert names(first)[0] == "ConfigMap/judge-weights-1"
    without_pin = [m for m in first if m["metadata"]["name"] != "judge-weights-1"]
    kept = settle(pinned("new"), without_pin)
    assert names(kept) == ["ConfigMap/judge-weights-1", "Deployment/judge", "Service/judge"]
    assert template(kept) == template(first), "an optional ConfigMap that is not there is no reason to replace pods"


def test_pods_of_before_there_were_pins_keep_their_template_and_get_none() -> None:
    first = settle(written("old"), [])
    upgraded = settle(pinned("new"), first)
    assert names(upgraded) == ["Deployment/judge", "Service/judge"] and template(upgraded) == template(first)


def test_a_template_whose_door_is_gone_is_not_kept() -> None:
    first = settle(written("old"), [])
    healed = settle(written("new"), first[1:])
    assert names(healed)[0] == "ConfigMap/judge-door-new" and template(healed) == template(written("new"))


@pytest.mark.parametrize("note", [rollout.ANNOTATION_TEMPLATE, rollout.ANNOTATION_INPUTS, rollout.ANNOTATION_SEAL])
@pytest.mark.parametrize("forged", [None, "forged", json.dumps(template(written("old", "--evil")))])
def test_what_somebody_wrote_into_the_notes_is_not_kept(note: str, forged: str | None) -> None:
    first = settle(written("old"), [])
    spoilt = copy.deepcopy(first)
    notes = spoilt[1]["metadata"]["annotations"]
    notes[note] = forged
    if forged is None:
        del notes[note]
    assert template(settle(written("new"), spoilt)) == template(written("new"))


BASE = rollout.inputs(model(), "vllm:1", SETTINGS)


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 7},
        {"lifecycle": {"state": "Awake", "sleep": {"drainTimeout": "5s"}}},
        {"scoring": {"timeout": "9s"}},
        {"engine": {"name": "vllm"}},  # the default, written out
    ],
)
def test_what_needs_no_new_pods(spec: dict[str, Any]) -> None:
    assert rollout.inputs(model(spec), "vllm:1", SETTINGS) == BASE


@pytest.mark.parametrize(
    "other",
    [
        rollout.inputs(model({"model": {"uri": "hf://org/other"}}), "vllm:1", SETTINGS),
        rollout.inputs(model({"engine": {"args": ["--seed=1"]}}), "vllm:1", SETTINGS),
        rollout.inputs(model({"env": [{"name": "A", "value": "1"}]}), "vllm:1", SETTINGS),
        rollout.inputs(model({"gpu": {}}), "vllm:1", SETTINGS),
        rollout.inputs(model(), "vllm:2", SETTINGS),
        rollout.inputs(model(uid="u-2"), "vllm:1", SETTINGS),
        rollout.inputs(model(), "vllm:1", Settings(master_key=b"x" * 32)),  # the pods know the token by its digest
    ],
)
def test_what_needs_new_pods(other: str) -> None:
    assert other != BASE


def test_the_digest_does_not_change_by_accident() -> None:
    """A changed digest replaces every engine of every installation at its next upgrade."""
    spec = {"gpu": {}, "engine": {"tensorParallel": 2, "args": ["--seed=1"]}, "env": [{"name": "A", "value": "1"}]}
    assert rollout.inputs(model(spec), "vllm:1", SETTINGS) == "e7c2eb2242cda5b2"
