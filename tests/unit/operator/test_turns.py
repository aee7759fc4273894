"""Whose turn it is: tables for the cases people think of, and whatever may happen for the others."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from genrm_operator.claims import Claim
from genrm_operator.night import Night
from genrm_operator.observed import Door, DoorState, Pod, Transition
from genrm_operator.slots import Book, Holding, Taker, Turn, Use, let_in, taker, turns

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


def trains(name: str, run: str, **more: Any) -> Claim:
    """A trainer's."""
    return claim(name, runs=run, starts=math.inf, **more)


@pytest.mark.parametrize(
    ("waiter", "refused"),
    [("r", {"r"}), ("r q", {"r"}), ("q", set()), ("", set()), ("q p", set())],
)
def test_a_run_that_waits_for_its_own_trainer_is_refused_whoever_else_waits(waiter: str, refused: set[str]) -> None:
    """A trainer has no turn that ends. Another run that wants the same model goes on waiting, and knows for whom."""
    claims = [trains("trainer", "r", given_at=NOW - 9), claim("judge", runs=waiter, since=NOW - 500)]
    found = turns(claims, [has("trainer")], NOW, TURN)[("rl", "judge"), "s"]
    assert not found.given and set(found.refused) == refused
    assert (found.deadlock, found.blocked) == (waiter == "r", waiter == "r")
    for why in found.refused.values():
        assert why.startswith(
            "run r holds slot s by rl/trainer and waits for rl/judge, on the same GPUs, before it gives"
        )
    if waiter != "r":
        assert found.waits == (
            "slot s is rl/trainer's, until it says that it does not need it: a trainer has no turn that ends"
        )


def test_a_run_that_joins_others_may_be_a_moment_early_too() -> None:
    claims = [
        trains("trainer", "r", given_at=NOW - 9),
        claim("judge", runs="r q", since=NOW - 500, joined={"r": NOW - 0.5, "q": NOW - 500}),
    ]
    found = turns(claims, [has("trainer")], NOW, TURN)[("rl", "judge"), "s"]
    assert (found.refused, found.look_again_at) == ({}, NOW + 1.5)
    given_late = [trains("trainer", "r", given_at=NOW - 0.5), claim("judge", runs="r q", since=NOW - 500)]
    found = turns(given_late, [has("trainer")], NOW, TURN)[("rl", "judge"), "s"]
    assert (found.refused, found.look_again_at) == ({}, NOW + 1.5)


THIRD = frozenset({("device", "n", "2")})
LONG = NOW - 3 * TURN


def refused_of(claims: list[Claim]) -> dict[str, set[str]]:
    takers = [has(c.owner[1], places=c.places) for c in claims if c.given_at is not None]
    found = {key[0][1]: set(turn.refused) for key, turn in turns(claims, takers, NOW, TURN).items() if turn.refused}
    again = {key[0][1]: set(t.refused) for key, t in turns(claims[::-1], takers, NOW, TURN).items() if t.refused}
    assert found == again, "in whatever order they are looked at"
    return found


@pytest.mark.parametrize(
    ("waiting", "refused"),
    [
        pytest.param([trains("a2", "a", places=OTHER), trains("b2", "b")], {}, id="a moment early"),
        pytest.param(
            [trains("a2", "a", places=OTHER, since=LONG), trains("b2", "b", since=LONG + 5)],
            {"b2": {"b"}},
            id="who asked last",
        ),
        pytest.param(
            [trains("a2", "a", places=OTHER, since=LONG), trains("b2", "b", since=LONG + 5, priority=1)],
            {"a2": {"a"}},
            id="who has the lower priority",
        ),
        pytest.param(
            [claim("judge", runs="a q", places=OTHER, since=LONG), trains("b2", "b", since=LONG - 5)],
            {"judge": {"a"}},
            id="one of them waits for a model that another run wants too",
        ),
        pytest.param(
            [
                claim("judge", runs="a", places=OTHER, since=LONG),
                claim("second", runs="b", since=LONG - 5),
            ],
            {"judge": {"a"}},
            id="both wait for models",
        ),
        pytest.param(
            [trains("a2", "a", places=THIRD, since=LONG), trains("b2", "b", since=LONG)],
            {},
            id="one after the other in one order",
        ),
        pytest.param(
            [trains("a2", "a", places=THIRD, since=LONG), trains("b2", "b", since=LONG + 1),
             trains("c2", "c", places=OTHER, since=LONG + 2)],
            {"c2": {"c"}},
            id="three",
        ),
        pytest.param(
            [trains("a2", "a", places=BOTH, since=LONG), trains("b2", "b", since=LONG - 1)],
            {"a2": {"a"}},
            id="it waits for itself, and so in no circle",
        ),
        pytest.param(
            [claim("judge", runs="", places=OTHER, since=LONG), trains("b2", "b", since=LONG)],
            {},
            id="a person waits for ever",
        ),
    ],
)  # fmt: skip
def test_of_runs_that_wait_for_each_other_one_is_refused(waiting: list[Claim], refused: dict[str, set[str]]) -> None:
    having = [
        trains("a1", "a", given_at=LONG),
        trains("b1", "b", places=OTHER, given_at=LONG),
        trains("c1", "c", places=THIRD, given_at=LONG),
    ]
    assert refused_of([*having, *waiting]) == refused


def test_who_is_refused_in_a_circle_is_told_who_waits_for_whom_and_what_to_do() -> None:
    claims = [
        trains("a1", "a", given_at=LONG),
        trains("b1", "b", places=OTHER, given_at=LONG),
        trains("a2", "a", places=OTHER, since=LONG),
        claim("judge", runs="b", since=NOW - 5),
    ]
    found = turns(claims, [has("a1"), has("b1", places=OTHER)], NOW, TURN)
    assert found[("rl", "judge"), "s"].waits == (
        "run a waits for slot s, which rl/b1 has, and run b waits for rl/judge on slot s, which rl/a1 has: none of "
        "them would end; give back what run b has, and name all slots that it needs in one Lease, or take them one "
        "after the other in an order that is the same in all runs"
    )
    assert found[("rl", "judge"), "s"].deadlock and not found[("rl", "a2"), "s"].refused


def test_who_waits_for_a_trainer_does_not_stand_before_what_its_run_waits_for() -> None:
    """It has waited for a turn, so what is free is kept for it, but not from him who must end first."""
    claims = [
        trains("a1", "a", given_at=LONG),
        trains("whole", "b", places=BOTH, since=LONG),
        claim("judge", runs="a", places=OTHER, since=NOW - 5),
        claim("second", runs="c", places=OTHER, since=NOW - 9),
    ]
    assert given(claims, [has("a1")]) == {"a1", "judge"}


def test_two_trainers_that_wait_behind_those_who_wait_for_them_go_on() -> None:
    """a waits behind d, who waits for b, who waits behind e, who waits for a: nobody has what another needs."""
    fourth = frozenset({("device", "n", "3")})
    claims = [
        trains("a1", "a", given_at=LONG),
        trains("b1", "b", places=OTHER, given_at=LONG),
        trains("d", "d", places=OTHER | THIRD, since=LONG),
        trains("e", "e", places=GPU | fourth, since=LONG),
        trains("a2", "a", places=THIRD, since=NOW - 5),
        trains("b2", "b", places=fourth, since=NOW - 5),
    ]
    assert refused_of(claims) == {}
    assert given(claims, [has("a1"), has("b1", places=OTHER)]) >= {"a1", "b1"}
    assert given(claims, [has("a1"), has("b1", places=OTHER)]) & {"a2", "b2"}, "one of them ends, and then all"


def test_who_closes_a_circle_has_those_looked_at_who_are_told() -> None:
    """The last to ask has the higher priority: it is another one, on other GPUs, who is told."""
    book = Book(TURN)
    up: list[Taker] = []

    def settle(name: str, run: str, places: Any, now: float, priority: int = 0) -> tuple[Turn, Any]:
        mine, asks = Holding("rl", name, {"s": places}, None), [trains(name, run, places=places, priority=priority)]
        turns_, news = book.settle(mine, asks, [], {}, [], up, lambda owner: frozenset(owner[1][0]), now)
        return turns_["s"], news

    for name, places in [("a1", GPU), ("b1", OTHER)]:
        assert settle(name, name[0], places, NOW)[0].given
        up.append(has(name, places=places))
    assert not settle("a2", "a", OTHER, NOW + 1)[0].refused
    first, _ = settle("b2", "b", GPU, NOW + 2, priority=1)
    assert (first.refused, first.look_again_at) == ({}, NOW + 4)
    later, news = settle("b2", "b", GPU, NOW + 4, priority=1)
    assert (later.refused, news) == ({}, OTHER), "whoever waits there is to be looked at"
    told, news = settle("a2", "a", OTHER, NOW + 4)
    assert set(told.refused) == {"a"} and not news
    up.pop()
    _, news = book.settle(
        Holding("rl", "b1", {"s": OTHER}, None), [], [], {}, [], up, lambda owner: frozenset(owner[1][0]), NOW + 5
    )
    assert news == OTHER and not settle("a2", "a", OTHER, NOW + 5)[0].refused


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
    half = taker(make_pod(door=ASLEEP), Night(before=72 << 30, after=35 << 30))
    assert half.use is Use.UNKNOWN, "whoever wakes next finds no room beside it"
    unmeasurable = taker(make_pod(door=ASLEEP), Night(None, None))
    assert unmeasurable.use is Use.FREE, "where nobody can see it the engine's word counts, and the status says so"
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
