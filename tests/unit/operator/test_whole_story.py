"""Whatever happens to everybody at once: models on GPUs that they share and do not share, runs, trainers, engines with
every fault, a network, an API server, and operators that die at any moment, and at any call to a pod.

The operator is the real one from its queue on, before real doors, in a time that passes only when everybody waits. So
what is found here is found of the way from a Lease to a label: `demand`, the slots, `decide`, the transitions, and what
is remembered. What must never be is asserted where it would be done (`machines`, `world`); what must come is waited for
in the end, when no more faults happen and nobody asks for a look.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Final

import pytest
from genrm_api.leases import Phase, lease_name
from genrm_api.names import (
    ANNOTATION_ASKED,
    ANNOTATION_NEEDED_IN,
    ANNOTATION_PHASE,
    LABEL_REWARD_MODEL,
    LABEL_SERVING,
    golden_configmap_name,
)
from genrm_api.rewardmodel import RewardModel
from genrm_door.record import State
from genrm_operator import golden
from genrm_operator.trainers import wants
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.unit.operator.api_server import Obj
from tests.unit.operator.happenings import RESTART, RUNS, Happenings, model, numbers, on, runs, states
from tests.unit.operator.machines import CHAT, WELL, Replica, comes, worse
from tests.unit.operator.world import World

MOST_SECONDS: Final = 150.0
"""Of a transition: a drain, a sleep that hangs, and what is asked before and after."""
CALM_SECONDS: Final = 600.0
"""Until everybody has had what he asked for; turns are of 20 s, Leases of 30."""
REST_SECONDS: Final = 120.0
PODS: Final = 5
MODELS: Final = {
    "judge": model("judge", gpu=on(left=0)),
    "critic": model("critic", gpu=on(one=0, two=1), replicas=2, lifecycle=RESTART),
    "alone": model("alone", replicas=2),
}
TRAINERS: Final = (("q", ("one",)), ("r", ("two",)), ("r", ("one", "two")))
"""Runs, and slots of the critic."""
names, trainers = st.sampled_from(sorted(MODELS)), st.sampled_from(TRAINERS)
late = st.sampled_from([0.0, 0.0, 3.0, 12.0])
ORDERS: Final = ("/sleep", "/wake_up", "/is_sleeping", "/v1/completions", "/v1/models", CHAT)
FAULTS: Final[tuple[Obj, ...]] = (
    *({"hang": frozenset({path})} for path in ORDERS), *({"status": {path: 500}} for path in ORDERS),
    *({"slow": {path: 12.0}} for path in ("/sleep", "/wake_up", "/is_sleeping", CHAT)),
    {"deaf": frozenset({"/sleep"})}, {"deaf": frozenset({"/wake_up"})}, {"lie": True},
    {"lie": True, "deaf": frozenset({"/sleep"})}, {"keeps": 0.85},
)  # fmt: skip


@functools.cache
def recorded() -> tuple[Obj, ...]:
    """What engines of these models computed while all was well, and two pods of each agreed on."""
    world = World(list(MODELS.values()), measurable=True)
    try:
        for name in ("judge", "critic", "alone"):
            for other in MODELS:
                obj = world.api.there["RewardModel", other]
                state = {**obj["spec"]["lifecycle"], "state": "Awake" if other == name else "Asleep"}
                meta = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1}
                world.api.put("RewardModel", {**obj, "metadata": meta, "spec": {**obj["spec"], "lifecycle": state}})
            world.loop.pass_by(60.0)
            phases = {obj["metadata"]["name"]: obj["status"]["phase"] for obj in world.api.of("RewardModel")}
            assert phases[name] == "Serving", phases
        assert not world.broken, world.broken
        return tuple(_agreed(world.api.there["ConfigMap", golden_configmap_name(name)]) for name in MODELS)
    finally:
        world.close()


def _agreed(obj: Obj) -> Obj:
    rm = RewardModel.model_validate(MODELS[obj["metadata"]["labels"][LABEL_REWARD_MODEL]])
    read = golden.read(obj) or {}
    known = {key: tuple(dataclasses.replace(one, agreed=True) for one in found) for key, found in read.items()}
    made = golden.config_map(rm, known)
    return {**made, "metadata": {**made["metadata"], "uid": obj["metadata"]["uid"]}}


class Everything(Happenings):
    @initialize(measurable=st.booleans())
    def begin(self, measurable: bool) -> None:
        before = recorded()
        self.world = World([], measurable=measurable)
        self.world.operator_dies()
        for obj in before:
            self.world.api.put("ConfigMap", obj)
        for rm in MODELS.values():
            self.world.api.put("RewardModel", rm)
        self.world.starts()
        self.wishes = 0
        self.kept: set[str] = set()
        self.since: dict[tuple[str, int], float] = {}
        self.time_passes(15.0)

    # -- what people and programs do

    @rule(name=names, state=states)
    def a_person_wants(self, name: str, state: str) -> None:
        self.wants(name, state)

    @rule(
        run=runs, name=names, phase=st.sampled_from([*Phase, Phase.SCORING]), needed_in=st.sampled_from([None, 5, 60])
    )
    def a_run_says(self, run: str, name: str, phase: Phase, needed_in: int | None) -> None:
        said = str(needed_in) if needed_in is not None and phase is Phase.PREWAKE else None
        self.write(run, name, (), {ANNOTATION_PHASE: str(phase), ANNOTATION_NEEDED_IN: said})

    @rule(who=trainers)
    def a_trainer_asks(self, who: tuple[str, tuple[str, ...]]) -> None:
        lease = next((found for found in self.world.leases if found.name == lease_name(who[0], "critic", who[1])), None)
        if lease is None or not wants(lease):
            self.wishes += 1
            said = {ANNOTATION_PHASE: str(Phase.SCORING), ANNOTATION_ASKED: str(self.wishes)}
            self.write(who[0], "critic", who[1], said)

    @rule(who=trainers)
    def a_trainer_gives_back(self, who: tuple[str, tuple[str, ...]]) -> None:
        if ("Lease", lease_name(who[0], "critic", who[1])) in self.world.api.there:
            self.write(who[0], "critic", who[1], {ANNOTATION_PHASE: str(Phase.IDLE), ANNOTATION_ASKED: None})

    @rule(run=st.sampled_from([*RUNS, "r"]))
    def a_run_crashes(self, run: str) -> None:
        self.world.alive.discard(run)

    @rule(run=st.sampled_from([*RUNS, "r"]))
    def a_runs_pod_is_gone(self, run: str) -> None:
        self.world.alive.discard(run)
        self.world.api.remove("Pod", run)

    @rule(who=trainers)
    def a_trainer_dies_with_what_it_has(self, who: tuple[str, tuple[str, ...]]) -> None:
        """And stays for longer than its Lease, while somebody else wants the same GPUs."""
        self.a_trainer_asks(who)
        self.time_passes(7.0)
        self.a_run_crashes(who[0])
        self.a_run_says("p", "critic", Phase.SCORING, None)
        self.time_passes(45.0)

    @rule(who=trainers, name=names)
    def the_operator_is_killed_while_a_trainer_has_what_others_want(
        self, who: tuple[str, tuple[str, ...]], name: str
    ) -> None:
        self.a_trainer_asks(who)
        self.time_passes(7.0)
        self.a_run_says("p", name, Phase.SCORING, None)
        self.time_passes(0.5)
        self.the_operator_is_killed(0.0)
        self.time_passes(7.0)

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers, many=st.integers(1, 3), apart=st.sampled_from([0.0, 0.0, 2.0]))
    def clients_come(self, which: int, many: int, apart: float) -> None:
        """Those who come after each other find what became of the door meanwhile."""
        replica = self.replica(which)
        for number in range(many):
            self.world.loop.create_task(comes(self.world, replica, number * apart))

    # -- what happens to pods

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers, fault=st.sampled_from(FAULTS))
    def something_goes_wrong(self, which: int, fault: Obj) -> None:
        replica = self.replica(which)
        if "keeps" in fault:
            if replica.container is None or replica.container.engine.asleep:
                return  # it has given back what it gives back
            self.kept.add(replica.name)
        replica.told(worse(replica.faults, **fault))

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def it_is_well_again(self, which: int) -> None:
        replica = self.replica(which)
        replica.told(worse(WELL, keeps=replica.faults.keeps))
        replica.rots = False

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def its_next_wake_leaves_it_corrupt(self, which: int) -> None:
        self.replica(which).rots = True

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def its_engine_changes_by_itself(self, which: int) -> None:
        container = self.replica(which).container
        if container is not None and container.door is not None and not container.starting:
            container.strays()

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers, many=st.integers(1, 3))
    def its_next_answers_are_lost(self, which: int, many: int) -> None:
        self.replica(which).lose = many

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def somebody_labels_it(self, which: int) -> None:
        self.world.api.annotate("Pod", self.replica(which).name, labels={LABEL_SERVING: "true"})

    @rule(bytes_=st.sampled_from([0, 0, 6 << 30]))
    def a_stranger_has_memory(self, bytes_: int) -> None:
        """On every GPU, and it asks nobody."""
        self.world.stranger = bytes_

    # -- what happens to the operator

    @rule(calls=st.integers(1, 40), seconds=st.sampled_from([1.0, 5.0]), dies=st.booleans(), late=late)
    def it_gets_no_answer(self, calls: int, seconds: float, dies: bool, late: float) -> None:
        """To one of its next calls, because it is killed, or because the answer is lost. Of who was killed the call may
        still be on the road."""
        self.world.calls_left, self.world.dies_then, self.world.late = calls, dies, late
        self.world.loop.pass_by(seconds)
        self.world.calls_left = None
        if self.world.operator is None:
            self.world.starts()

    @rule(name=names, calls=st.integers(1, 12), dies=st.booleans(), late=late)
    def it_gets_no_answer_while_a_model_turns(self, name: str, calls: int, dies: bool, late: float) -> None:
        """To sleep, or from it."""
        pods = (obj["metadata"] for obj in self.world.api.of("Pod"))
        labels = [pod["labels"] for pod in pods if pod.get("labels", {}).get(LABEL_REWARD_MODEL) == name]
        self.a_person_wants(name, "Asleep" if any(LABEL_SERVING in its for its in labels) else "Awake")
        self.it_gets_no_answer(calls, 5.0, dies, late)

    @rule(seconds=st.sampled_from([0.01, 1.0, 12.0]))
    def another_one_leads_and_it_goes_on(self, seconds: float) -> None:
        """Paused, and cut off from the API server, it does not know yet: its orders are still on their way."""
        old = self.world.operator
        assert old is not None
        old.deposed = True
        self.world.starts()
        self.world.loop.call_later(seconds, old.dies)

    # -- what must hold

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        if not hasattr(self, "world") or (operator := self.world.operator) is None:
            return
        now = self.world.loop.time()
        running = {(what, id(task)) for what, task in operator.running}
        self.since = {key: self.since.get(key, now) for key in running}
        late = [what for (what, _), since in self.since.items() if now - since > MOST_SECONDS]
        assert not late, late

    def calm(self) -> None:
        """No more faults: whoever asks gets it or hears that he never will, and then everything rests."""
        world = self.world
        world.api.away_until, world.watch_lag, world.calls_left, world.stranger = 0.0, 0.01, None, 0
        for replica in list(world.replicas.values()):
            replica.told(WELL)
            replica.rots, replica.lose = False, 0
            replica.reachable.set()
            if replica.name in self.kept:
                world.restart(replica)
        for run in {lease.run for lease in world.leases} - world.alive:
            world.api.remove("Pod", run)
        if world.operator is None:
            world.starts()
        self.until_none(self.waiting, CALM_SECONDS, "wait for ever")
        for name in MODELS:
            self.a_person_wants(name, "Auto")
        for lease in world.leases:
            world.api.remove("Lease", lease.name)
        self.until_none(self.moving, REST_SECONDS, "for ever")

    def moving(self) -> list[str]:
        """What does not rest yet."""
        operator = self.world.operator
        assert operator is not None
        lacking = ["too few pods"] if len(self.world.replicas) != PODS else []
        awake = [f"{r.name} is up" for r in self.world.replicas.values() if not self.rests(r)]
        return [*lacking, *awake, *(what for what, _ in operator.running)]

    def pass_a_second(self) -> None:
        super().pass_a_second()
        self.nothing_waits_for_ever()

    def waiting(self) -> set[str]:
        """Runs that have not heard yet of all that they want; those who have end."""
        found = set()
        for run in self.world.alive & {lease.run for lease in self.world.leases}:
            mine = [lease for lease in self.world.leases if lease.run == run]
            if any(lease.refused is not None for lease in mine) or all(map(self.is_met, mine)):
                self.a_run_ends(run)
            else:
                found.add(run)
        return found

    def is_met(self, lease: Any) -> bool:
        if lease.slots:
            return not wants(lease) or lease.granted == lease.asked
        return super().is_met(lease)

    def rests(self, replica: Replica) -> bool:
        """By the door's record, by the engine's truth, and for clients."""
        container = replica.container
        if container is None or container.starting or replica.deleting:
            return False
        if self.world.api.there["Pod", replica.name]["metadata"]["labels"].get(LABEL_SERVING) is not None:
            return False
        if container.state is State.GATED:
            return True
        return replica.model != "critic" and container.state is State.ASLEEP and container.engine.asleep

    def story(self) -> str:
        pods = {
            r.name: (str(c.state.value), c.engine.asleep, c.starting) if (c := r.container) is not None else None
            for r in self.world.replicas.values()
        }
        said = {
            obj["metadata"]["name"]: [
                f"{c['type']}={c['status']}: {c['message']}" for c in obj["status"]["conditions"]
                if c["type"] in ("Ready", "Degraded", "SlotBlocked", "ScoresVerified")
            ]
            for obj in self.world.api.of("RewardModel")
        }  # fmt: skip
        leases = {(x.run, x.reward_model, x.slots): (str(x.phase), x.granted, x.refused) for x in self.world.leases}
        return f"{pods} {leases} {said}"


TestEverything = Everything.TestCase
TestEverything.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.proof
@pytest.mark.timeout(9000)
def test_everything_at_length() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Everything, settings=settings(TestEverything.settings, max_examples=2000, stateful_step_count=50)
    )
