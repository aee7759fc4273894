"""The caches keep the newest of each object, whoever brings it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from genrm_api.leases import Phase, lease_manifest
from genrm_api.names import ANNOTATION_GRANTED
from genrm_operator.cache import ENDED, Cache


def reward_model(version: int, state: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "rl", "name": "judge", "uid": "u", "resourceVersion": str(version)},
        "spec": {"lifecycle": {"state": state}},
    }


def test_the_late_answer_to_our_own_write_does_not_undo_what_somebody_wrote_after_it() -> None:
    cache = Cache()
    key = cache.put_reward_model(reward_model(11, "Off"), deleted=False).key
    cache.put_reward_model(reward_model(10, "Auto"), deleted=False)
    assert cache.reward_models[key]["spec"]["lifecycle"]["state"] == "Off"


def test_the_late_answer_to_our_own_write_does_not_bring_back_what_was_deleted_after_it() -> None:
    cache = Cache()
    key = cache.put_reward_model(reward_model(11, "Off"), deleted=False).key
    cache.put_reward_model(reward_model(13, "Off"), deleted=True)
    assert not cache.put_reward_model(reward_model(12, "Auto"), deleted=False).news
    assert key not in cache.reward_models


@pytest.mark.parametrize("kind", ["Service", "ConfigMap"])
def test_the_same_of_a_child(kind: str) -> None:
    cache, meta = (
        Cache(),
        {"namespace": "rl", "name": "judge", "uid": "d", "labels": {"genrm.dev/reward-model": "judge"}},
    )
    put = cache.child_putter(kind)
    key = put({"metadata": {**meta, "resourceVersion": "11"}}, deleted=False).key
    put({"metadata": {**meta, "resourceVersion": "13"}}, deleted=True)
    assert not put({"metadata": {**meta, "resourceVersion": "12"}}, deleted=False).news
    assert not cache.children[key]


def test_what_had_lost_its_label_comes_back_with_it() -> None:
    """Its watch calls that deleted, and then added."""
    cache = Cache()
    key = cache.put_reward_model(reward_model(11, "Off"), deleted=False).key
    cache.put_reward_model(reward_model(12, "Off"), deleted=True)
    assert cache.put_reward_model(reward_model(13, "Auto"), deleted=False).news
    assert key in cache.reward_models


def test_the_ends_of_objects_are_not_remembered_for_ever() -> None:
    cache = Cache()
    for number in range(3 * ENDED):
        obj = reward_model(number + 1, "Off")
        cache.put_reward_model({**obj, "metadata": {**obj["metadata"], "uid": str(number)}}, deleted=True)
    assert len(cache._versions) <= ENDED


def test_pods_that_are_known_before_their_model_are_kept() -> None:
    cache = Cache()
    pod = {
        "metadata": {
            "namespace": "rl", "name": "p", "uid": "p1", "resourceVersion": "1",
            "labels": {"genrm.dev/reward-model": "judge"},
        }
    }  # fmt: skip
    key = cache.put_pod(pod, deleted=False).key
    cache.tidy(key)
    assert list(cache.pods[key]) == ["p1"]
    cache.put_pod(pod, deleted=True)
    cache.tidy(key)
    assert key not in cache.pods


def test_only_what_a_look_would_see_differently_is_news() -> None:
    cache = Cache()
    assert cache.put_reward_model(reward_model(11, "Off"), deleted=False).news
    echo = reward_model(12, "Off")
    assert not cache.put_reward_model(echo, deleted=False).news
    assert cache.put_reward_model(echo | {"status": {"phase": "Off"}}, deleted=False).news
    changed = reward_model(13, "Auto")
    changed["metadata"]["generation"] = 2
    assert cache.put_reward_model(changed, deleted=False).news
    assert not cache.put_reward_model(reward_model(12, "Off"), deleted=False).news, "it is older"
    assert cache.put_reward_model(changed, deleted=True).news
    assert not cache.put_reward_model(changed, deleted=True).news


def on_slot(name: str, uid: str, slot: str) -> dict[str, Any]:
    meta = {"namespace": "rl", "name": name, "uid": uid, "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"gpu": {"sharing": "SharedClaim", "slots": [{"name": slot}]}}}


def test_whoever_names_the_same_slot_hears_of_a_model_that_comes_and_goes() -> None:
    cache = Cache()
    assert cache.put_reward_model(on_slot("old", "u1", "a"), deleted=False).others == frozenset()
    cache.put_reward_model(on_slot("elsewhere", "u3", "b"), deleted=False)
    assert cache.put_reward_model(on_slot("young", "u2", "a"), deleted=False).others == {("rl", "old")}
    moved = on_slot("young", "u2", "b")
    moved["metadata"] |= {"resourceVersion": "2", "generation": 2}
    assert cache.put_reward_model(moved, deleted=False).others == {("rl", "old"), ("rl", "elsewhere")}
    assert cache.put_reward_model(on_slot("old", "u1", "a"), deleted=True).others == frozenset()
    assert cache.naming(frozenset({("claim", "rl", "b")})) == {("rl", "young"), ("rl", "elsewhere")}


def test_a_pod_that_outlives_its_model_still_has_its_gpus_and_its_end_is_heard_of() -> None:
    cache = Cache()
    cache.put_reward_model(on_slot("waits", "u2", "a"), deleted=False)
    labels = {"genrm.dev/reward-model": "gone", "genrm.dev/component": "engine"}
    meta = {"namespace": "rl", "name": "p", "uid": "p1", "resourceVersion": "5", "labels": labels}
    pod = {"metadata": meta, "spec": {"resourceClaims": [{"name": "genrm-slot", "resourceClaimName": "a"}]}}
    assert cache.put_pod(pod, deleted=False).others == {("rl", "waits")}
    assert [p.places for p in cache.placed.values()] == [frozenset({("claim", "rl", "a")})]
    assert cache.put_pod(pod, deleted=True).others == {("rl", "waits")} and not cache.placed


def test_what_is_listed_no_more_is_forgotten() -> None:
    cache = Cache()
    put = cache.child_putter("LeaderWorkerSet")
    for name in ("a", "b"):
        labels = {"genrm.dev/reward-model": name}
        meta = {
            "namespace": "rl",
            "name": f"{name}-nodes",
            "uid": name,
            "resourceVersion": "1",
            "generation": 1,
            "labels": labels,
        }
        assert put({"metadata": meta}, deleted=False).news
    assert cache.drop_children("LeaderWorkerSet", {("rl", "a-nodes")}) == {("rl", "b")}
    assert cache.children["rl", "a"] and not cache.children["rl", "b"]


def test_a_worker_of_an_engine_is_no_engine() -> None:
    cache = Cache()
    labels = {"genrm.dev/reward-model": "judge", "genrm.dev/component": "worker"}
    meta = {"namespace": "rl", "name": "w", "uid": "w1", "resourceVersion": "1", "labels": labels}
    key = cache.put_pod({"metadata": meta}, deleted=False).key
    assert not cache.pods[key] and not cache.routers[key] and list(cache.workers[key]) == ["w1"]


def test_the_end_of_a_model_is_not_that_of_its_successor_whichever_is_heard_of_first() -> None:
    cache = Cache()
    old, young = reward_model(11, "Auto"), reward_model(15, "Auto")
    young["metadata"]["uid"] = "u2"
    cache.put_reward_model(old, deleted=False)
    key = cache.put_reward_model(young, deleted=False).key
    assert not cache.put_reward_model(old, deleted=True).news
    assert cache.reward_models[key]["metadata"]["uid"] == "u2"
    assert cache.put_reward_model(young, deleted=True).news and key not in cache.reward_models


@pytest.mark.parametrize("slots", [(), ("a",)])
def test_the_answer_to_our_own_write_brings_no_lease_back_that_was_deleted_meanwhile(slots: Sequence[str]) -> None:
    cache, key = Cache(), ("rl", "judge")
    lease = lease_manifest("run-1", "judge", "rl", Phase.SCORING, datetime.now(UTC), slots=slots)
    lease["metadata"] |= {"uid": "l1", "resourceVersion": "1"}
    answer = {**lease, "metadata": {**lease["metadata"], "resourceVersion": "2"}}
    answer["metadata"]["annotations"] = {**lease["metadata"]["annotations"], ANNOTATION_GRANTED: "now"}
    shelf = (cache.trainers if slots else cache.leases)[key]
    cache.put_lease(lease, deleted=False)
    assert cache.put_answered_lease(answer) == key
    assert [held.granted for held in shelf.values()] == ["now"]
    cache.put_lease(answer, deleted=True)
    assert cache.put_answered_lease(answer) == key and not shelf
