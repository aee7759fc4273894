"""Which pairs are asked, when, and who is shown first."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from genrm_api.comparing import Aggregate, Order, ScheduleKind
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.tournaments import aggregate
from genrm_scoring.tournaments.schedule import Tournament
from genrm_scoring.tournaments.seating import Question, questions, seats
from hypothesis import given, settings
from hypothesis import strategies as st

ALL, CIRCULAR, ACTIVE = ScheduleKind
Judge = Callable[[Question], float | None]


def text(player: int) -> bytes:
    return b"text %d" % player


def lower_wins(question: Question) -> float:
    return float(question[0] < question[1])


def play(
    tournament: Tournament, players: Iterable[int], judge: Judge = lower_wins, chance: random.Random | None = None
) -> list[list[Question]]:
    """All arrive, then waves of answers; the questions of each wave."""
    now = [question for player in players for question in tournament.arrived(player, text(player))]
    waves = []
    while now:
        waves.append(now)
        answered = chance.sample(now, len(now)) if chance else now
        now = [more for question in answered for more in tournament.answered(question, judge(question))]
    return waves


def pairs(asked: Iterable[Question]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(sorted(question)) for question in asked)


@given(st.integers(2, 20), st.binary(max_size=8))
def test_under_balanced_each_response_comes_first_in_half_of_its_pairs(players: int, seed: bytes) -> None:
    (wave,) = play(Tournament(players, seed=seed), range(players))
    assert pairs(wave) == Counter(itertools.combinations(range(players), 2))
    first = Counter(question[0] for question in wave)
    assert all(abs(2 * first[u] - (players - 1)) <= (players % 2 == 0) for u in range(players))


def test_who_is_first_once_more_is_the_seeds_choice() -> None:
    more = Counter[int]()
    for seed in range(200):
        (wave,) = play(Tournament(4, seed=b"%d" % seed), range(4))
        more.update(u for u, times in Counter(question[0] for question in wave).items() if times == 2)
    assert sum(more.values()) == 400 and all(70 <= more[u] <= 130 for u in range(4))


def test_both_asks_both_ways_and_given_shows_the_earlier_first() -> None:
    seat = seats(3, b"")
    assert questions(Order.BOTH, 2, 0, seat, b"c", b"a") == [(2, 0), (0, 2)]
    assert questions(Order.GIVEN, 2, 0, seat, b"c", b"a") == [(0, 2)]


def test_hash_goes_by_the_texts_alone() -> None:
    texts = [b"%d" % i for i in range(60)]
    asked = {
        frozenset(p): questions(Order.HASH, *p, (), texts[p[0]], texts[p[1]])
        for p in itertools.combinations(range(60), 2)
    }
    for u, v in itertools.combinations(range(60), 2):
        assert questions(Order.HASH, v, u, (), texts[v], texts[u]) == asked[frozenset((u, v))]
        swapped = questions(Order.HASH, u, v, (), texts[v], texts[u])  # the texts change numbers
        assert swapped == [tuple(reversed(asked[frozenset((u, v))][0]))]
    heads = sum(question[0] < question[1] for (question,) in asked.values())
    assert 0.45 * len(asked) < heads < 0.55 * len(asked)


@given(st.permutations(range(6)))
def test_a_pair_is_asked_when_its_second_response_arrives(order: list[int]) -> None:
    tournament = Tournament(6)
    for at, player in enumerate(order):
        due = tournament.arrived(player, text(player))
        assert pairs(due) == Counter(tuple(sorted((player, other))) for other in order[:at])
    assert not tournament.settled


@pytest.mark.parametrize(
    ("players", "budget", "asked"), [(6, None, 6), (8, 16, 16), (8, 23, 16), (5, 100, 10), (2, None, 1)]
)
def test_a_circle_is_as_wide_as_the_budget(players: int, budget: int | None, asked: int) -> None:
    tournament = Tournament(players, kind=CIRCULAR, budget=budget)
    (wave,) = play(tournament, range(players))
    assert len(wave) == asked and set(pairs(wave).values()) == {1}
    if asked % players == 0:
        assert all(Counter(q[0] for q in wave)[u] == Counter(q[1] for q in wave)[u] for u in range(players))
    assert tournament.settled


@given(
    st.sampled_from(list(ScheduleKind)),
    st.sampled_from(list(Order)),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_a_group_settles_whoever_comes_and_whatever_fails(
    kind: ScheduleKind, order: Order, players: int, chance: random.Random
) -> None:
    """Responses arrive or die in any order, answers come in between, a tenth of them failed."""
    tournament = Tournament(players, kind=kind, order=order, seed=b"s")
    waiting, open_, asked = list(range(players)), list[Question](), list[Question]()
    there = set()
    while waiting or open_:
        if waiting and (not open_ or chance.random() < 0.5):
            player = waiting.pop(chance.randrange(len(waiting)))
            if chance.random() < 0.3:
                due = tournament.lost(player)
            else:
                due = tournament.arrived(player, text(player))
                there.add(player)
        else:
            question = open_.pop(chance.randrange(len(open_)))
            due = tournament.answered(question, None if chance.random() < 0.1 else chance.random())
        open_ += due
        asked += due
    assert tournament.settled and tournament.rounds <= 3
    assert len(set(asked)) == len(asked) == len(tournament.comparisons) + len(tournament.failed)
    assert {u for question in asked for u in question} == (there if len(there) > 1 else set())
    if kind is ALL:
        assert len(asked) == len(there) * (len(there) - 1) // (1 if order is Order.BOTH else 2)


def test_a_circle_closes_where_someone_never_comes() -> None:
    """Everyone left has two neighbours, and no more is asked than of a smaller circle."""
    for gone in range(6):
        tournament = Tournament(6, kind=CIRCULAR)
        due = [q for u in range(6) if u != gone for q in tournament.arrived(u, text(u))]
        due += tournament.lost(gone)
        assert len(due) == 5
        assert all(count == 2 for count in Counter(u for question in due for u in question).values())


def test_active_asks_in_three_rounds_within_its_budget() -> None:
    tournament = Tournament(16, kind=ACTIVE, budget=72)
    waves = play(tournament, range(16))
    assert [len(wave) for wave in waves] == [32, 20, 20] and tournament.rounds == 3
    assert len(set(itertools.chain(*waves))) == 72
    lead = Counter(q[0] for wave in waves for q in wave)
    lead.subtract(Counter(q[1] for wave in waves for q in wave))
    assert all(abs(lead[u]) <= 2 for u in range(16))


def test_active_waits_for_every_answer_before_it_goes_on() -> None:
    tournament = Tournament(5, kind=ACTIVE)
    first = [q for u in range(4) for q in tournament.arrived(u, text(u))]
    for question in first:
        assert tournament.answered(question, 1.0) == []
    last = tournament.arrived(4, text(4))
    assert last and tournament.rounds == 1
    *most, final = last
    assert all(tournament.answered(question, 1.0) == [] for question in most)
    assert tournament.answered(final, 0.0) and tournament.rounds == 2


def test_active_asks_about_neighbours_in_quality() -> None:
    """After a circle, pairs whose winner is already plain are left alone."""
    closer = 0
    for seed in range(20):
        tournament = Tournament(12, kind=ACTIVE, budget=36, seed=b"%d" % seed)
        waves = play(tournament, range(12))
        apart = [[abs(u - v) for u, v in wave] for wave in waves]
        closer += sum(apart[-1]) / len(apart[-1]) < sum(apart[0]) / len(apart[0])
    assert closer >= 18


def test_active_asks_close_pairs_the_other_way_round_too() -> None:
    twice, once = list[int](), list[int]()
    for seed in range(10):
        tournament = Tournament(8, kind=ACTIVE, budget=28, seed=b"%d" % seed)
        asked = pairs(itertools.chain(*play(tournament, range(8))))
        for (u, v), times in asked.items():
            (twice if times == 2 else once).append(v - u)
    assert len(twice) > 30 and sum(twice) / len(twice) < 1.5 < 2.5 < sum(once) / len(once)


@pytest.mark.parametrize("kind", list(ScheduleKind))
def test_the_order_of_the_answers_changes_nothing(kind: ScheduleKind) -> None:
    found = set()
    for run in range(5):
        tournament = Tournament(9, kind=kind)
        play(tournament, range(9), chance=random.Random(run))
        found.add(aggregate(Aggregate.DGR, 9, tournament.comparisons).scores)
    assert len(found) == 1


@pytest.mark.parametrize("kind", list(ScheduleKind))
def test_equal_texts_tie_and_nobody_is_asked(kind: ScheduleKind) -> None:
    tournament = Tournament(4, kind=kind)
    due = [q for u, body in enumerate([b"a", b"b", b"a", b"a"]) for q in tournament.arrived(u, body)]
    asked = []
    while due:
        question = due.pop()
        asked.append(question)
        due += tournament.answered(question, float(1 in question and question[0] == 1))
    assert tournament.settled and all(1 in question for question in asked)
    table = aggregate(Aggregate.WINRATE, 4, tournament.comparisons).tally
    assert table.identical == 3 and table.pairs == 3 + len(pairs(asked))


def test_a_group_of_equal_texts_needs_no_judge() -> None:
    for kind in ScheduleKind:
        tournament = Tournament(3, kind=kind)
        assert [q for u in range(3) for q in tournament.arrived(u, b"same")] == []
        assert tournament.settled
        assert aggregate(Aggregate.WINRATE, 3, tournament.comparisons).scores == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("order", "least"), [(Order.BALANCED, 8), (Order.BOTH, 16)])
def test_a_budget_below_a_circle_is_refused(order: Order, least: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"scoring\.schedule\.budget: {least - 1} .* takes {least};"):
        Tournament(8, kind=CIRCULAR, order=order, budget=least - 1)
    Tournament(8, kind=CIRCULAR, order=order, budget=least)


def test_what_was_not_asked_cannot_be_answered() -> None:
    tournament = Tournament(2)
    tournament.arrived(0, text(0))
    with pytest.raises(ValueError, match=r"question \(0, 1\) is not open"):
        tournament.answered((0, 1), 1.0)
    with pytest.raises(ValueError, match="response 0 is not awaited"):
        tournament.lost(0)
    with pytest.raises(ValueError, match="response 2 is not awaited"):
        tournament.arrived(2, text(2))
