"""What keeps an engine from running, read from the status that kubelet, scheduler and controllers write."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_operator import trouble

BACK_OFF = 'Back-off pulling image "no/such:1": ErrImagePull: not found'
PULL = "not found"
CRASHED = {"exitCode": 2, "reason": "Error", "message": "api_server.py: error: unrecognized arguments: --nope\n"}


def pod(state: dict[str, Any], *, last: dict[str, Any] | None = None, started: bool = False) -> dict[str, Any]:
    container = {"name": "engine", "state": state, "lastState": last or {}, "started": started, "restartCount": 1}
    return {"metadata": {}, "status": {"phase": "Pending", "containerStatuses": [container]}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("state", "reason", "part"),
    [
        (waits("ErrImagePull", PULL), "ImagePullFailed", "spec.engine.image"),
        (waits("ImagePullBackOff", BACK_OFF), "ImagePullFailed", "imagePullSecrets"),
        (waits("InvalidImageName", "couldn't parse"), "ImagePullFailed", "couldn't parse"),
        (waits("CreateContainerConfigError", 'secret "tok" not found'), "ContainerConfigError", 'secret "tok"'),
        (waits("RunContainerError", 'exec: "jugde": not found'), "ContainerStartFailed", "jugde"),
        ({"terminated": CRASHED}, "EngineCrashed", "unrecognized arguments: --nope"),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "OutOfMemory", "resources.limits.memory"),
        ({"terminated": {"exitCode": 1}}, "EngineCrashed", "said nothing"),
    ],
)
def test_a_container_that_does_not_run_is_in_trouble_and_the_sentence_says_what_to_do(
    state: dict[str, Any], reason: str, part: str
) -> None:
    found = trouble.of_pod(pod(state))
    assert found is not None and found.reason == reason and part in found.message


@pytest.mark.parametrize(
    "well",
    [
        {},
        {"status": {"phase": "Pending"}},
        pod(waits("ContainerCreating")),
        pod(waits("PodInitializing")),
        pod({"running": {}}, started=True),
        pod({"running": {}}, last={"terminated": CRASHED}, started=True),
    ],
)
def test_a_pod_on_its_way_or_up_again_is_not_in_trouble(well: dict[str, Any]) -> None:
    assert trouble.of_pod(well) is None


def test_a_crash_loop_is_one_and_the_same_trouble_all_the_way_round() -> None:
    """As the kubelet shows it: ended, waiting with a back-off that grows, running again but not up."""
    round_ = [
        pod({"terminated": CRASHED}),
        pod(waits("CrashLoopBackOff", "back-off 10s restarting"), last={"terminated": CRASHED}),
        pod({"running": {}}, last={"terminated": CRASHED}),
        pod(waits("CrashLoopBackOff", "back-off 20s restarting"), last={"terminated": CRASHED}),
    ]
    assert len({trouble.of_pod(p) for p in round_}) == 1


def test_a_failing_pull_is_one_and_the_same_trouble_between_its_tries() -> None:
    between = {
        trouble.of_pod(pod(state)) for state in (waits("ErrImagePull", PULL), waits("ImagePullBackOff", BACK_OFF))
    }
    assert len(between) == 1


def test_the_last_words_are_the_end_of_what_the_engine_said() -> None:
    found = trouble.of_pod(pod({"terminated": {"exitCode": 1, "message": "x" * 5000 + " the end"}}))
    assert found is not None and found.message.endswith("the end") and len(found.message) < 900


def test_a_pod_that_no_node_takes_says_why() -> None:
    why = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    assert trouble.of_pod({"status": {"conditions": [condition]}}) == trouble.Trouble("Unschedulable", why)


def test_an_evicted_pod_says_so() -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
    found = trouble.of_pod({"status": status})
    assert found is not None and found.reason == "PodFailed" and "ephemeral-storage" in found.message


def test_a_deployment_whose_pods_are_refused_says_why_without_the_name_of_a_pod() -> None:
    message = 'pods "judge-7d9-" is forbidden: error looking up service account rl/nobody: not found'
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    found = trouble.of_deployment({"status": {"conditions": [condition]}})
    assert found is not None and found.reason == "PodsRefused"
    assert "service account rl/nobody" in found.message and "judge-7d9" not in found.message
    assert trouble.of_deployment({"status": {"conditions": [condition | {"status": "False"}]}}) is None
    assert trouble.of_deployment({}) is None
