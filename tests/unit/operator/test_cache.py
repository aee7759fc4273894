"""The caches keep the newest of each object, whoever brings it."""

from __future__ import annotations

from typing import Any

from genrm_operator.cache import Cache


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


def test_a_deleted_object_may_come_back_with_any_version() -> None:
    cache = Cache()
    key = cache.put_reward_model(reward_model(11, "Off"), deleted=False).key
    cache.put_reward_model(reward_model(12, "Off"), deleted=True)
    assert key not in cache.reward_models
    cache.put_reward_model(reward_model(5, "Auto"), deleted=False)
    assert key in cache.reward_models


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


def on_slot(name: str, uid: str, slot: str, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    meta = {"namespace": "rl", "name": name, "uid": uid, "resourceVersion": "1", "creationTimestamp": created}
    return {"metadata": meta, "spec": {"gpu": {"sharing": "SharedClaim", "slots": [{"name": slot}]}}}


def test_whoever_names_the_same_slot_hears_of_a_model_that_comes_and_goes() -> None:
    cache = Cache()
    assert cache.put_reward_model(on_slot("old", "u1", "a"), deleted=False).others == frozenset()
    cache.put_reward_model(on_slot("elsewhere", "u3", "b"), deleted=False)
    put = cache.put_reward_model(on_slot("young", "u2", "a"), deleted=False)
    assert put.others == {("rl", "old")}
    assert "rl/old" in (cache.slot_taken(("rl", "young")) or "") and cache.slot_taken(("rl", "old")) is None
    gone = cache.put_reward_model(on_slot("old", "u1", "a"), deleted=True)
    assert gone.others == {("rl", "young")} and cache.slot_taken(("rl", "young")) is None


def test_a_model_made_anew_under_its_name_is_young_again() -> None:
    cache = Cache()
    cache.put_reward_model(on_slot("one", "u1", "a"), deleted=False)
    cache.put_reward_model(on_slot("two", "u2", "a"), deleted=False)
    again = on_slot("one", "u9", "a", created="2026-01-02T00:00:00Z")
    assert cache.put_reward_model(again, deleted=False).others == {("rl", "two")}
    assert cache.slot_taken(("rl", "two")) is None and cache.slot_taken(("rl", "one")) is not None


def test_what_is_listed_no_more_is_forgotten() -> None:
    cache = Cache()
    put = cache.child_putter("LeaderWorkerSet")
    for name in ("a", "b"):
        labels = {"genrm.dev/reward-model": name}
        meta = {"namespace": "rl", "name": f"{name}-nodes", "uid": name, "generation": 1, "labels": labels}
        assert put({"metadata": meta}, deleted=False).news
    assert cache.drop_children("LeaderWorkerSet", {("rl", "a-nodes")}) == {("rl", "b")}
    assert cache.children["rl", "a"] and not cache.children["rl", "b"]


def test_a_worker_of_an_engine_is_no_engine() -> None:
    cache = Cache()
    labels = {"genrm.dev/reward-model": "judge", "genrm.dev/component": "worker"}
    meta = {"namespace": "rl", "name": "w", "uid": "w1", "resourceVersion": "1", "labels": labels}
    key = cache.put_pod({"metadata": meta}, deleted=False).key
    assert not cache.pods[key] and not cache.routers[key] and list(cache.workers[key]) == ["w1"]
