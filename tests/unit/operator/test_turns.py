"""Whose turn it is: tables for the cases people think of, and whatever may happen for the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from genrm_operator.observed import Door, DoorState, Night, Pod, Transition
from genrm_operator.slots import Book, Claim, Holding, Taker, Turn, Use, let_in, taker, turns
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.operator.test_lifecycle import make_pod

TURN = 100.0
NOW = 1000.0
GPU = frozenset({("device", "n", "0")})
OTHER = frozenset({("device", "n", "1")})
BOTH = frozenset({*GPU, *OTHER})


def claim(name: str, *, places: Any = GPU, runs: str = "", since: float = NOW - 1, **more: Any) -> Claim:
    return Claim(("rl", name), "s", places, frozenset(runs.split()), since=since, **more)


def served(name: str, since: float) -> Claim:
    """It was given the slot then, and served at once."""
    return claim(name, given_at=since, served_at=since)


def has(name: str, use: Use = Use.TAKEN, places: Any = GPU) -> Taker:
    return Taker(("rl", name), f"{name}-0", places, use, f"has pod {name}-0, which is up")


def given(claims: list[Claim], takers: list[Taker], now: float = NOW) -> set[str]:
    return {owner[1] for (owner, _), turn in turns(claims, takers, now, TURN).items() if turn.given}


@pytest.mark.parametrize(
    ("claims", "takers", "expected"),
    [
        pytest.param([claim("a")], [], {"a"}, id="nobody else"),
        pytest.param([claim("a"), claim("b", places=OTHER)], [], {"a", "b"}, id="different GPUs"),
        pytest.param([claim("a", since=2.0), claim("b", since=1.0)], [], {"b"}, id="who asked first"),
        pytest.param([claim("a", since=999.0), claim("b", since=999.5, priority=1)], [], {"b"}, id="priority first"),
        pytest.param([claim("a", since=1.0), claim("b", priority=9)], [], {"a"}, id="who waited for a turn before it"),
        pytest.param([claim("a")], [has("b")], set(), id="another is still up"),
        pytest.param([claim("a")], [has("b", Use.UNKNOWN)], set(), id="another may be up"),
        pytest.param([claim("a")], [has("b", Use.FREE)], {"a"}, id="another sleeps"),
        pytest.param([claim("a")], [has("b", places=OTHER)], {"a"}, id="another is up elsewhere"),
        pytest.param([claim("a")], [has("a", Use.UNKNOWN)], {"a"}, id="its own pod, of an operator before"),
        pytest.param(
            [claim("a", given_at=NOW - 1), claim("b", priority=9)], [has("a")], {"a"}, id="who has it keeps it"
        ),
        pytest.param([claim("a", given_at=1.0), claim("b")], [has("a")], {"a"}, id="nobody has waited for long"),
        pytest.param([served("a", 1.0), claim("b", since=2.0)], [has("a")], set(), id="a turn is over"),
        pytest.param(
            [claim("a", given_at=1.0, starts=5000.0), claim("b", since=2.0)], [has("a")], {"a"}, id="its engine starts"
        ),
        pytest.param(
            [claim("a", given_at=1.0, starts=500.0), claim("b", since=2.0)], [has("a")], set(), id="it never starts"
        ),
        pytest.param(
            [claim("whole", places=BOTH, since=1.0), served("a", NOW - 1), claim("c", places=OTHER)],
            [has("a")],
            {"a"},
            id="what is free is kept for who has waited for all of it",
        ),
        pytest.param(
            [claim("a", given_at=NOW - 50), claim("b", since=2.0)], [has("a")], {"a"}, id="it has just got it"
        ),
        pytest.param(
            [claim("a", given_at=1.0), claim("b")], [has("a"), has("b")], {"a"}, id="both are up: who was given it"
        ),
        pytest.param(
            [claim("a", given_at=NOW - 1)], [has("a", Use.FREE), has("b")], set(), id="one that woke by itself"
        ),
        pytest.param(
            [served("a", 1.0), claim("b", since=2.0)], [has("a", Use.FREE)], set(), id="it may begin any moment"
        ),
    ],
)
def test_who_gets_it(claims: list[Claim], takers: list[Taker], expected: set[str]) -> None:
    assert given(claims, takers) == expected
    assert given(claims[::-1], takers[::-1]) == expected, "in whatever order they are looked at"


def test_the_sentences_say_who_and_when() -> None:
    found = turns([served("a", NOW - 30), claim("b")], [has("a")], NOW, TURN)
    waits = found[("rl", "b"), "s"]
    assert waits.waits == "slot s is rl/a's, as long as it is asked for or until its turn is over"
    assert not waits.blocked and found[("rl", "a"), "s"] == Turn(given=True, look_again_at=NOW - 1 + TURN)
    (blocked,) = turns([claim("b")], [has("a", Use.UNKNOWN)], NOW, TURN).values()
    assert blocked == Turn(
        given=False, blocked=True,
        waits="slot s is not seen to be free: rl/a, which names the same GPUs, has pod a-0, which is up",
    )  # fmt: skip
    (soon,) = turns([claim("b")], [has("a")], NOW, TURN).values()
    assert soon == Turn(given=False, waits="slot s is next, when rl/a rests")


@pytest.mark.parametrize(
    ("holder", "waiter", "deadlock"),
    [("r", "r", True), ("r q", "r", True), ("r", "q", False), ("r", "r q", False), ("r", "", False), ("", "", False)],
)
def test_a_run_that_waits_for_itself_is_told_so_at_once(holder: str, waiter: str, deadlock: bool) -> None:
    """Not where another run, or a person, waits too: that one is no reason for ever."""
    claims = [claim("policy", runs=holder, given_at=NOW - 9), claim("judge", runs=waiter, since=NOW - 3)]
    found = turns(claims, [has("policy")], NOW, TURN)[("rl", "judge"), "s"]
    assert (found.deadlock, found.blocked) == (deadlock, deadlock) and not found.given
    if deadlock:
        assert found.waits is not None and found.waits.startswith(
            "run r holds slot s by rl/policy and waits for rl/judge, on the same GPUs, before it gives it back"
        )


def test_a_run_may_ask_for_the_next_model_a_moment_before_it_gives_the_last_one_back() -> None:
    claims = [claim("policy", runs="r", given_at=NOW - 9), claim("judge", runs="r", since=NOW - 0.5)]
    found = turns(claims, [has("policy")], NOW, TURN)[("rl", "judge"), "s"]
    assert (found.given, found.deadlock, found.look_again_at) == (False, False, NOW + 1.5)


def test_what_a_run_does_not_want_any_more_is_no_deadlock() -> None:
    """Nobody has looked at the other model since."""
    book, policy, judge = (
        Book(TURN),
        Holding("rl", "policy", {"s": GPU}, None),
        Holding("rl", "judge", {"s": GPU}, None),
    )
    up = [make_pod(reward_model="policy", uid="p", places=GPU, door=DOOR, released_boot_id="b1")]
    wanting = {("rl", "policy"): frozenset({"r"})}

    def settle(mine: Holding, pods: list[Pod], now: float) -> Turn:
        asks = [claim(mine.name, runs="r")]
        found, _ = book.settle(mine, asks, pods, {}, up, [], lambda owner: wanting.get(owner, frozenset()), now)
        return found["s"]

    assert settle(policy, up, NOW).given and not settle(judge, [], NOW).given
    assert settle(judge, [], NOW + 9).deadlock
    wanting.clear()
    waits = settle(judge, [], NOW + 9)
    assert (waits.given, waits.deadlock) == (False, False)


def test_who_is_refused_is_waited_for_by_nobody() -> None:
    """It takes no turn from the run that has the slot."""
    claims = [claim("policy", runs="r", given_at=1.0), claim("judge", runs="r", since=2.0)]
    assert given(claims, [has("policy")]) == {"policy"}


def test_of_two_slots_nobody_takes_one_and_waits_for_the_other() -> None:
    """Both models ask for both: one gets both."""
    claims = [
        Claim(("rl", name), slot, places, since=since)
        for name, slot, places, since in [("a", "x", GPU, 1.0), ("a", "y", OTHER, 4.0), ("b", "x", GPU, 3.0),
                                          ("b", "y", OTHER, 2.0)]
    ]  # fmt: skip
    both = frozenset({*GPU, *OTHER})
    whole = [Claim(("rl", "a"), "x", both, since=999.0), Claim(("rl", "b"), "x", both, since=999.5)]
    assert given(whole, []) == {"a"}
    assert len([turn for turn in turns(claims, [], NOW, TURN).values() if turn.given]) == 2


DOOR = Door(DoorState.SERVING, 0, "b1", engine_asleep=False)
ASLEEP = Door(DoorState.ASLEEP, 0, "b1", engine_asleep=True)
GATED = Door(DoorState.GATED, 0, "b1", engine_asleep=None)


@pytest.mark.parametrize(
    ("pod", "use"),
    [
        pytest.param(make_pod(door=DOOR), Use.TAKEN, id="it serves"),
        pytest.param(make_pod(door=ASLEEP), Use.FREE, id="it sleeps"),
        pytest.param(make_pod(door=dataclasses.replace(ASLEEP, engine_asleep=None)), Use.UNKNOWN, id="nobody knows"),
        pytest.param(
            make_pod(door=dataclasses.replace(ASLEEP, holds_memory=True)), Use.TAKEN, id="paused, and no more"
        ),
        pytest.param(make_pod(door=GATED, busy=Transition.START), Use.TAKEN, id="its release is on its way"),
        pytest.param(
            make_pod(door=dataclasses.replace(ASLEEP, engine_asleep=False)), Use.TAKEN, id="it woke by itself"
        ),
        pytest.param(make_pod(door=dataclasses.replace(ASLEEP, ordered=True)), Use.TAKEN, id="somebody wakes it"),
        pytest.param(make_pod(door=ASLEEP, busy=Transition.WAKE), Use.TAKEN, id="we wake it"),
        pytest.param(make_pod(door=GATED), Use.FREE, id="at its gate"),
        pytest.param(make_pod(door=None), Use.FREE, id="never let past its gate"),
        pytest.param(make_pod(door=None, released_boot_id="b1"), Use.UNKNOWN, id="let past, and silent"),
        pytest.param(make_pod(door=None, released_boot_id="b1", deleting=True), Use.UNKNOWN, id="it ends"),
        pytest.param(make_pod(door=None, released_boot_id="b1", runs=False), Use.FREE, id="its container is gone"),
    ],
)
def test_what_is_seen_of_a_pod(pod: Pod, use: Use) -> None:
    assert taker(pod, None).use is use


def test_a_sleep_that_keeps_the_memory_frees_no_slot() -> None:
    found = taker(make_pod(door=ASLEEP), Night(before=70 << 30, after=60 << 30))
    assert (found.use, "keeps 60.0 of 70.0 GiB" in found.because) == (Use.UNKNOWN, True)
    assert taker(make_pod(door=ASLEEP), Night(before=70 << 30, after=2 << 30)).use is Use.FREE
    remembered = taker(make_pod(door=ASLEEP), Night(before=0, after=1))
    assert (remembered.use, "keeps most of its memory" in remembered.because) == (Use.UNKNOWN, True)


def test_the_next_pod_of_a_slot_waits_for_the_one_before() -> None:
    mine = Holding("rl", "judge", {"s": GPU}, None)
    old = make_pod(uid="old", door=None, released_boot_id="b0", deleting=True, places=GPU)
    new = make_pod(uid="new", door=GATED, places=GPU)
    may = {pod.uid: pod.may_be_up for pod in let_in([old, new], {"s": Turn(given=True)}, mine)}
    assert may["new"] is False
    (alone,) = let_in([new], {"s": Turn(given=True)}, mine)
    assert alone.may_be_up
    (not_given,) = let_in([new], {"s": Turn(given=False, waits="")}, mine)
    assert not not_given.may_be_up


def test_of_two_pods_in_one_slot_only_one_is_let_in() -> None:
    """Somebody scaled the Deployment of a slot."""
    mine = Holding("rl", "judge", {"s": GPU}, None)
    first, second = (make_pod(uid=uid, door=GATED, places=GPU) for uid in ("a", "b"))
    for pods in ([first, second], [second, first]):
        assert [p.uid for p in let_in(pods, {"s": Turn(given=True)}, mine) if p.may_be_up] == ["a"]
    up = make_pod(uid="z", door=DOOR, places=GPU)
    assert [p.uid for p in let_in([first, up], {"s": Turn(given=True)}, mine) if p.may_be_up] == ["z"]


def test_a_model_that_is_deleted_while_it_wakes_frees_no_slot() -> None:
    book, judge, second = (
        Book(TURN),
        Holding("rl", "judge", {"s": GPU}, None),
        Holding("rl", "second", {"s": GPU}, None),
    )
    wakes = make_pod(uid="j", reward_model="judge", door=ASLEEP, places=GPU, released_boot_id="b1")
    found, _ = book.settle(judge, [claim("judge")], [wakes], {}, [wakes], [], lambda owner: frozenset(), NOW)
    assert found["s"].given, "and so it is woken, which nobody looks at any more"
    assert book.forget(("rl", "judge")) == GPU
    left = dataclasses.replace(wakes, door=None, deleting=True)
    found, _ = book.settle(second, [claim("second")], [], {}, [left], [], lambda owner: frozenset(), NOW)
    assert (found["s"].given, found["s"].blocked) == (False, True)
    found, _ = book.settle(second, [claim("second")], [], {}, [], [], lambda owner: frozenset(), NOW)
    assert found["s"].given


OWNERS = ("a", "b", "c")
PLACES = {"a": {"x": GPU}, "b": {"x": GPU, "y": OTHER}, "c": {"z": frozenset({*GPU, *OTHER})}}


class Turns(RuleBasedStateMachine):
    """Looks at three models in any order, between which they want, wake, sleep, hang, restart and end.

    A model obeys: it wakes what it was given and puts to sleep what it was not, now or later, seen or unseen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.book = Book(TURN)
        self.mine = {name: Holding("rl", name, slots, None) for name, slots in PLACES.items()}
        self.wants = dict.fromkeys(OWNERS, False)
        self.up = {(name, slot): False for name, slots in PLACES.items() for slot in slots}
        self.unseen: set[tuple[str, str]] = set()
        self.orders: dict[tuple[str, str], bool] = {}
        """What a look has decided and not begun yet: whether to wake."""
        self.going: dict[tuple[str, str], bool] = {}
        """Orders that are under way."""

    def pods(self, *, looked: bool) -> list[Pod]:
        return [
            make_pod(
                uid=f"{name}-{slot}", reward_model=name, name=f"{name}-{slot}", places=PLACES[name][slot],
                released_boot_id="b1", busy=Transition.WAKE if (name, slot) in self.going else None, serving=up,
                door=None if not looked or (name, slot) in self.unseen else DOOR if up else ASLEEP,
            )
            for (name, slot), up in self.up.items()
        ]  # fmt: skip

    @rule(name=st.sampled_from(OWNERS), wants=st.booleans())
    def want(self, name: str, wants: bool) -> None:
        self.wants[name] = wants
        self.look(name)

    @rule(name=st.sampled_from(OWNERS))
    def look(self, name: str) -> None:
        self.orders_begin(name)
        mine = self.mine[name]
        asks = [Claim(mine.owner, slot, places) for slot, places in mine.slots.items()] if self.wants[name] else []
        looked = [pod for pod in self.pods(looked=True) if pod.reward_model == name]
        placed = self.pods(looked=False)
        found, _ = self.book.settle(mine, asks, looked, {}, placed, [], lambda owner: frozenset(), self.now)
        for pod in let_in(looked, found, mine):
            slot = pod.name.partition("-")[2]
            if (name, slot) not in self.going and pod.door is not None:
                wake = pod.may_be_up and self.wants[name]
                if wake is not self.up[name, slot]:
                    self.orders[name, slot] = wake

    @rule(name=st.sampled_from(OWNERS))
    def orders_begin(self, name: str) -> None:
        """A look ends before the next one of the same model begins."""
        for key in [key for key in self.orders if key[0] == name]:
            self.going[key] = self.orders.pop(key)

    @rule(which=st.integers(0, 9))
    def an_order_is_carried_out(self, which: int) -> None:
        if self.going:
            key = sorted(self.going)[which % len(self.going)]
            self.up[key] = self.going.pop(key)

    @rule(seconds=st.sampled_from([1.0, 60.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(OWNERS))
    def a_pod_is_silent(self, name: str) -> None:
        self.unseen |= {key for key in self.up if key[0] == name}

    @rule(name=st.sampled_from(OWNERS))
    def it_answers_again(self, name: str) -> None:
        self.unseen -= {key for key in self.up if key[0] == name}

    @rule()
    def the_operator_is_killed(self) -> None:
        """Its orders end as they end; what it knew is lost. Whose order is under way shows in its door."""
        self.orders.clear()
        while self.going:
            self.an_order_is_carried_out(0)
        self.book = Book(TURN)

    @invariant()
    def no_two_are_up_on_one_gpu(self) -> None:
        up = [key for key in self.up if self.up[key] or self.going.get(key)]
        places = [place for name, slot in up for place in PLACES[name][slot]]
        assert len(places) == len(set(places)), f"{up} are up together"

    def teardown(self) -> None:
        """Nothing is silent, and looks go on: everybody gets a turn."""
        self.unseen.clear()
        served: set[str] = set()
        for _ in range(12):
            for name in OWNERS:
                self.look(name)
                self.orders_begin(name)
                while self.going:
                    self.an_order_is_carried_out(0)
                self.no_two_are_up_on_one_gpu()
                served |= {name for name, slot in self.up if self.up[name, slot]}
            self.now += TURN / 2
        assert {name for name in OWNERS if self.wants[name]} <= served, "somebody waits for ever"


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
