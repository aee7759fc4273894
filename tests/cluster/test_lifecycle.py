"""Sleep and wake by Leases and by people, with engines that misbehave."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest
from genrm_api.leases import Grant, Phase

from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

CHAT = "/v1/chat/completions"


def awakes(world: World, replicas: int) -> bool:
    return bool(world.status().get("awake") == replicas)


def ask(address: str, timeout: float = 30.0) -> httpx.Response:
    body = {"model": "judge", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}
    return httpx.post(f"http://{address}:8000{CHAT}", json=body, timeout=timeout, trust_env=False)


def test_a_run_wakes_its_model_for_scoring_and_only_for_that(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("run-1", Phase.IDLE)
    wait_for("the Lease is seen", lambda: world.status().get("leases") == [{"run": "run-1", "phase": "idle"}])
    assert world.status()["phase"] == "Asleep", "an idle Lease wakes nothing"
    world.renew("run-1", Phase.SCORING)
    world.phase("Serving")
    wait_for("both endpoints are published", lambda: world.serving() == world.addresses())
    assert [ask(ip).status_code for ip in world.addresses()] == [200, 200]
    granted = world.objects("leases")[0]["metadata"]["annotations"].get("genrm.dev/granted")
    assert granted, "the operator answers in the run's own Lease"
    grant = Grant.read(granted)
    assert grant.waited is not None and grant.engine is not None and grant.engine <= grant.waited < 10
    world.renew("run-1", Phase.IDLE)
    status = world.phase("Asleep")
    wait_for("no endpoint is published", lambda: world.serving() == [])
    assert [ask(ip).status_code for ip in world.addresses()] == [503, 503], "answered at once, not left hanging"
    assert status["lastWakeSeconds"] < 10 and status["lastSleepSeconds"] < 10
    assert [reason for reason, _ in world.events()].count("Waking") == 1


def test_a_run_that_stops_renewing_gives_the_model_back_within_its_ttl(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("crashed", Phase.SCORING, ttl=4)
    world.phase("Serving")
    began = time.monotonic()
    world.phase("Asleep", timeout=4 + 2 + 5)
    assert time.monotonic() - began <= 4 + 2, "TTL + the sleep itself + 2 s"
    assert "LeaseExpired" in [reason for reason, _ in world.events()]


def test_a_model_stays_awake_for_the_run_that_is_left(world: World) -> None:
    world.apply(replicas=1)
    world.phase("Asleep")
    world.lease("one", Phase.SCORING, ttl=60)
    world.lease("two", Phase.SCORING, ttl=60)
    world.phase("Serving")
    world.release("one")
    wait_for("one run is left", lambda: [held["run"] for held in world.status().get("leases", [])] == ["two"])
    assert world.status()["phase"] == "Serving" and sum(world.calls("/sleep").values()) == 1, "only the first sleep"
    world.release("two")
    world.phase("Asleep")


def test_a_person_can_keep_it_awake_and_asleep(world: World) -> None:
    world.apply(lifecycle={"state": "Awake"})
    world.phase("Serving")
    world.patch({"lifecycle": {"state": "Asleep"}})
    world.phase("Asleep")
    world.lease("waiting", Phase.SCORING)
    wait_for(
        "status names who waits", lambda: "run waiting waits for it" in world.condition("Ready").get("message", "")
    )
    assert world.status()["phase"] == "Asleep"


def test_the_operator_killed_during_a_wake_continues_it_and_each_engine_is_woken_once(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    for ip in world.addresses():
        world.simulator.put(ip, faults={"slow": {"/wake_up": 3.0}})
    world.lease("run-1", Phase.SCORING)
    wait_for("both wakes have begun", lambda: all(world.calls("/wake_up").values()))
    world.operator.kill()
    world.operator.start()
    world.phase("Serving")
    assert set(world.calls("/wake_up").values()) == {1}
    wait_for("both pods serve", lambda: world.serving() == world.addresses())
    assert world.status()["awake"] == 2


def test_a_new_operator_process_never_puts_a_model_in_use_to_sleep(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("run-1", Phase.SCORING, ttl=300)
    world.phase("Serving")
    before = world.calls("/sleep")
    for replicas in (3, 4, 5, 6, 7):
        world.operator.kill()
        world.operator.start()
        world.patch({"replicas": replicas})
        wait_for("it has looked and acted", partial(awakes, world, replicas))
    after = world.calls("/sleep")
    assert {ip: after[ip] for ip in before} == before


def test_a_request_inside_finishes_before_the_engine_sleeps(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    (ip,) = world.addresses()
    world.simulator.put(ip, faults={"slow": {CHAT: 2.0}})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, ip)
        wait_for("the request is inside", lambda: world.simulator.pod(ip)["inside"] == 1)
        world.patch({"lifecycle": {"state": "Asleep"}})
        wait_for("the door drains", lambda: world.simulator.pod(ip)["state"] == "draining")
        assert ask(ip).status_code == 503, "nobody else comes in"
        assert answer.result(timeout=30).status_code == 200
    world.phase("Asleep")


def test_a_drain_that_takes_too_long_puts_the_pod_back_into_service(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake", "sleep": {"drainTimeout": "1s"}})
    world.phase("Serving")
    (ip,) = world.addresses()
    world.simulator.put(ip, faults={"hang": [CHAT]})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, ip)
        wait_for("the request is inside", lambda: world.simulator.pod(ip)["inside"] == 1)
        world.patch({"lifecycle": {"sleep": {"drainTimeout": "1s"}, "state": "Asleep"}})
        wait_for("the sleep is given up", lambda: "DrainTimedOut" in [reason for reason, _ in world.events()])
        pod = world.simulator.pod(ip)
        states = [entry["call"] for entry in pod["ledger"] if entry["call"].startswith("PUT")]
        assert states[states.index("PUT draining") :][:2] == ["PUT draining", "PUT serving"] and pod["inside"] == 1
        world.simulator.put(ip, faults={})
        assert answer.result(timeout=30).status_code == 200
    world.phase("Asleep")


def test_a_wake_that_fails_is_reported_and_tried_again_until_it_works(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    broken, _ = world.addresses()
    world.simulator.put(broken, faults={"status": {"/wake_up": 500}})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("the failure is told", lambda: "WakeFailed" in [reason for reason, _ in world.events()])
    wait_for("the other pod serves", lambda: world.serving() == [ip for ip in world.addresses() if ip != broken])
    told = wait_for("so does the status", lambda: (c := world.condition("Degraded"))["status"] == "True" and c)
    assert "500" in told["message"]
    world.simulator.put(broken, faults={})
    world.phase("Serving")
    assert world.condition("Degraded")["status"] == "False"


def test_a_pod_whose_engine_does_not_wake_is_replaced(world: World) -> None:
    world.apply(lifecycle={"wake": {"maxFailures": 2}})
    world.phase("Asleep")
    broken = world.pods()[0]
    world.simulator.put(broken["status"]["podIP"], faults={"status": {"/wake_up": 500}})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("it is gone", lambda: broken["metadata"]["uid"] not in {p["metadata"]["uid"] for p in world.pods()})
    world.phase("Serving")
    told = [note for reason, note in world.events() if reason == "PodReplaced"]
    assert len(told) == 1 and broken["metadata"]["name"] in told[0] and "2 times its engine did not wake" in told[0]


@pytest.mark.parametrize("fault", [{"status": {"/wake_up": 500}}, {"hang": ["/wake_up"]}], ids=["fails", "hangs"])
def test_a_pod_whose_engine_does_not_wake_is_replaced_though_the_run_asks_only_now_and_then(
    world: World, fault: dict[str, Any]
) -> None:
    """As a run does that scores and trains in turns: no phase alone is long enough for so many tries."""
    world.apply(replicas=1, lifecycle={"wake": {"timeout": "1s", "maxFailures": 4}, "sleep": {"timeout": "1s"}})
    world.phase("Asleep")
    broken = world.pods()[0]
    world.simulator.put(broken["status"]["podIP"], faults=fault)

    def failed() -> int:
        return [reason for reason, _ in world.events()].count("WakeFailed")

    def once_more(before: int) -> bool:
        return failed() > before or gone()

    def gone() -> bool:
        return broken["metadata"]["uid"] not in {p["metadata"]["uid"] for p in world.pods()}

    world.lease("run-1", Phase.IDLE, ttl=300)
    fails = [0]
    for _ in range(6):
        if gone():
            break
        fails.append(before := failed())
        world.renew("run-1", Phase.SCORING)
        wait_for("a wake failed, or it is gone", partial(once_more, before))
        world.renew("run-1", Phase.IDLE)
        wait_for("the run trains", lambda: world.status().get("leases") == [{"run": "run-1", "phase": "idle"}])
    else:
        raise AssertionError(f"still there after {failed()} wakes that failed")
    each = [later - sooner for sooner, later in pairwise([*fails, failed()])]
    assert max(each) < 4, f"{each} wakes failed: one phase was enough"
    world.renew("run-1", Phase.SCORING)
    world.phase("Serving")
    assert [reason for reason, _ in world.events()].count("PodReplaced") == 1


def test_a_change_that_cannot_be_applied_is_told_and_what_runs_is_still_woken_and_slept(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.patch({"resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "4Gi"}}})
    world.phase("Degraded")
    assert world.condition("Degraded")["reason"] == "ApplyFailed"
    assert "memory" in world.condition("Degraded")["message"]
    world.lease("run-1", Phase.SCORING)
    wait_for("both pods serve", lambda: world.addresses() and world.serving() == world.addresses())
    world.release("run-1")
    wait_for("no pod serves", lambda: world.serving() == [])
    world.patch({"resources": None})
    world.phase("Asleep")


def test_an_engine_that_only_says_it_woke_does_not_serve(world: World) -> None:
    world.apply(replicas=1)
    world.phase("Asleep")
    (ip,) = world.addresses()
    world.simulator.put(ip, faults={"deaf": ["/wake_up"]})
    world.lease("run-1", Phase.SCORING, ttl=120)
    wait_for("the lie is told", lambda: any("says that it sleeps" in note for _, note in world.events()))
    assert world.serving() == []
    world.simulator.put(ip, faults={})
    world.phase("Serving")


def test_a_container_that_restarted_serves_again_only_behind_its_new_door(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    (ip,) = world.addresses()
    before = world.pods()[0]["metadata"]["annotations"]["genrm.dev/boot-id"]
    settings = world.simulator.pod(ip)["settings"]
    world.simulator.forget(ip)
    world.simulator.put(ip, settings=settings)
    world.restart(world.pods()[0])
    wait_for(
        "the label is bound to the new boot id",
        lambda: (
            world.pods()[0]["metadata"]["annotations"].get("genrm.dev/boot-id") == world.simulator.pod(ip)["bootId"]
        ),
    )
    assert world.simulator.pod(ip)["bootId"] != before
    assert ask(ip).status_code == 200


def test_a_serving_label_that_somebody_removed_comes_back(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    world.kubectl("label", "pod", world.pods()[0]["metadata"]["name"], "genrm.dev/serving-")
    wait_for("the label is back", lambda: world.serving() == world.addresses())


def test_an_engine_put_to_sleep_behind_the_operators_back_is_woken(world: World) -> None:
    world.apply(lifecycle={"state": "Awake"})
    world.phase("Serving")
    stray, other = world.addresses()
    assert world.simulator.past_the_door(stray, "POST", "/sleep") == 200
    assert (world.simulator.pod(stray)["asleep"], world.simulator.pod(stray)["state"]) == (True, "serving")
    world.lease("run-1", Phase.IDLE)  # which brings the next look at once; nothing else does for 30 s
    wait_for("it is awake again", lambda: not world.simulator.pod(stray)["asleep"])
    wait_for("it serves", lambda: world.serving() == sorted([stray, other]))
    assert world.calls("/wake_up") == {stray: 1, other: 0}
    assert ask(stray).status_code == 200


def test_an_engine_that_wakes_by_itself_while_nobody_wants_it_is_put_back_to_sleep(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    stray, other = world.addresses()
    assert world.simulator.past_the_door(stray, "POST", "/wake_up") == 200
    assert (world.simulator.pod(stray)["asleep"], world.simulator.pod(stray)["state"]) == (False, "asleep")
    assert ask(stray).status_code == 503, "the door knows nothing of it, and stays shut"
    world.lease("run-1", Phase.IDLE)
    wait_for("it sleeps again", lambda: world.simulator.pod(stray)["asleep"])
    world.phase("Asleep")
    assert world.serving() == [] and world.calls("/sleep") == {stray: 2, other: 1}
    world.renew("run-1", Phase.SCORING)
    world.phase("Serving")
    assert [ask(ip).status_code for ip in (stray, other)] == [200, 200]


def test_admin_routes_are_closed_to_everybody_else(world: World) -> None:
    world.apply(replicas=1, lifecycle={"state": "Awake"})
    world.phase("Serving")
    (ip,) = world.addresses()
    for path in ("/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/genrm/door"):
        assert httpx.post(f"http://{ip}:8000{path}", timeout=10, trust_env=False).status_code == 404
    assert world.simulator.pod(ip)["asleep"] is False


def test_a_change_waits_for_the_run_that_is_scored_and_says_so(world: World) -> None:
    world.apply()
    world.phase("Asleep")
    world.lease("run-1", Phase.IDLE, ttl=120)
    wait_for("the run is seen", lambda: world.status().get("leases"))
    uids = {pod["metadata"]["uid"] for pod in world.pods()}
    world.patch({"engine": {"maxModelLen": 128}})
    waiting = wait_for("the change is told to wait", lambda: world.condition("RolloutWaiting"))
    assert waiting["reason"] == "RunUnderWay" and "run-1" in waiting["message"]
    assert waiting["observedGeneration"] == 2 and world.condition("Ready")["status"] == "True"
    world.renew("run-1", Phase.SCORING)
    wait_for("the pods that were there serve it", lambda: len(world.serving()) == 2)
    assert {pod["metadata"]["uid"] for pod in world.pods()} == uids
    world.release("run-1")
    wait_for(
        "the change is rolled out",
        lambda: len(world.pods()) == 2 and not uids & {pod["metadata"]["uid"] for pod in world.pods()},
        timeout=60,
    )
    world.phase("Asleep")
    assert world.condition("RolloutWaiting") == {}


def test_a_pod_whose_images_tag_has_moved_scores_no_run_that_began_before(world: World) -> None:
    old, new = ("docker.io/vllm@sha256:" + digit * 64 for digit in "ab")

    def pulled(pod: dict[str, Any], image: str) -> None:
        """As a kubelet says it; kwok's pods have no digest."""
        (container,) = pod["status"]["containerStatuses"]
        told = json.dumps({"status": {"containerStatuses": [{**container, "imageID": image}]}})
        world.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", told)

    world.apply(engine={"dtype": "bfloat16"})
    world.phase("Asleep")
    for pod in world.pods():
        pulled(pod, old)
    world.lease("run-1", Phase.SCORING, ttl=300)
    world.phase("Serving")
    pinned = wait_for("what scores the run is told", lambda: world.status().get("pinned"))
    assert pinned["image"].endswith("@sha256:" + "a" * 64) and pinned["dtype"] == "bfloat16"
    assert pinned["revision"] == world.pods()[0]["metadata"]["annotations"]["genrm.dev/revision"]
    assert pinned["scoring"].startswith("sha256:") and "chatTemplate" not in pinned
    moved, stays = world.pods()
    pulled(moved, new)
    wait_for("it is out of service", lambda: world.serving() == [stays["status"]["podIP"]])
    wait_for("and that is told", lambda: world.condition("Degraded").get("reason") == "ImageMoved")
    assert moved["metadata"]["name"] in world.condition("Degraded")["message"]
    assert world.status()["pinned"]["image"] == pinned["image"]
    world.operator.kill()
    world.operator.start()
    wait_for("the next operator knows it, too", lambda: world.condition("Degraded").get("reason") == "ImageMoved")
    assert world.serving() == [stays["status"]["podIP"]]
    world.release("run-1")
    world.phase("Asleep")
    assert "pinned" not in world.status() and world.condition("ImagesDiffer")["status"] == "True"
    world.lease("run-2", Phase.SCORING, ttl=300)
    world.phase("Serving")


def test_a_run_that_waits_for_engines_that_never_came_up_does_not_keep_them_so(world: World) -> None:
    world.apply(podTemplate={"spec": {"nodeSelector": {"no": "such-node"}}})
    world.lease("run-1", Phase.SCORING, ttl=120)
    world.phase("Degraded")
    world.patch({"podTemplate": None})
    world.phase("Serving", timeout=60)
