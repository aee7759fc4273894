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


def settle(
    manifests: list[dict[str, Any]], before: list[dict[str, Any]], made_from: str = "a", *, pinned: bool = False
) -> list[dict[str, Any]]:
    """What is applied when `before` is what exists."""
    there = {m["metadata"]["name"] for m in before if m["kind"] == "ConfigMap"}
    kept = {m["metadata"]["name"]: k for m in before if m["kind"] == "Deployment" and (k := Kept.of(m))}
    return rollout.settle(manifests, made_from, kept, there, KEY, pinned=pinned)


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


def test_a_change_waits_while_it_is_pinned_and_comes_when_it_is_free() -> None:
    first = settle(written("old", "--old"), [], "a")
    assert not rollout.waits(first, "a")
    asked = written("new", "--new")
    asked[1]["spec"]["replicas"] = 5
    pinned = settle(asked, first, "b", pinned=True)
    assert template(pinned) == template(first) and rollout.waits(pinned, "b")
    assert next(m for m in pinned if m["kind"] == "Deployment")["spec"]["replicas"] == 5, "more of the same may come"
    assert settle(asked, [*first[:1], *pinned], "b", pinned=True)[0] == pinned[0], "nothing to write"
    free = settle(written("new", "--new"), [*first[:1], *pinned], "b")
    assert template(free) != template(first) and not rollout.waits(free, "b")


def test_what_was_never_made_is_not_waited_for() -> None:
    made = settle(written("new"), [], "a", pinned=True)
    assert names(made) == ["ConfigMap/judge-door-new", "Deployment/judge", "Service/judge"]
    assert not rollout.waits(made, "a")


def test_a_template_that_somebody_wrote_into_the_deployment_is_not_pinned() -> None:
    first = settle(written("old"), [], "a")
    first[1]["metadata"]["annotations"]["genrm.dev/template"] = first[1]["metadata"]["annotations"][
        "genrm.dev/template"
    ].replace("door-old", "door-evil")
    assert template(settle(written("new"), first, "b", pinned=True)) == template(written("new"))


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
        {"rollout": {"surge": False}},
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


SLOTS = ("a", "b", "c")


def in_slots(arg: str, replicas: int = 1) -> list[dict[str, Any]]:
    """A model with three slots, as the operator writes it."""
    (door, one, _) = written("old", arg)
    made = [door]
    for slot in SLOTS:
        deployment = copy.deepcopy(one)
        deployment["metadata"]["name"] = slot
        deployment["spec"] |= {"replicas": replicas, "selector": {"matchLabels": {"genrm.dev/slot": slot}}}
        made.append(deployment)
    return made


def changed_slots(before: list[dict[str, Any]], arrived: str, replicas: int = 1) -> str:
    """The slots that get the new template when it is asked for while the pods of `arrived` run."""
    there = {m["metadata"]["name"] for m in before if m["kind"] == "ConfigMap"}
    kept = {m["metadata"]["name"]: k for m in before if (k := Kept.of(m)) is not None}
    after = rollout.settle(in_slots("--new", replicas), "asked", kept, there, KEY, set(arrived))
    new = [m for m in after if m["kind"] == "Deployment" and "--new" in str(m["spec"]["template"])]
    held = [m for m in after if m["kind"] == "Deployment" and m not in new]
    assert all(Kept.of(m) == kept[m["metadata"]["name"]] for m in held), "it says what it really runs"
    return "".join(m["metadata"]["name"] for m in new)


@pytest.mark.parametrize(
    ("arrived", "change"),
    [
        pytest.param("abc", "a", id="one at a time"),
        pytest.param("bc", "a", id="one that does not run may be changed, and those that do wait for it"),
        pytest.param("c", "ab", id="all that do not run"),
        pytest.param("", "abc", id="nothing runs"),
    ],
)
def test_the_slots_of_a_model_are_changed_one_after_another(arrived: str, change: str) -> None:
    assert changed_slots(settle(in_slots("--old"), []), arrived) == change


def test_the_next_slot_is_changed_when_the_one_before_runs() -> None:
    before = settle(in_slots("--old"), [])
    there = {m["metadata"]["name"] for m in before if m["kind"] == "ConfigMap"}
    kept = {m["metadata"]["name"]: k for m in before if (k := Kept.of(m)) is not None}
    (_, first, *_) = rollout.settle(in_slots("--new"), "asked", kept, there, KEY, SLOTS)
    mixed = [before[0], first, *before[2:]]
    assert changed_slots(mixed, "bc") == "a", "it is under way"
    assert changed_slots(mixed, "abc") == "ab"


def test_slots_without_pods_are_changed_at_once() -> None:
    assert changed_slots(settle(in_slots("--old"), []), "abc", replicas=0) == "abc"


def test_a_template_that_somebody_else_wrote_does_not_wait() -> None:
    before = settle(in_slots("--old"), [])
    before[2]["metadata"]["annotations"][rollout.ANNOTATION_SEAL] = "forged"
    assert changed_slots(before, "abc") == "b"


@pytest.mark.parametrize(
    ("status", "arrived"),
    [
        ({}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}, True),
        ({"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1}, False),
        ({"observedGeneration": 2, "availableReplicas": 1}, False),
    ],
)
def test_a_slot_has_arrived_when_its_pod_runs_as_it_is_wanted_now(status: dict[str, Any], arrived: bool) -> None:
    selector = {"matchLabels": {"genrm.dev/slot": "a"}}
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 1, "selector": selector}, "status": status}
    assert rollout.has_arrived(deployment) is arrived
    assert not rollout.has_arrived(deployment | {"spec": {"replicas": 1}}), "of others nobody asks"
