"""Which weights the pods of a model serve, who differs, and what is said of host memory and of folders of the node."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from genrm_api.effective import effective_spec, scoring_digest
from genrm_api.leases import DemandLease, Phase, lease_manifest
from genrm_api.names import pin_configmap_name
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import RewardModelStatus
from genrm_operator import pinning, status
from genrm_operator.demand import Demand, Desired
from genrm_operator.lifecycle import Begin, PodState, StopServing, decide, pod_state
from genrm_operator.observed import Door, DoorState, Pod, Weights
from genrm_operator.pinning import Pin

from tests.unit.operator.test_children import container, make
from tests.unit.operator.test_lifecycle import make_door, make_pod

ONE, TWO = "1" * 40, "2" * 40
FOLDER, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
HUB, CLAIM = {"uri": "hf://org/judge"}, {"uri": "pvc://weights/judge"}


def model(weights: dict[str, Any] | None = None, known: dict[str, Any] | None = None, **spec: Any) -> RewardModel:
    whole = {"model": weights or HUB, **spec}
    meta = {"name": "judge", "namespace": "rl", "uid": "u1", "generation": 1}
    return RewardModel.model_validate({"metadata": meta, "spec": whole, "status": known or {}})


def known(revision: str, of: str = "hf://org/judge@main", size: int | None = None) -> dict[str, Any]:
    return {"resolvedRevision": revision, "resolvedModel": of} | ({} if size is None else {"weightBytes": size})


def door(weights: Weights | None) -> Door:
    return Door(DoorState.CLOSED, 0, "b1", False, weights=weights)


def pod(name: str, revision: str | None, rm: RewardModel, size: int | None = None, **changes: Any) -> Pod:
    said = {"door": door(Weights(revision, size)), "pin_map": pinning.config_map(rm), "verified_boot_id": None}
    return make_pod(name=name, uid=name, **{**said, **changes})


# ---------------------------------------------------------------------- what becomes the pin


def test_the_first_pod_that_tells_makes_it_and_it_stays() -> None:
    rm = model()
    assert pinning.settle(rm, []) is None
    first = pinning.settle(rm, [pod("b", TWO, rm), pod("a", ONE, rm, 7)])
    assert first == Pin("hf://org/judge@main", ONE, 7)
    later = model(known=known(ONE, size=7))
    assert pinning.settle(later, []) == pinning.settle(later, [pod("b", TWO, later)]) == first, "pods come and go"


def test_a_pod_that_was_verified_comes_first() -> None:
    rm = model()
    pods = [pod("a", TWO, rm), pod("b", ONE, rm, verified_boot_id="b1")]
    assert pinning.settle(rm, pods) == Pin("hf://org/judge@main", ONE)


@pytest.mark.parametrize(
    "weights", [Weights(None, None), Weights("main", 1), Weights(FOLDER, 1), Weights("--x", 1), None]
)
def test_what_is_no_commit_makes_none(weights: Weights | None) -> None:
    rm = model()
    assert pinning.settle(rm, [pod("a", None, rm, door=door(weights))]) is None


def test_a_commit_in_the_spec_needs_no_pod() -> None:
    rm = model({**HUB, "revision": ONE})
    pin = Pin(f"hf://org/judge@{ONE}", ONE)
    assert pinning.written(rm) == pinning.settle(rm, []) == pin
    assert pinning.settle(rm, [pod("a", ONE, rm, 7)]) == Pin(pin.model, ONE, 7), "its size is told by a pod"
    custom = {"name": "custom", "image": "x", "custom": {"command": ["x"]}}
    assert pinning.written(model({**HUB, "revision": ONE}, engine=custom)) is None, "nobody gives it the commit"


@pytest.mark.parametrize("weights", [{**HUB, "revision": "v2"}, {"uri": "hf://org/other"}])
def test_another_model_begins_anew_and_pods_of_before_have_no_say(weights: dict[str, Any]) -> None:
    before, after = model(), model(weights, known(ONE))
    assert pinning.config_map(before) != pinning.config_map(after)
    old = pod("old", ONE, before, verified_boot_id="b1")
    assert pinning.settle(after, [old]) is None
    pin = pinning.settle(after, [old, pod("new", TWO, after)])
    assert pin is not None and pin.revision == TWO
    assert not any(p.astray for p in pinning.judge(after, [old], pin)), "they go with the rollout, not for this"


def test_a_folder_is_forgotten_when_the_model_is_off_and_a_commit_is_not() -> None:
    told = known(FOLDER, "pvc://weights/judge")
    off = {"lifecycle": {"state": "Off"}}
    assert pinning.settle(model(CLAIM, told), []) == Pin("pvc://weights/judge", FOLDER)
    assert pinning.settle(model(CLAIM, told, **off), []) is None
    leaving = model(CLAIM, told, **off)
    assert pinning.settle(leaving, [pod("a", FOLDER, leaving)]) is not None
    assert pinning.settle(model(None, known(ONE), **off), []) is not None


# ---------------------------------------------------------------------- who differs


@pytest.mark.parametrize("desired", Desired)
@pytest.mark.parametrize("labelled", [False, True])
def test_who_differs_never_gets_verified_nor_serves(desired: Desired, labelled: bool) -> None:
    rm = model(known=known(ONE))
    label = {"serving": True, "labelled_boot_id": "b1", "verified_boot_id": "b1"} if labelled else {}
    (judged,) = pinning.judge(rm, [pod("a", TWO, rm, **label)], pinning.written(rm))
    actions = decide([judged], desired, 0.0, has_door=True).actions
    assert [type(action) for action in actions] == ([StopServing] if labelled else [])
    assert pod_state(judged, has_door=True) is PodState.FAILED
    assert judged.trouble is not None and ONE in judged.trouble.message and TWO in judged.trouble.message


def test_who_agrees_and_who_cannot_tell_does() -> None:
    rm = model(known=known(ONE))
    for fine in (pod("a", ONE, rm), pod("a", None, rm, door=door(None)), pod("a", TWO, rm, pin_map=None)):
        (judged,) = pinning.judge(rm, [fine], pinning.written(rm))
        assert not judged.astray
        (action,) = decide([judged], Desired.AWAKE, 0.0, has_door=True).actions
        assert isinstance(action, Begin)


def test_who_looked_and_found_nothing_differs_on_the_hub_and_not_in_a_folder() -> None:
    hub, claim = model(known=known(ONE)), model(CLAIM, known(FOLDER, "pvc://weights/judge"))
    assert pinning.judge(hub, [pod("a", None, hub)], pinning.written(hub))[0].astray
    assert not pinning.judge(claim, [pod("a", None, claim)], pinning.written(claim))[0].astray


def test_it_is_replaced_when_the_next_one_finds_the_pin() -> None:
    rm = model(known=known(ONE))
    pods = pinning.judge(rm, [pod(name, TWO, rm) for name in "ba"], pinning.written(rm))
    assert pinning.to_delete(rm, pods, []) == [], "nothing would be better for the next one"
    maps = [pinning.config_map(rm)]
    assert [p.name for p in pinning.to_delete(rm, pods, maps)] == ["a", "b"]
    (going,) = pinning.judge(rm, [pod("a", TWO, rm, deleting=True)], pinning.written(rm))
    assert pinning.to_delete(rm, [going], maps) == []


def test_a_folder_that_differs_stays_and_says_what_to_do() -> None:
    rm = model(CLAIM, known(FOLDER, "pvc://weights/judge"))
    (judged,) = pinning.judge(rm, [pod("a", OTHER, rm)], pinning.written(rm))
    assert judged.astray and judged.trouble is not None
    assert judged.trouble.reason == "WeightsDiffer" and "write spec.lifecycle.state: Off" in judged.trouble.message
    assert pinning.to_delete(rm, [judged], [pinning.config_map(rm)]) == []


# ---------------------------------------------------------------------- children and status


def test_the_pin_is_mounted_before_there_is_one_and_is_written_from_the_status() -> None:
    made = make({"model": HUB})
    name = pinning.config_map(model())
    volumes = made["Deployment/judge"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "weights-pin", "configMap": {"name": name, "optional": True}} in volumes
    assert {"name": "weights-pin", "mountPath": "/genrm/pin", "readOnly": True} in container(made)["volumeMounts"]
    assert {"name": "GENRM_PIN_DIR", "value": "/genrm/pin"} in container(made)["env"]
    assert f"ConfigMap/{name}" not in made
    later = make({"model": HUB}, known=known(ONE, size=7))
    assert json.loads(later[f"ConfigMap/{name}"]["data"]["weights.json"]) == {"revision": ONE, "bytes": 7}
    assert later["Deployment/judge"] == made["Deployment/judge"], "and nothing is rolled out for it"


def test_names_of_pins_that_templates_mount_do_not_change() -> None:
    assert pinning.config_map(model()) == "judge-weights-298d436741"
    assert pin_configmap_name("j" * 40, "0" * 64) == "j" * 40 + "-weights-0000000000"


def seen(rm: RewardModel, **more: Any) -> dict[str, Any]:
    demand = Demand(Desired.ASLEEP, "nobody asks", (), (), None)
    nothing: dict[str, Any] = {
        "pods": [], "demand": demand, "has_door": True, "problem": None, "last_error": None,
        "last_wake_seconds": None, "usual_wake_seconds": None, "last_sleep_seconds": None, "engine": None,
    }  # fmt: skip
    return status.compute(rm, status.Seen(**{**nothing, **more}), datetime(2026, 11, 21, tzinfo=UTC))


def test_the_status_tells_it_and_for_what() -> None:
    told = seen(model(), pin=Pin("hf://org/judge@main", ONE, 7))
    assert {name: told[name] for name in ("resolvedRevision", "resolvedModel", "weightBytes")} == {
        "resolvedRevision": ONE, "resolvedModel": "hf://org/judge@main", "weightBytes": 7,
    }  # fmt: skip
    assert not {"resolvedRevision", "resolvedModel", "weightBytes"} & set(seen(model()))


def test_the_status_tells_what_a_run_is_scored_by_while_it_holds_its_lease() -> None:
    template = "{{ messages }} $(NOT_A_VARIABLE)"
    spec: dict[str, Any] = {"model": HUB, "engine": {"dtype": "bfloat16", "chatTemplate": template}}
    made = make(spec)["Deployment/judge"]["spec"]["template"]
    stamp = made["metadata"]["annotations"]["genrm.dev/revision"]
    meta = {**made["metadata"], "namespace": "rl", "uid": "u0", "name": "judge-0"}
    starts = Pod.from_object({"metadata": meta, "spec": made["spec"]})
    there = dataclasses.replace(starts, verified_boot_id="b1")
    lease = DemandLease.from_object(
        lease_manifest("run-1", "judge", "rl", Phase.IDLE, datetime(2026, 11, 21, tzinfo=UTC))
    )
    held = Demand(Desired.ASLEEP, "", (lease,), (), None)
    run = {"demand": held, "pin": Pin("hf://org/judge@main", ONE), "image": f"vllm:1@{FOLDER}"}
    rm = model(engine=spec["engine"])
    others = [make_pod(astray=True, revision="another"), make_pod(held=True, revision="another")]
    told = seen(rm, pods=[there, *others], **run)["pinned"]
    assert told == {
        "revision": stamp,
        "weights": ONE,
        "image": f"vllm:1@{FOLDER}",
        "dtype": "bfloat16",
        "chatTemplate": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
        "scoring": scoring_digest(effective_spec(rm).scoring),
    }
    RewardModelStatus.model_validate({"pinned": told})
    waits = seen(rm, pods=[starts], **run)["pinned"]
    assert set(told) - set(waits) == {"revision"}, "nobody has scored yet"
    lost = seen(model(engine=spec["engine"], known={"pinned": told}), pods=[starts], **run)["pinned"]
    assert lost == told, "it is what the run was scored by"
    two = seen(rm, pods=[there, make_pod(dtype="float16", revision="another")], **run)["pinned"]
    assert set(told) - set(two) == {"revision", "dtype", "chatTemplate"}, "what they differ in is not said"
    assert "pinned" not in seen(rm, pods=[there]), "no run holds a Lease"
    free = model(engine=spec["engine"], rollout={"pinDuringLease": False})
    assert "pinned" not in seen(free, pods=[there], **run)


def test_a_scoring_block_is_named_by_what_it_means() -> None:
    def digest(**scoring: Any) -> str:
        return scoring_digest(effective_spec(model(scoring=scoring)).scoring)

    assert digest() == digest(mode="pointwise", votes={"count": 1})
    assert digest() != digest(votes={"count": 3})


def condition(told: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((c for c in told["conditions"] if c["type"] == kind), None)


def test_a_folder_of_the_node_says_what_it_means_for_its_namespace() -> None:
    found = condition(seen(model({"uri": "file:///models/judge"})), "HostPath")
    assert found is not None and (found["status"], found["reason"]) == ("True", "NodeFolder")
    assert "spec.model.uri: file:///models/judge" in found["message"] and '"restricted"' in found["message"]
    assert condition(seen(model()), "HostPath") is condition(seen(model(CLAIM)), "HostPath") is None


# ---------------------------------------------------------------------- host memory

GPU: dict[str, Any] = {"gpu": {}, "lifecycle": {"sleep": {"mode": "Engine"}}}
WEIGHTS = 64 << 30


def limit(memory: Any, **spec: Any) -> RewardModel:
    return model(known=known(ONE, size=WEIGHTS), resources={"limits": {"memory": memory}}, **{**GPU, **spec})


@pytest.mark.parametrize("memory", ["64Gi", "70Gi", "68G", 70 << 30, "1Gi"])
def test_a_limit_that_does_not_hold_the_weights_of_a_sleeper_is_named_with_what_to_write(memory: Any) -> None:
    rm = limit(memory)
    found = pinning.host_memory(rm, pinning.written(rm))
    assert found is not None and found.reason == "HostMemoryTooSmall"
    assert found.message == (
        f"spec.resources.limits.memory: {memory} is less than a model asleep at level 1 needs: its weights of 64Gi "
        "stay in host memory; write 75Gi or more, or spec.lifecycle.sleep.mode: None"
    )
    told = seen(rm, warning=found)
    degraded, ready = condition(told, "Degraded"), condition(told, "Ready")
    assert degraded is not None and (degraded["status"], degraded["reason"]) == ("True", "HostMemoryTooSmall")
    assert ready is not None and ready["reason"] != "HostMemoryTooSmall", "it works until it sleeps"


@pytest.mark.parametrize(
    "rm",
    [
        limit("75Gi"),
        limit("1T"),
        limit("1Gi", gpu=None),
        limit("1Gi", lifecycle={"sleep": {"mode": "None"}}),
        model(
            {**HUB, "revision": ONE},
            known(ONE, f"hf://org/judge@{ONE}", WEIGHTS),
            resources={"limits": {"memory": "1Gi"}},
            gpu={},
            lifecycle={"sleep": {"mode": "Engine", "level": 2}},
        ),
        limit("1Gi", lifecycle={"state": "Awake", "sleep": {"mode": "Engine"}}),
        limit("1Gi", lifecycle={}),
        limit(None),
        model(known=known(ONE), resources={"limits": {"memory": "1Gi"}}, **GPU),
        model(known=known(ONE, size=WEIGHTS), **GPU),
    ],
    ids=["enough", "plenty", "cpu", "no sleep", "level 2", "awake", "exclusive", "no limit", "size unknown", "none"],
)
def test_nothing_is_said_where_it_fits_or_nobody_knows(rm: RewardModel) -> None:
    assert pinning.host_memory(rm, pinning.written(rm)) is None


def test_gates_are_left_alone() -> None:
    """Before the engine is started nobody has looked."""
    rm = model(known=known(ONE))
    gated = pod("a", None, rm, door=make_door(DoorState.GATED, asleep=None))
    assert pinning.judge(rm, [gated], pinning.written(rm)) == [gated]
