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
    key, _ = cache.put_reward_model(reward_model(11, "Off"), deleted=False)
    cache.put_reward_model(reward_model(10, "Auto"), deleted=False)
    assert cache.reward_models[key]["spec"]["lifecycle"]["state"] == "Off"


def test_a_deleted_object_may_come_back_with_any_version() -> None:
    cache = Cache()
    key, _ = cache.put_reward_model(reward_model(11, "Off"), deleted=False)
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
    key, _ = cache.put_pod(pod, deleted=False)
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
