"""Whether the new pod comes beside the old one or after it: tables, and rollouts played to their end."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import pytest
from genrm_api.effective import effective_spec
from genrm_api.rewardmodel import RewardModel
from genrm_operator import surging
from genrm_operator.demand import Demand, Desired
from genrm_operator.observed import DoorState, Pod
from genrm_operator.surging import NO_ROLLOUT, PATIENCE_SECONDS, Rolling, Surge
from genrm_operator.trouble import Trouble

from tests.unit.operator.test_children import make
from tests.unit.operator.test_lifecycle import make_door, make_pod
from tests.unit.operator.test_pinning import seen

SHORT = (
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No preemption "
    "victims found for incoming pod."
)
NOWHERE = (
    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are "
    "available: 2 Preemption is not helpful for scheduling."
)
ONE_OF_TWO = (
    "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes "
    "are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
)
QUOTA = Trouble("PodsRefused", "the cluster refuses the engine pods: exceeded quota: gpus, requested: 1, limited: 1")
POLICY = Trouble("PodsRefused", "the cluster refuses the engine pods: violates PodSecurity")


def model(**spec: Any) -> RewardModel:
    meta = {"name": "judge", "namespace": "rl", "uid": "u"}
    whole = {"model": {"uri": "hf://a/b"}, "gpu": {}, **spec}
    return RewardModel.model_validate({"metadata": meta, "spec": whole})


def pod(revision: str | None, lacks: str | None = None, **more: Any) -> Pod:
    trouble = None if lacks is None else Trouble("Unschedulable", lacks)
    return make_pod(uid=f"{revision}{lacks is None}", revision=revision, trouble=trouble, **more)


OLD, NEW, WAITS = pod("old", serving=True), pod("new"), pod("new", SHORT)


def look(
    pods: Collection[Pod], before: Surge = NO_ROLLOUT, now: float = 0.0, recreates: str | None = None,
    refusal: Trouble | None = None, **spec: Any,
) -> Surge:  # fmt: skip
    return before.look(model(**spec), {"judge": Rolling("new", recreates)}, pods, refusal, now)


def after(seconds: float, pods: Collection[Pod], **more: Any) -> Surge:
    """Seen like this all the time."""
    return look(pods, look(pods, **more), seconds, **more)


def test_who_waits_for_the_room_of_the_last_old_pod_is_in_no_trouble_until_the_scheduler_has_had_its_time() -> None:
    recreates = after(PATIENCE_SECONDS, [OLD, WAITS])
    gone = look([WAITS], recreates, now=100.0, recreates="new")
    assert (gone.recreates, gone.begins, gone.look_again_at) == (True, False, 100.0 + PATIENCE_SECONDS)
    assert [pod.trouble for pod in gone.judge([WAITS])] == [None]
    still = look([WAITS], gone, now=99.9 + PATIENCE_SECONDS, recreates="new")
    assert still.look_again_at == gone.look_again_at
    assert look([NEW], still, now=101.0, recreates="new") == NO_ROLLOUT
    assert look([WAITS], still, now=100.0 + PATIENCE_SECONDS, recreates="new") == NO_ROLLOUT


@pytest.mark.parametrize(
    ("pods", "refusal", "recreates"),
    [
        ([OLD, WAITS], None, True),
        ([OLD, pod("new", ONE_OF_TWO)], None, True),
        ([OLD, pod("new", "Scheduling is blocked due to non-empty scheduling gates")], None, True),
        ([OLD, NEW, WAITS], None, True),
        ([OLD], QUOTA, True),
        # There is room, or nobody's end would make any.
        ([OLD], None, False),
        ([OLD, NEW], None, False),
        ([OLD, pod("new", NOWHERE)], None, False),
        ([OLD], POLICY, False),
        # It is no rollout: nobody is replaced.
        ([WAITS], None, False),
        ([NEW, WAITS], QUOTA, False),
        ([pod("old", SHORT), NEW], None, False),
        ([], QUOTA, False),
    ],
)
def test_an_old_pod_goes_first_where_a_new_one_waits_for_its_room(
    pods: list[Pod], refusal: Trouble | None, recreates: bool
) -> None:
    assert not look(pods, refusal=refusal).recreates, "not at the first word: the scheduler may have another soon"
    assert after(PATIENCE_SECONDS - 0.1, pods, refusal=refusal).recreates is False
    found = after(PATIENCE_SECONDS, pods, refusal=refusal)
    assert (found.recreates, found.begins) == (recreates, recreates)
    assert not after(PATIENCE_SECONDS, pods, refusal=refusal, rollout={"surge": False}).recreates, "as it is anyway"


def test_it_is_looked_at_again_when_patience_ends() -> None:
    first = look([OLD, WAITS], now=100.0)
    assert first.look_again_at == 100.0 + PATIENCE_SECONDS
    assert (
        first.says is not None and "2 Insufficient nvidia.com/gpu" in first.says and "the old ones stay" in first.says
    )
    assert look([OLD, WAITS], first, 105.0).look_again_at == first.look_again_at, "no look begins it anew"
    assert look([OLD, NEW], first, 105.0) == Surge("new"), "it has found room"


def test_no_old_pod_goes_first_while_it_scores_a_run() -> None:
    """Where the rollout had begun to recreate before, it goes on as it did: the Deployment is asked for nothing new."""
    shelf, pods = {"judge": Rolling("new", None)}, [OLD, WAITS]
    first = NO_ROLLOUT.look(model(), shelf, pods, None, 0.0, waits=True)
    later = first.look(model(), shelf, pods, None, 10 * PATIENCE_SECONDS, waits=True)
    assert not later.recreates and later.lacks is not None and later.look_again_at is None
    assert later.look(model(), shelf, pods, None, 10 * PATIENCE_SECONDS).recreates, "it has waited long enough"
    soon = first.look(model(), shelf, pods, None, 1.0)
    assert not soon.recreates and soon.look_again_at == PATIENCE_SECONDS
    begun = NO_ROLLOUT.look(model(), {"judge": Rolling("new", "new")}, pods, None, 0.0, waits=True)
    assert begun.recreates


def test_the_end_of_a_pod_is_waited_for_because_it_makes_room() -> None:
    """Of two replicas one is replaced, and its pod still ends when the next new one comes."""
    ending = dataclasses.replace(OLD, uid="ending", deleting=True)
    pods = [OLD, ending, NEW, WAITS]
    waits = after(PATIENCE_SECONDS, pods)
    assert not waits.recreates and waits.look_again_at is not None
    gone = look([OLD, NEW, WAITS], waits, 30.0)
    assert not gone.recreates and gone.look_again_at == 30.0 + PATIENCE_SECONDS, "the scheduler has not tried again yet"
    drain = effective_spec(model()).lifecycle.drain_timeout
    assert after(PATIENCE_SECONDS + drain + surging.END_SECONDS, pods).recreates, "on a node that is gone it never ends"


def test_a_rollout_that_recreates_does_so_to_its_end_and_the_next_one_surges() -> None:
    """The annotation is all that a new operator process knows."""
    for pods in ([OLD, WAITS], [OLD, NEW], [dataclasses.replace(OLD, deleting=True), WAITS]):
        found = look(pods, recreates="new")
        assert found.recreates and not found.begins, "that it began was told by who began it"
        assert found.says is not None and "after an old one has gone" in found.says
    assert not look([NEW, NEW], recreates="new").recreates, "it is over"
    assert not look([OLD, NEW], recreates="old").recreates, "that was another rollout"


def test_what_cannot_be_written_is_decided_again_and_told_once() -> None:
    first = after(PATIENCE_SECONDS, [OLD, WAITS])
    again = look([OLD, WAITS], first, PATIENCE_SECONDS + 1)
    assert first.begins and again.recreates and not again.begins


def test_who_waits_for_room_in_a_rollout_is_in_no_trouble() -> None:
    (old, waits, nowhere) = Surge("new").judge([OLD, WAITS, pod("new", NOWHERE)])
    assert old == OLD and waits.trouble is None
    assert nowhere.trouble is not None, "no room of others would help it"
    assert Surge().judge([WAITS]) == [WAITS], "and without a rollout nobody makes room"


ROLLS = {"maxSurge": 1, "maxUnavailable": 0}
ONE_BY_ONE = {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize(
    ("spec", "rolls"),
    [
        ({"gpu": {}}, ROLLS),
        ({}, ROLLS),
        ({"gpu": {}, "rollout": {"surge": True}}, ROLLS),
        ({"gpu": {}, "rollout": {"surge": False}}, ONE_BY_ONE),
        ({"rollout": {"surge": False}}, ONE_BY_ONE),
    ],
)
def test_a_deployment_surges_unless_it_is_told_not_to(spec: dict[str, Any], rolls: dict[str, int]) -> None:
    made = make({"model": {"uri": "hf://a/b"}, **spec})["Deployment/judge"]
    assert made["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolls}
    assert "minReadySeconds" not in made["spec"], "its readiness gate opens when it serves"


def test_a_server_without_a_door_counts_when_it_could_be_labelled() -> None:
    engine = {"name": "custom", "image": "x", "custom": {"command": ["serve"]}}
    assert make({"model": {"uri": "hf://a/b"}, "engine": engine})["Deployment/judge"]["spec"]["minReadySeconds"] == 2


def test_only_the_deployment_of_this_revision_removes_a_pod_first() -> None:
    manifests = list(make({"model": {"uri": "hf://a/b"}, "gpu": {}, "routing": {"mode": "Router"}}).values())
    (judge,) = (m for m in manifests if m["kind"] == "Deployment" and m["metadata"]["name"] == "judge")
    rolling = Rolling.of(judge)
    assert rolling is not None and rolling.recreates is None
    assert surging.lay(manifests, None) == surging.lay(manifests, "another") == manifests
    laid = surging.lay(manifests, rolling.revision)
    (changed,) = (m for m in laid if m not in manifests)
    assert changed["spec"]["strategy"]["rollingUpdate"] == ONE_BY_ONE
    assert changed["spec"]["template"] == judge["spec"]["template"] and len(laid) == len(manifests)
    assert Rolling.of(changed) == Rolling(rolling.revision, rolling.revision), "where the next operator finds it"


OPEN, SHUT = make_door(DoorState.SERVING), make_door(DoorState.ASLEEP, asleep=True)
SERVES: dict[str, Any] = {"door": OPEN, "serving": True, "labelled_boot_id": "b1"}
STARTS: dict[str, Any] = {"ready": False, "verified_boot_id": None, "passed": False}
AWAKE, ASLEEP = Demand(Desired.AWAKE, "", (), (), None), Demand(Desired.ASLEEP, "", (), (), None)


def told(demand: Demand, *pods: Pod, **more: Any) -> tuple[str, dict[str, tuple[str, str]]]:
    """The phase, and each condition's status and reason."""
    status = seen(model(), pods=pods, demand=demand, **more)
    return status["phase"], {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def test_the_status_tells_of_both_pods_of_a_surge_and_is_ready_again_with_the_new_one() -> None:
    phase, conditions = told(AWAKE, pod("old", **SERVES), pod("new", **STARTS))
    assert (phase, conditions["Available"][0], conditions["Ready"][0]) == ("Starting", "True", "False")
    assert conditions["Progressing"] == ("True", "Starting") and conditions["Degraded"][0] == "False"
    phase, conditions = told(AWAKE, pod("old", **SERVES, deleting=True), pod("new", **SERVES))
    assert (phase, conditions["Ready"][0]) == ("Serving", "True")
    phase, conditions = told(ASLEEP, pod("old", door=SHUT), pod("new", **STARTS))
    assert (phase, conditions["Asleep"][0]) == ("Starting", "False")
    phase, conditions = told(ASLEEP, pod("new", door=SHUT))
    assert (phase, conditions["Asleep"][0]) == ("Asleep", "True")


def test_the_status_tells_that_old_pods_go_first_and_why() -> None:
    surge = after(PATIENCE_SECONDS, [OLD, WAITS])
    waits = surge.judge([pod("old", **SERVES), WAITS])
    phase, conditions = told(AWAKE, *waits, surge=surge)
    assert (phase, conditions["Progressing"], conditions["Degraded"][0]) == (
        "Starting",
        ("True", "Recreating"),
        "False",
    )
    _, conditions = told(AWAKE, pod("new", **SERVES), surge=surge)
    assert conditions["Progressing"] == ("False", "Serving"), "the last of the old ones ends, and nobody waits for it"


def test_a_pod_that_a_run_keeps_from_serving_is_none_that_is_waited_for() -> None:
    for old, new in (
        (pod("old", **SERVES), pod("new", held=True, **STARTS)),
        (pod("old", held=True), pod("new", **SERVES)),
    ):
        phase, conditions = told(AWAKE, old, new)
        assert (phase, conditions["Ready"][0]) == ("Serving", "True")
