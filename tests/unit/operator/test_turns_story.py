"""Whoever shares GPUs, whatever they do: models that runs and people want, and trainers that hold what they have.

Never do two have one GPU; whoever can be served is served in the end; and who cannot, because runs wait for each other,
is told so.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from genrm_api.leases import DemandLease, Phase, lease_manifest, lease_name
from genrm_operator.cache import Cache
from genrm_operator.kube import Kube
from genrm_operator.observed import Door, DoorState, Place, Pod, Transition
from genrm_operator.slots import Book, Holding, asks, let_in, refusals
from genrm_operator.trainers import Trainers, has, wants
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.operator.test_lifecycle import make_pod

T = TypeVar("T")

TURN = 100.0
FOR_EVER = 10**9
CREATED = datetime(2026, 11, 21, tzinfo=UTC)
DOOR = Door(DoorState.SERVING, 0, "b1", engine_asleep=False)
ASLEEP = Door(DoorState.ASLEEP, 0, "b1", engine_asleep=True)

ZERO, ONE, TWO = (frozenset[Place]({("device", "n", str(number))}) for number in range(3))
MODELS: dict[str, dict[str, frozenset[Place]]] = {
    "a": {"x": ZERO}, "b": {"x": ZERO, "y": ONE}, "c": {"z": ZERO | ONE}, "d": {"w": TWO},
}  # fmt: skip
FLOOR = ("rl", "floor")
"""A RewardModel that nobody wants, whose slots trainers name."""
TRAINERS = [
    ("q", ("gpu-0",)), ("q", ("gpu-1", "gpu-2")), ("r", ("gpu-1",)), ("r", ("gpu-0", "gpu-2")), ("p", ("gpu-2",)),
]  # fmt: skip
"""By their Leases: a run and its slots."""
RUNS = ("p", "q", "r")
Wish = tuple[str, str | tuple[str, ...]]
"""A run, and a model or the slots of a trainer."""
WISHES: list[Wish] = [*TRAINERS, *((run, model) for run in RUNS for model in MODELS)]
names, runs, trainers = st.sampled_from(sorted(MODELS)), st.sampled_from(RUNS), st.sampled_from(TRAINERS)


class Leases:
    """The API server, as far as it goes here: it keeps Leases, and what it answers the cache has seen."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._objects: dict[str, dict[str, Any]] = {}
        self._version = 0

    def write(
        self, run: str, model: str, slots: tuple[str, ...], priority: int, said: Mapping[str, str | None]
    ) -> None:
        manifest = lease_manifest(run, model, "rl", Phase.IDLE, CREATED, FOR_EVER, priority=priority, slots=slots)
        name = manifest["metadata"]["name"]
        self._objects.setdefault(name, manifest)["metadata"]["uid"] = name
        self._annotate(name, said)

    async def merge_patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        return self._annotate(name, patch["metadata"]["annotations"])

    def _annotate(self, name: str, said: Mapping[str, str | None]) -> dict[str, Any]:
        self._version += 1
        meta = self._objects[name]["metadata"]
        meta["resourceVersion"] = str(self._version)
        full = {key if "/" in key else f"genrm.dev/{key}": word for key, word in said.items()}
        kept = {key: word for key, word in meta["annotations"].items() if key not in full}
        meta["annotations"] = kept | {key: word for key, word in full.items() if word is not None}
        self._cache.put_lease(found := deepcopy(self._objects[name]), deleted=False)
        return found


class Turns(RuleBasedStateMachine):
    """Looks at models and trainers in any order, between which they want, wake, sleep, hang, restart and end.

    A model obeys: it wakes what it was given and puts to sleep what it was not, now or later, seen or unseen. A trainer
    keeps what it was granted until its run has all that it asked for, or is refused something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.wishes = 0.0, 0
        self.cache = Cache()
        self.api = Leases(self.cache)
        self.mine = {name: Holding("rl", name, slots, None) for name, slots in MODELS.items()}
        floor = Holding(*FLOOR, {"gpu-0": ZERO, "gpu-1": ONE, "gpu-2": TWO}, None)
        self.cache.holdings |= {FLOOR: floor} | {holding.owner: holding for holding in self.mine.values()}
        self.persons: set[str] = set()
        """Models that a person wants awake."""
        self.up = {(name, slot): False for name, slots in MODELS.items() for slot in slots}
        self.unseen: set[tuple[str, str]] = set()
        self.orders: dict[tuple[str, str], bool] = {}
        """What a look has decided and not begun yet: whether to wake."""
        self.going: dict[tuple[str, str], bool] = {}
        """Orders that are under way."""
        self.plan: list[Wish] = []
        self.told: dict[str, dict[str, str]] = {}
        """What each model's look told the runs that want it."""
        self.begin()

    def begin(self) -> None:
        self.book = Book(TURN)
        self.trainers = Trainers(cast(Kube, self.api), self.cache, self.book, lambda *_: None)

    # ------------------------------------------------------------------ what people and programs do

    @initialize(plan=st.lists(st.sampled_from(WISHES) | trainers, min_size=4, max_size=10, unique=True))
    def runs_plan(self, plan: list[Wish]) -> None:
        """What they will ask for in the end, one after the other."""
        self.plan = plan

    @rule(name=names, wants=st.booleans())
    def a_person_wants(self, name: str, wants: bool) -> None:
        (self.persons.add if wants else self.persons.discard)(name)
        self.look(name)

    @rule(run=runs, name=names, scores=st.booleans(), priority=st.integers(0, 1))
    def a_run_wants(self, run: str, name: str, scores: bool, priority: int = 0) -> None:
        self.api.write(run, name, (), priority, {"phase": "scoring" if scores else "idle"})
        self.look(name)

    @rule(who=trainers, priority=st.integers(0, 1))
    def a_trainer_asks(self, who: tuple[str, tuple[str, ...]], priority: int) -> None:
        if self.lease_of(*who) is None or not wants(self.lease_of(*who)):
            self.wishes += 1
            self.api.write(who[0], FLOOR[1], who[1], priority, {"phase": "scoring", "asked": str(self.wishes)})
        self.look_at_trainers()

    @rule(who=trainers)
    def a_trainer_gives_back(self, who: tuple[str, tuple[str, ...]]) -> None:
        self.api.write(who[0], FLOOR[1], who[1], 0, {"phase": "idle", "asked": None})

    @rule(seconds=st.sampled_from([1.0, 60.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def lease_of(self, run: str, slots: tuple[str, ...]) -> DemandLease | None:
        return self.cache.trainers[FLOOR].get(lease_name(run, FLOOR[1], slots))

    # ------------------------------------------------------------------ what the operator does

    @rule()
    def look_at_trainers(self) -> None:
        self.cache.placed = {pod.uid: pod for pod in self.pods(looked=False)}
        at_once(self.trainers.settle(FLOOR, self.now))

    @rule(name=names)
    def look(self, name: str) -> None:
        self.orders_begin(name)
        mine = self.mine[name]
        leases = [lease for lease in self.cache.leases[mine.owner].values() if lease.phase.wants_awake]
        wanted = bool(leases) or name in self.persons
        looked = [pod for pod in self.pods(looked=True) if pod.reward_model == name]
        found, _ = self.book.settle(
            mine, asks(mine, (), leases) if wanted else [], looked, {}, self.pods(looked=False), self.trainers.takers(),
            self.cache.wanting, self.now,
        )  # fmt: skip
        self.told[name] = refusals(found.values())
        for pod in let_in(looked, found, mine):
            slot = pod.name.partition("-")[2]
            if (name, slot) not in self.going and pod.door is not None:
                wake = pod.may_be_up and wanted
                if wake is not self.up[name, slot]:
                    self.orders[name, slot] = wake

    @rule(name=names)
    def orders_begin(self, name: str) -> None:
        """A look ends before the next one of the same model begins."""
        for key in [key for key in self.orders if key[0] == name]:
            self.going[key] = self.orders.pop(key)

    @rule(which=st.integers(0, 9))
    def an_order_is_carried_out(self, which: int) -> None:
        if self.going:
            key = sorted(self.going)[which % len(self.going)]
            self.up[key] = self.going.pop(key)

    @rule()
    def the_operator_is_killed(self) -> None:
        """Its orders end as they end; what it knew is lost. Whose order is under way shows in its door."""
        self.orders.clear()
        while self.going:
            self.an_order_is_carried_out(0)
        self.told.clear()
        self.begin()

    # ------------------------------------------------------------------ what pods do

    def pods(self, *, looked: bool) -> list[Pod]:
        return [
            make_pod(
                uid=f"{name}-{slot}", reward_model=name, name=f"{name}-{slot}", places=MODELS[name][slot],
                released_boot_id="b1", busy=Transition.WAKE if (name, slot) in self.going else None, serving=up,
                door=None if not looked or (name, slot) in self.unseen else DOOR if up else ASLEEP,
            )
            for (name, slot), up in self.up.items()
        ]  # fmt: skip

    @rule(name=names)
    def a_pod_is_silent(self, name: str) -> None:
        self.unseen |= {key for key in self.up if key[0] == name}

    @rule(name=names)
    def it_answers_again(self, name: str) -> None:
        self.unseen -= {key for key in self.up if key[0] == name}

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def no_two_have_one_gpu(self) -> None:
        having: list[tuple[Any, frozenset[Place]]] = [
            (key, MODELS[key[0]][key[1]]) for key in self.up if self.up[key] or self.going.get(key)
        ]
        floor = self.cache.holdings[FLOOR]
        having += [
            (lease.name, floor.places_of(lease.slots) or frozenset())
            for lease in self.cache.trainers[FLOOR].values()
            if has(lease)
        ]
        places = [place for _, taken in having for place in taken]
        assert len(places) == len(set(places)), f"{[who for who, _ in having]} have GPUs together"

    def teardown(self) -> None:
        """Nothing is silent, looks and programs go on: every wish is met, or its run is told that it waits for ever."""
        self.unseen.clear()
        for run, what in self.plan:
            if isinstance(what, str):
                self.a_run_wants(run, what, scores=True)
            else:
                self.a_trainer_asks((run, what), 0)
            self.look_at_all()
        want = self.wanted()
        met: set[tuple[str | None, str]] = set()
        told: set[str] = set()
        for _ in range(60):
            self.look_at_all()
            met |= {wish for wish in self.wanted() if self.is_met(wish[1])}
            refused = self.refused()
            for run in refused:
                assert any(run_ == run and self.is_met(what) for run_, what in self.wanted()), f"{run} has nothing"
            for run in RUNS:
                if run in refused or {wish for wish in self.wanted() if wish[0] == run} <= met:
                    self.ends(run)
            told |= refused
            if all(wish in met or wish[0] in told for wish in want):
                return
            self.now += TURN / 4
        left = [wish for wish in want if wish not in met and wish[0] not in told]
        raise AssertionError(f"{left} wait for ever; {self.wanted()}")

    def look_at_all(self) -> None:
        for _ in range(2):
            for name in MODELS:
                self.look(name)
                self.orders_begin(name)
                while self.going:
                    self.an_order_is_carried_out(0)
                self.no_two_have_one_gpu()
            self.look_at_trainers()
            self.no_two_have_one_gpu()

    def wanted(self) -> set[tuple[str | None, str]]:
        """Who wants what: a run, or a person, and a model or a trainer's Lease."""
        return {
            *((None, name) for name in self.persons),
            *((lease.run, lease.reward_model) for leases in self.cache.leases.values() for lease in leases.values()
              if lease.phase.wants_awake),
            *((lease.run, lease.name) for lease in self.cache.trainers[FLOOR].values() if wants(lease)),
        }  # fmt: skip

    def is_met(self, what: str) -> bool:
        """A model with several slots may never have all of them at once: each is a turn of its own."""
        if what in MODELS:
            return any(self.up[what, slot] for slot in MODELS[what])
        return has(self.cache.trainers[FLOOR][what])

    def refused(self) -> set[str]:
        trained = {lease.run for lease in self.cache.trainers[FLOOR].values() if lease.refused is not None}
        return trained.union(*self.told.values())

    def ends(self, run: str) -> None:
        """Its program has all that it wants, or hears an exception."""
        for name in MODELS:
            if lease_name(run, name) in self.cache.leases["rl", name]:
                self.a_run_wants(run, name, scores=False)
        for who in TRAINERS:
            if who[0] == run and self.lease_of(*who) is not None:
                self.a_trainer_gives_back(who)


def at_once(doing: Coroutine[Any, Any, T]) -> T:
    """What waits for nothing."""
    try:
        doing.send(None)
    except StopIteration as ended:
        return cast(T, ended.value)
    raise AssertionError("it waits")


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
