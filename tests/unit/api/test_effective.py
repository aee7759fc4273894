"""The effective spec: what holds where a manifest says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.comparing import Alone, Schedule, Versus
from genrm_api.effective import OWN_NAMESPACE, effective_scoring, effective_spec
from genrm_api.judging import Parse
from genrm_api.labels import DIGITS, LETTERS
from genrm_api.rewardmodel import RewardModel, RewardModelType, Scoring

from tests.unit.api.shapes import CUSTOM, external, hooked, manifest, slots


def effective(spec: dict[str, Any]) -> Any:
    return effective_spec(RewardModel.model_validate(manifest(spec)))


def test_a_manifest_that_says_nothing() -> None:
    plain = effective({})
    assert (plain.served_name, plain.replicas, plain.gpus, plain.cache_claim) == ("judge", 1, 0, None)
    assert plain.clients == (OWN_NAMESPACE,) and plain.monitoring == ()
    assert (plain.revision, plain.routing, plain.pin_during_lease) == ("main", "Direct", True)
    lives = plain.lifecycle
    assert (lives.state, lives.sleep_level, lives.on_drain_timeout, lives.verify_wake) == ("Auto", 1, "Serve", False)
    assert (lives.drain_timeout, lives.sleep_timeout, lives.wake_timeout) == (60.0, 60.0, 120.0)
    assert (lives.sleep_after, lives.off_after) == (None, None)


def test_a_manifest_that_says_much() -> None:
    full = effective(
        {
            "engine": {"tensorParallel": 4, "pipelineParallel": 2, "dataParallel": 3},
            "gpu": {},
            "lifecycle": {"state": "Off", "idle": {"sleepAfter": "90s", "offAfter": "1h"}},
            "access": {"clients": []},
            "model": {"uri": "hf://a/b", "servedName": "x", "cache": {"claimName": "c"}, "revision": "v1"},
            "rollout": {"pinDuringLease": False},
        }
    )
    assert (full.served_name, full.replicas, full.gpus, full.gpu_resource) == ("x", 0, 24, "nvidia.com/gpu")
    assert (full.cache_claim, full.revision, full.pin_during_lease) == ("c", "v1", False)
    assert full.clients == (), "an empty list is nobody, absent is the own namespace"
    assert (full.lifecycle.sleep_after, full.lifecycle.off_after) == (90.0, 3600.0)


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ({}, "Engine"),
        ({"engine": {"name": "sglang"}}, "Engine"),
        ({"engine": CUSTOM}, "None"),
        ({"engine": hooked()}, "Engine"),
        ({"engine": hooked(), "gpu": {}}, "None"),
        ({"engine": hooked(), "gpu": {}, "lifecycle": {"state": "Asleep"}}, "Engine"),
        (slots({"name": "a"}) | {"engine": hooked()}, "Engine"),
        ({"gpu": {}}, "None"),
        ({"gpu": {}, "lifecycle": {"state": "Awake"}}, "None"),
        ({"gpu": {}, "lifecycle": {"state": "Asleep"}}, "Engine"),
        ({"gpu": {}, "lifecycle": {"sleep": {"mode": "Engine"}}}, "Engine"),
        (slots({"name": "a"}), "Engine"),
        ({"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}}, "None"),
        ({"lifecycle": {"sleep": {"mode": "Restart"}}}, "Restart"),
    ],
)
def test_an_engine_sleeps_where_that_gives_something_back(spec: dict[str, Any], mode: str) -> None:
    assert effective(spec).lifecycle.sleep_mode == mode


@pytest.mark.parametrize(
    ("spec", "surges"),
    [
        ({}, True),
        ({"gpu": {}}, True),
        ({"gpu": {}, "rollout": {"surge": True}}, True),
        ({"gpu": {}, "rollout": {"surge": False}}, False),
        (slots({"name": "a"}), False),
        ({"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}}, False),
    ],
)
def test_a_new_pod_comes_beside_the_old_one_where_that_can_be(spec: dict[str, Any], surges: bool) -> None:
    assert effective(spec).surges is surges


@pytest.mark.parametrize(
    ("spec", "verifies"),
    [
        ({}, False),
        ({"type": "Classifier"}, True),
        ({"engine": {"name": "sglang"}}, True),
        ({"type": "Classifier", "engine": {"name": "sglang"}}, True),
        ({"engine": CUSTOM}, False),
        (external(), False),
        (external(format="slime"), False),
        ({"lifecycle": {"wake": {"timeout": "1m"}}}, False),
        ({"lifecycle": {"wake": {"verify": True}}}, True),
        ({"type": "Classifier", "lifecycle": {"wake": {"verify": False}}}, False),
        ({"engine": {"name": "sglang"}, "lifecycle": {"wake": {"verify": False}}}, False),
    ],
)
def test_engines_are_asked_for_what_they_compute_where_that_is_safe(spec: dict[str, Any], verifies: bool) -> None:
    assert effective(spec).lifecycle.verify_wake is verifies


def test_a_slot_gives_the_gpus_instead_of_the_device_plugin() -> None:
    shared = effective(slots({"name": "a"}, {"name": "b"}))
    assert (shared.gpu_resource, shared.gpus, [slot.name for slot in shared.slots]) == (None, 1, ["a", "b"])


def test_an_endpoint_outside_the_cluster_has_no_pods() -> None:
    there = effective(external(model="gpt-x"))
    assert (there.has_pods, there.replicas, there.served_name, there.revision) == (False, 0, "gpt-x", None)
    assert effective(external(format="slime")).served_name == "judge"


@pytest.mark.parametrize(
    ("kind", "scoring", "filled"),
    [
        ("Generative", {}, {"mode": "pointwise", "judge": "boxed-true-false", "normalise": "none", "order": None}),
        ("Generative", {"template": "{{ r }}", "parse": {"kind": "number"}}, {"mode": "pointwise", "judge": None}),
        ("Generative", {"mode": "listwise"}, {"order": "hash", "aggregate": None, "judge": "listwise-ranking"}),
        ("Generative", {"mode": "pairwise"}, {"order": "balanced", "judge": "pairwise-abtie", "schedule": Schedule()}),
        (
            "Generative",
            {"mode": "pairwise", "alone": {"vs": "pointwise"}},
            {"alone": Alone(vs=Versus.POINTWISE, judge="boxed-true-false")},
        ),
        (
            "Generative",
            {"mode": "pairwise", "compat": "rm-gallery"},
            {"order": "given", "aggregate": "winrate", "normalise": "none", "schedule": Schedule()},
        ),
        ("Generative", {"mode": "pairwise", "order": "both"}, {"order": "both", "aggregate": "winrate"}),
        ("Generative", {"mode": "pairwise", "schedule": {"kind": "active", "budget": 8}}, {"aggregate": "bt"}),
        (
            "Generative",
            {"template": "{{ r }}", "parse": {"kind": "logprob"}},
            {"parse": Parse(kind="logprob", values=dict(DIGITS))},
        ),
        (
            "Generative",
            {"mode": "pairwise", "template": "{{ r }}", "parse": {"kind": "logprob"}},
            {"parse": Parse(kind="logprob", values=dict(LETTERS))},
        ),
        ("Classifier", {}, {"mode": "classify", "judge": None, "votes": None, "normalise": "none"}),
    ],
)
def test_a_scoring_block_is_filled_in_for_its_type(kind: str, scoring: dict[str, Any], filled: dict[str, Any]) -> None:
    found = effective_scoring(Scoring.model_validate(scoring), RewardModelType(kind))
    assert {name: getattr(found, name) for name in filled} == filled
