"""Changes of the spec at any time, with runs that come and go, pods that are lost, and operators that die: one revision
scores each run, and when nobody holds a Lease any more, every pod is what was asked for last.

The world is that of the whole story (`test_whole_story`), with fewer faults of engines and a Deployment controller that
rolls out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from genrm_api.leases import DemandLease, Phase
from genrm_api.names import ANNOTATION_BOOT_ID, ANNOTATION_PHASE, ANNOTATION_REVISION, LABEL_SERVING
from genrm_operator.observed import Pod
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.unit.operator.api_server import Obj
from tests.unit.operator.deployments import revision
from tests.unit.operator.happenings import LIFECYCLE, RESTART, Happenings, model, numbers, on, runs, states
from tests.unit.operator.machines import WELL, Replica, worse
from tests.unit.operator.world import World

MODELS: Final = {
    "slotted": model("slotted", gpu=on(a=0, b=1, c=2), replicas=3),
    "ending": model("ending", gpu=on(x=3, y=4), replicas=2, lifecycle=RESTART),
    "surging": model("surging", replicas=2),
    "ordered": model("ordered", replicas=2, rollout={"surge": False}, lifecycle={**LIFECYCLE, "state": "Awake"}),
}
SLOTTED: Final = ("ending", "slotted")
PODS: Final = 9
DTYPES: Final = ("float16", "bfloat16", "float32")
CALM_SECONDS: Final = 900.0
"""Until every change has gone through every pod, each of which may first have to be drained."""
names, dtypes, awake, sick = (
    st.sampled_from(sorted(MODELS)), st.sampled_from(DTYPES), st.sampled_from(["Auto", "Awake"]), st.integers(0, 2)
)  # fmt: skip
soon = st.sampled_from([0.1, 0.7, 1.5, 3.5, 6.0, 9.0])


class Rolls(World):
    """Also knows what scored whom."""

    def __init__(self, models: Sequence[Obj], *, measurable: bool) -> None:
        self.scored: dict[str, str] = {}
        """The revision that served when a Lease was granted, by its uid."""
        super().__init__(models, measurable=measurable)

    def serving(self, name: str) -> set[str]:
        """The revisions of a model to whose pods Services send clients."""
        return {revision(self, r) for r in self.replicas.values() if r.model == name and self._is_served(r)}

    def _is_served(self, replica: Replica) -> bool:
        meta = self.api.there["Pod", replica.name]["metadata"]
        boot = (meta.get("annotations") or {}).get(ANNOTATION_BOOT_ID)
        labelled = meta["labels"].get(LABEL_SERVING) is not None
        return labelled and replica.container is not None and boot == replica.container.boot_id

    def can_score(self, name: str, wanted: str) -> bool:
        """Whether there is a pod of this revision, or will be one."""
        pods = (r for r in self.replicas.values() if r.model == name and not r.deleting)
        templates = (d["spec"]["template"]["metadata"] for d in self.api.of("Deployment"))
        owned = (meta["annotations"][ANNOTATION_REVISION] for meta in templates)
        return wanted in {revision(self, replica) for replica in pods} | set(owned)

    def labelled(self, name: str) -> None:
        super().labelled(name)
        if (replica := self.replicas.get(name)) is not None:
            self._look(replica.model)

    def granted(self, lease: Any) -> None:
        super().granted(lease)
        if lease.granted is not None:
            self._look(lease.reward_model)

    def _look(self, name: str) -> None:
        serving = self.serving(name)
        for obj in self.api.of("Lease"):
            lease, uid = DemandLease.from_object(obj), obj["metadata"]["uid"]
            if lease.reward_model != name or lease.run not in self.alive:
                continue  # nobody renews it: it may have expired
            if lease.granted is not None and uid not in self.scored and serving:
                if len(serving) > 1:
                    self.broke(f"{lease.run} is scored by {sorted(serving)} of {name}")
                self.scored[uid] = min(serving)
            was = self.scored.get(uid)
            if was is not None and serving - {was} and self.can_score(name, was):
                self.broke(f"{lease.run} was scored by {was} of {name}, and now by {sorted(serving)}")
            elif was is not None and serving - {was}:
                self.scored[uid] = min(serving)  # what scored it is lost


class Rollouts(Happenings):
    world: Rolls

    @initialize(run=runs, name=names, dtype=dtypes, state=awake, sick=sick, seconds=soon)
    def begin(self, run: str, name: str, dtype: str, state: str, sick: int, seconds: float) -> None:
        self.world = Rolls(list(MODELS.values()), measurable=True)
        self.time_passes(30.0)
        self.a_run_comes_in_the_middle(run, name, dtype, state, sick, seconds)

    # -- what people and programs do

    @rule(name=names, dtype=dtypes, seconds=st.sampled_from([0.0, 0.5, 1.5, 3.0, 5.0, 8.0]))
    def the_spec_changes(self, name: str, dtype: str, seconds: float) -> None:
        self.change(name, engine={"dtype": dtype})
        self.time_passes(seconds)

    @rule(name=names, state=states)
    def a_person_wants(self, name: str, state: str) -> None:
        self.wants(name, state)

    @rule(run=runs, name=names, phase=st.sampled_from([Phase.IDLE, Phase.SCORING, Phase.SCORING]))
    def a_run_says(self, run: str, name: str, phase: Phase) -> None:
        self.write(run, name, (), {ANNOTATION_PHASE: str(phase)})

    @rule(run=runs)
    def a_run_crashes(self, run: str) -> None:
        """If it comes back, it may be after its Lease has expired."""
        self.world.alive.discard(run)
        for obj in self.world.api.of("Lease"):
            if DemandLease.from_object(obj).run == run:
                self.world.scored.pop(obj["metadata"]["uid"], None)

    @rule(run=runs, name=names, dtype=dtypes, state=awake, sick=sick, seconds=soon)
    def a_run_comes_in_the_middle(self, run: str, name: str, dtype: str, state: str, sick: int, seconds: float) -> None:
        """While some pods are new ones; from the `sick`th on these cannot be verified."""
        world = self.world
        for lease in world.leases:
            if lease.reward_model == name:
                world.api.remove("Lease", lease.name)
        self.a_person_wants(name, state)
        self.time_passes(20.0)
        before = set(world.replicas)
        self.change(name, engine={"dtype": dtype})
        ends = world.loop.time() + 15.0
        while world.loop.time() < ends:
            self.time_passes(0.1)
            new = [r for r in world.replicas.values() if r.name not in before and r.model == name and not r.deleting]
            for replica in new[sick:]:
                replica.told(worse(WELL, status={"/v1/models": 500}))
            if len(new) > sick:
                break
        self.time_passes(seconds)
        self.a_run_says(run, name, Phase.SCORING)
        self.time_passes(seconds)

    # -- what happens to pods and operators

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers, sick=st.booleans())
    def it_cannot_be_verified(self, which: int, sick: bool) -> None:
        self.replica(which).told(worse(WELL, status={"/v1/models": 500}) if sick else WELL)

    # -- what must come

    def calm(self) -> None:
        """No more faults: runs that score are granted what they ask for, and then the last change goes everywhere."""
        world = self.world
        world.api.away_until, world.watch_lag = 0.0, 0.01
        for replica in list(world.replicas.values()):
            replica.told(WELL)
            replica.reachable.set()
        for lease in world.leases:
            if lease.run not in world.alive:
                world.api.remove("Lease", lease.name)
        self.until_none(self.waiting, CALM_SECONDS, "wait for ever")
        for lease in world.leases:
            world.api.remove("Lease", lease.name)
        for name in MODELS:
            self.a_person_wants(name, "Auto")
        self.until_none(self.behind, CALM_SECONDS, "are not what was asked for")

    def waiting(self) -> list[str]:
        return [f"{lease.run} for {lease.reward_model}" for lease in self.world.leases if not self.is_met(lease)]

    def behind(self) -> list[str]:
        """Pods that are not of the newest spec, or not at rest."""
        there = list(self.world.replicas.values())
        lacking = [f"{len(there)} pods"] if len(there) != PODS else []
        return [*lacking, *(replica.name for replica in there if not self.is_as_asked(replica))]

    def is_as_asked(self, replica: Replica) -> bool:
        obj = self.world.api.there["Pod", replica.name]
        asked = self.world.api.there["RewardModel", replica.model]["spec"].get("engine", {}).get("dtype")
        rests = obj["metadata"]["labels"].get(LABEL_SERVING) is None
        return Pod.from_object(obj).dtype == asked and rests and replica.ready and not replica.deleting

    def story(self) -> str:
        pods = {
            r.name: (
                revision(self.world, r),
                str(c.state.value) if (c := r.container) is not None else None,
                r.deleting,
            )
            for r in self.world.replicas.values()
        }
        said = {
            obj["metadata"]["name"]: [
                obj["status"].get("pinned", {}).get("revision"),
                *(f"{c['type']}={c['status']}: {c['message']}" for c in obj["status"]["conditions"]
                  if c["type"] in ("Ready", "Degraded", "RolloutWaiting")),
            ]
            for obj in self.world.api.of("RewardModel")
        }  # fmt: skip
        leases = {(x.run, x.reward_model): (str(x.phase), x.granted) for x in self.world.leases}
        return f"{pods} {leases} {said}"


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("state", ["Auto", "Awake"])
@pytest.mark.parametrize("sick", [0, 1])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_run_is_scored_by_one_revision_from_its_beginning_to_its_end(name: str, sick: int, state: str) -> None:
    story = Rollouts()
    story.begin("p", name, "float16", state, sick, 6.0)
    try:
        (scores,) = story.world.serving(name)
        for replica in story.world.replicas.values():
            replica.told(WELL)
        for phase in (Phase.SCORING, Phase.IDLE, Phase.SCORING):
            story.a_run_says("p", name, phase)
            story.the_operator_is_killed(3.0)
            story.time_passes(45.0)
            awake = phase is Phase.SCORING or state == "Awake"
            assert story.world.serving(name) == ({scores} if awake else set())
        assert set(story.world.scored.values()) == {scores}
        all_ = {revision(story.world, r) for r in story.world.replicas.values() if r.model == name and not r.deleting}
        at_gates = state == "Auto" and name in SLOTTED  # there a new pod takes its place before it starts
        assert (all_ == {scores}) is (sick == 1 or at_gates), "where new ones scored it, the rollout went on"
        story.nothing_broke()
        story.calm()
    finally:
        story.world.close()


@pytest.mark.parametrize("name", SLOTTED)
def test_who_scored_a_run_comes_back_though_all_such_pods_were_lost(name: str) -> None:
    story = Rollouts()
    story.begin("p", name, "float16", "Awake", 0, 6.0)
    try:
        (scores,) = story.world.serving(name)
        for replica in list(story.world.replicas.values()):
            replica.told(WELL)
            if replica.model == name and revision(story.world, replica) == scores:
                story.world.delete("Pod", replica.name)
        story.the_operator_is_killed(3.0)
        story.time_passes(60.0)
        assert story.world.serving(name) == {scores}
        story.nothing_broke()
        story.calm()
    finally:
        story.world.close()


def test_an_old_pod_that_does_not_answer_the_operator_scores_no_run_that_new_ones_score() -> None:
    """Clients may still reach it."""
    story = Rollouts()
    story.begin("q", "ordered", "float16", "Auto", 0, 0.1)
    try:
        world = story.world
        for replica in world.replicas.values():
            replica.told(WELL)
        story.a_person_wants("surging", "Awake")
        story.time_passes(20.0)
        *_, old = (r for r in world.replicas.values() if r.model == "surging")  # the one that goes last
        before = revision(world, old)
        old.reachable.clear()
        story.change("surging", engine={"dtype": "float16"})
        for _ in range(100):
            story.time_passes(0.1)
            if len(world.serving("surging")) > 1:
                break
        story.a_run_says("p", "surging", Phase.SCORING)
        for _ in range(100):
            story.time_passes(0.1)
            if story.is_granted("p"):
                break
        assert story.is_granted("p") and before not in world.serving("surging")
        story.nothing_broke()
        story.calm()
    finally:
        story.world.close()


@pytest.mark.proof
@pytest.mark.timeout(9000)
def test_rollouts_at_length() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Rollouts, settings=settings(TestRollouts.settings, max_examples=1000, stateful_step_count=40)
    )
