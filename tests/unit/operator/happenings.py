"""What happens in a story of the whole operator, whatever the story is about: runs, people, pods, operators, a network,
an API server and time; and how its end is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from genrm_api.leases import DemandLease, Phase, lease_manifest, lease_name
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.operator.api_server import Obj
from tests.unit.operator.machines import Replica
from tests.unit.operator.world import BEGAN, NAMESPACE, World

LIFECYCLE: Final[Obj] = {
    "sleep": {"drainTimeout": "10s", "timeout": "20s"}, "wake": {"timeout": "20s", "verify": True, "maxFailures": 3}
}  # fmt: skip
RESTART: Final = {**LIFECYCLE, "sleep": {**LIFECYCLE["sleep"], "mode": "Restart", "onDrainTimeout": "Abort"}}
RUNS: Final = ("p", "q")
STATES: Final = ("Auto", "Auto", "Awake", "Asleep", "Off")
runs, states, numbers = st.sampled_from(RUNS), st.sampled_from(STATES), st.integers(0, 8)


def on(**slots: int) -> Obj:
    return {"sharing": "Colocated", "slots": [{"name": n, "node": "n", "devices": [d]} for n, d in slots.items()]}


def model(name: str, **spec: Any) -> Obj:
    return {
        "apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"rm-{name}", "generation": 1},
        "spec": {"model": {"uri": "hf://a/b", "servedName": name}, "lifecycle": LIFECYCLE, **spec},
    }  # fmt: skip


class Happenings(RuleBasedStateMachine):
    world: World
    """There from the story's `begin` on."""

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.calm()
        finally:
            self.world.close()

    def calm(self) -> None:
        """No more faults: what must come is waited for."""
        raise NotImplementedError

    # -- what people and programs do

    def change(self, name: str, **spec: Any) -> None:
        obj = self.world.api.there["RewardModel", name]
        meta = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1}
        self.world.api.put("RewardModel", {**obj, "metadata": meta, "spec": {**obj["spec"], **spec}})

    def wants(self, name: str, state: str) -> None:
        self.change(name, lifecycle={**self.world.api.there["RewardModel", name]["spec"]["lifecycle"], "state": state})

    def write(self, run: str, name: str, slots: tuple[str, ...], said: dict[str, str | None]) -> None:
        """As its process does, which lives from then on, in a pod of its own."""
        api, lease = self.world.api, lease_name(run, name, slots)
        self.world.alive.add(run)
        if ("Pod", run) not in api.there:
            api.put("Pod", {"metadata": {"name": run, "namespace": NAMESPACE, "uid": run}, "spec": {}, "status": {}})
        if ("Lease", lease) not in api.there:
            at = BEGAN + timedelta(seconds=self.world.loop.time())
            made = lease_manifest(run, name, NAMESPACE, Phase.IDLE, at, slots=slots, pods=[run] if slots else ())
            api.put("Lease", {**made, "metadata": {**made["metadata"], "uid": f"{lease}-{self.world.loop.time()}"}})
        self.world.renew(api.annotate("Lease", lease, annotations=said))

    @rule(run=runs)
    def a_run_ends(self, run: str) -> None:
        for lease in self.world.leases:
            if lease.run == run:
                self.world.api.remove("Lease", lease.name)

    # -- what happens to pods

    def replica(self, which: int) -> Replica:
        there = list(self.world.replicas.values())
        return there[which % len(there)]

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def its_container_restarts(self, which: int) -> None:
        """With its old labels."""
        self.world.restart(self.replica(which))

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers)
    def a_pod_is_deleted(self, which: int) -> None:
        self.world.delete("Pod", self.replica(which).name)

    @precondition(lambda self: self.world.replicas)
    @rule(which=numbers, cut=st.booleans())
    def its_network(self, which: int, cut: bool) -> None:
        reachable = self.replica(which).reachable
        (reachable.clear if cut else reachable.set)()

    # -- what happens to the operator

    @rule(away=st.sampled_from([0.0, 0.0, 3.0, 40.0]))
    def the_operator_is_killed(self, away: float) -> None:
        self.world.operator_dies()
        if away:
            self.world.loop.pass_by(away)
        self.world.starts()

    @rule(seconds=st.sampled_from([2.0, 30.0]))
    def the_api_server_is_away(self, seconds: float) -> None:
        self.world.api.away_until = self.world.loop.time() + seconds

    @rule(seconds=st.sampled_from([0.01, 1.0, 8.0]))
    def watches_lag(self, seconds: float) -> None:
        self.world.watch_lag = seconds

    @rule(seconds=st.sampled_from([0.003, 0.05, 0.5, 2.0, 7.0, 20.0, 45.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.pass_by(seconds)

    # -- what must hold

    @invariant()
    def nothing_broke(self) -> None:
        if not hasattr(self, "world"):
            return
        assert not self.world.broken, self.world.broken
        wrong = {name: self.world.serves_wrongly(replica) for name, replica in self.world.replicas.items()}
        assert not any(wrong.values()), wrong

    def until_none(self, look: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until it finds nothing any more."""
        end = self.world.loop.time() + seconds
        while found := look():
            self.pass_a_second()
            if self.world.loop.time() > end:
                raise AssertionError(f"{found} {what}: {self.story()}")

    def pass_a_second(self) -> None:
        self.world.loop.pass_by(1.0)
        self.nothing_broke()

    def is_met(self, lease: DemandLease) -> bool:
        """Whether a run has its model, or may not have it."""
        lives = self.world.api.there["RewardModel", lease.reward_model]["spec"]["lifecycle"]
        asks = lease.phase is Phase.SCORING and lives.get("state", "Auto") in ("Auto", "Awake")
        return not asks or lease.granted is not None

    def is_granted(self, run: str) -> bool:
        return any(lease.run == run and lease.granted is not None for lease in self.world.leases)

    def story(self) -> str:
        """What there is, for whoever reads of a failure."""
        raise NotImplementedError
