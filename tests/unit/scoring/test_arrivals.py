"""Responses that come one by one: what begins at once, what waits, and what becomes of those that never come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from genrm_api.external import WireFormat
from genrm_api.scoring import Scoring
from genrm_scoring.arrivals import AllTogether, AskedAtOnce, Tournaments, arrivals_of
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.scorer import Scorer
from genrm_scoring.sources import Pairwise, Pointwise
from genrm_scoring.speech import RewardServer
from genrm_scoring.transport import Reply
from genrm_scoring.types import Judgement, Outcome, Question, Sample, Score, ScoreSource, Verdict

SOON = 0.05
LONG = 60.0


def samples(*responses: str) -> list[Sample]:
    return [Sample("p", response) for response in responses]


class LargerWins:
    """Asked about pairs of numbers; `asked` are those questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.changed = asyncio.Condition()
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, question: Question) -> Judgement:
        async with self.changed:
            self.asked.append(question.responses)
            self.changed.notify_all()
        await self.answers.wait()
        first, second = map(float, question.responses)
        return Judgement(Outcome.OK, 0.1, 1, verdict=Verdict("A", float(first > second)))

    async def until(self, number: int) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: len(self.asked) >= number)


class Together:
    def __init__(self) -> None:
        self.groups: list[int] = []

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        self.groups.append(len(samples))
        return [Score(float(sample.response), Outcome.OK, ScoreSource.RULE) for sample in samples]

    async def close(self) -> None:
        pass


def tournaments(patience: float = LONG, **scoring: Any) -> tuple[Tournaments, LargerWins]:
    ask = LargerWins()
    source = Pairwise(Scoring.model_validate({"mode": "pairwise", **scoring}), ask, patience)
    made = arrivals_of(source, patience)
    assert isinstance(made, Tournaments)
    return made, ask


class Length:
    """A reward server that scores a response by its length, and fails those that are empty."""

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def post(self, url: str, body: bytes, timeout: float) -> Reply:
        self.asked.set()
        await self.answers.wait()
        return Reply(200, {}, b'{"rewards": [%d]}' % len(body))

    async def close(self) -> None:
        pass


def values(scores: Sequence[Score]) -> list[float | None]:
    return [score.value for score in scores]


async def test_a_pair_is_asked_about_while_siblings_are_still_missing() -> None:
    held, ask = tournaments()
    first = [asyncio.create_task(held.score("g", 3, sample)) for sample in samples("1", "2")]
    await ask.until(1)
    assert not any(task.done() for task in first)
    third = await held.score("g", 3, *samples("3"))
    assert values([*await asyncio.gather(*first), third]) == [0.0, 0.5, 1.0]
    assert len(ask.asked) == 3
    await held.close()


async def test_groups_of_other_names_and_the_next_of_the_same_do_not_meet() -> None:
    held, ask = tournaments()
    for _ in range(2):
        found = await asyncio.gather(
            *(held.score(key, 2, sample) for key in ("g", "h") for sample in samples("1", "2"))
        )
        assert values(found) == [0.0, 1.0, 0.0, 1.0]
    assert len(ask.asked) == 4
    await held.close()


async def test_the_next_group_of_a_name_does_not_meet_one_that_is_still_being_judged() -> None:
    held, ask = tournaments()
    ask.answers.clear()
    groups = []
    for _ in range(2):
        groups += [asyncio.create_task(held.score("g", 2, sample)) for sample in samples("1", "2")]
        await asyncio.sleep(0)
    await ask.until(2)
    ask.answers.set()
    assert values(await asyncio.gather(*groups)) == [0.0, 1.0, 0.0, 1.0]
    assert len(ask.asked) == 2
    await held.close()


async def test_one_that_is_lost_holds_nobody_up_whenever_that_is_known() -> None:
    for before in (True, False):
        held, _ = tournaments()
        if before:
            held.lost("g", 4)
        waiting = [asyncio.create_task(held.score("g", 4, sample)) for sample in samples("1", "2", "3")]
        await asyncio.sleep(0)
        if not before:
            held.lost("g", 4)
        async with asyncio.timeout(5):
            assert values(await asyncio.gather(*waiting)) == [0.0, 0.5, 1.0]
        await held.close()


async def test_one_that_never_comes_is_given_up() -> None:
    held, _ = tournaments(SOON)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(held.score("g", 3, sample) for sample in samples("1", "2")))
    assert values(found) == [0.0, 1.0]
    late = await held.score("g", 3, *samples("1.5"))
    assert late.value == 0.5, "among those who came before, who keep what they got"
    await held.close()


async def test_a_caller_who_leaves_ends_no_tournament() -> None:
    held, ask = tournaments()
    left = asyncio.create_task(held.score("g", 3, *samples("1")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(held.score("g", 3, sample) for sample in samples("2", "3")))
    assert values(found) == [0.5, 1.0] and len(ask.asked) == 3, "among all who came"
    await held.close()


async def test_a_tournament_whose_callers_have_all_left_is_over_when_nobody_comes() -> None:
    held, _ = tournaments(SOON)
    left = asyncio.create_task(held.score("g", 3, *samples("1")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    async with asyncio.timeout(5):
        await asyncio.gather(*held._left)
    assert not held._open
    await held.close()


async def test_shown_as_sampled_they_keep_their_numbers_in_whatever_order_they_come() -> None:
    shown: list[tuple[str, ...]] = []

    async def ask(question: Question) -> Judgement:
        shown.append(question.responses)
        return Judgement(Outcome.OK, 0.1, 1, verdict=Verdict("A", 1.0))

    held = arrivals_of(Pairwise(Scoring.model_validate({"mode": "pairwise", "order": "given"}), ask, LONG), LONG)
    came = [Sample("p", text, session=session) for text, session in (("c", 7), ("a", 1), ("b", 4))]
    found = await asyncio.gather(*(held.score("g", 3, sample) for sample in came))
    assert sorted(shown) == [("a", "b"), ("a", "c"), ("b", "c")] and values(found) == [0.0, 1.0, 0.5]
    await held.close()


async def test_one_response_alone_meets_the_text_that_waits_for_such_and_its_siblings_do_not() -> None:
    held, ask = tournaments(alone={"vs": "reference"})
    (one,) = samples("3")
    assert (await held.score("g", 1, replace(one, reference="2"))).value == 1.0
    assert sorted(ask.asked) == [("2", "3"), ("3", "2")]
    assert (await held.score("g", 1, one)).outcome is Outcome.SKIPPED
    found = await asyncio.gather(*(held.score("g", 2, replace(s, reference="2")) for s in samples("1", "3")))
    assert values(found) == [0.0, 1.0] and len(ask.asked) == 3
    await held.close()


async def test_one_response_alone_ends_by_the_policy() -> None:
    held, ask = tournaments(onFailure={"policy": "value", "value": -1})
    assert (await held.score("g", 1, *samples("1"))).value == -1.0 and not ask.asked


def asked_at_once(transport: Length) -> AskedAtOnce:
    scoring = Scoring.model_validate({"normalise": "minmax", "timeout": "1s"})
    speech = RewardServer(WireFormat.OPENRLHF)
    scorer = Scorer(scoring, "", StaticEndpoints(["http://a"]), transport, speech=speech)
    made = arrivals_of(Pointwise(scorer, scoring), LONG)
    assert isinstance(made, AskedAtOnce)
    return made


async def test_siblings_of_one_whose_caller_left_are_scored_among_all_who_came() -> None:
    made = asked_at_once(transport := Length())
    left = asyncio.create_task(made.score("g", 2, *samples("a")))
    transport.answers.clear()
    await asyncio.wait_for(transport.asked.wait(), 5)
    left.cancel()
    await asyncio.wait([left])
    transport.answers.set()
    async with asyncio.timeout(5):
        assert (await made.score("g", 2, *samples("abcdef"))).value == 1.0
    await made.close()


async def test_a_model_that_looks_at_each_alone_is_asked_at_once_and_their_scores_meet() -> None:
    made = asked_at_once(transport := Length())
    first = asyncio.create_task(made.score("g", 2, *samples("a")))
    await asyncio.wait_for(transport.asked.wait(), 5)
    assert not first.done()
    second = await made.score("g", 2, *samples("abcdef"))
    assert values([await first, second]) == [-1.0, 1.0]
    await made.close()


async def test_what_needs_all_of_a_group_waits_for_it() -> None:
    source = Together()
    made = arrivals_of(source, LONG)
    assert isinstance(made, AllTogether)
    found = await asyncio.gather(*(made.score("g", 2, sample) for sample in samples("1", "2")))
    assert values(found) == [1.0, 2.0] and source.groups == [2]
    waiting = [asyncio.create_task(made.score("h", 3, sample)) for sample in samples("1", "2")]
    await asyncio.sleep(0)
    made.lost("h", 3)
    async with asyncio.timeout(5):
        assert values(await asyncio.gather(*waiting)) == [1.0, 2.0]
    await made.close()


@pytest.mark.parametrize("size", [1, 2])
async def test_a_group_of_which_nobody_comes_leaves_nothing_behind(size: int) -> None:
    for made in (tournaments()[0], arrivals_of(Together(), LONG)):
        for _ in range(size):
            made.lost("g", size)
        found = await asyncio.gather(*(made.score("g", 2, sample) for sample in samples("1", "2")))
        assert None not in values(found)
        await made.close()
