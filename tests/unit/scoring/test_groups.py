"""A group's tournament from end to end: what is asked when, and what everybody gets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from genrm_api.rewardmodel import Scoring
from genrm_scoring.endpoints import StaticEndpoints
from genrm_scoring.errors import ConfigurationError, FailureRaised
from genrm_scoring.gathering import LONGEST
from genrm_scoring.groups import Group
from genrm_scoring.judges import PAIRWISE
from genrm_scoring.scorer import Scorer
from genrm_scoring.transport import AiohttpTransport
from genrm_scoring.types import Judgement, Outcome, Question, Sample, Score, ScoreSource, Verdict

from tests.unit.scoring import virtual_time
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, says

PROMPT = "Say a large number."
LONG = 60.0


def samples(*responses: str) -> list[Sample]:
    return [Sample(PROMPT, response) for response in responses]


def made(patience: float = LONG, **scoring: Any) -> Callable[..., Group]:
    spec = Scoring.model_validate({"mode": "pairwise", **scoring})

    def group(ask: Callable[[Question], Awaitable[Judgement]], players: int, **more: Any) -> Group:
        return Group(spec, ask, players, patience, **more)

    return group


async def larger(question: Question) -> Judgement:
    """The judge likes the larger number, and answers after others that were asked later."""
    first, second = map(int, question.responses)
    for _ in range((first * 7 + second) % 5):
        await asyncio.sleep(0)
    label = "A" if first > second else "B"
    return Judgement(Outcome.OK, 0.1, 1, verdict=Verdict(label, float(first > second)))


async def scores(group: Group, members: list[Sample]) -> list[Score]:
    async with group:
        return list(await asyncio.gather(*(group.score(i, sample) for i, sample in enumerate(members))))


@pytest.mark.parametrize(
    "scoring",
    [
        {},
        {"order": "both"},
        {"order": "hash"},
        {"aggregate": "copeland"},
        {"aggregate": "dgr"},
        {"aggregate": "elo"},
        {"aggregate": "bt", "order": "both"},  # it estimates a bias from who was shown first, which the seating decides
        {"schedule": {"kind": "circular"}},
        {"schedule": {"kind": "active"}},
    ],
    ids=str,
)
async def test_better_responses_get_more_and_renumbering_them_renumbers_the_scores(scoring: dict[str, Any]) -> None:
    texts = ["3", "1", "4", "2"]
    found: dict[str, set[float]] = {text: set() for text in texts}
    for order in itertools.permutations(texts):
        got = await scores(made(**scoring)(larger, 4), samples(*order))
        for text, score in zip(order, got, strict=True):
            assert score.outcome is Outcome.OK and score.value is not None
            found[text].add(round(score.value, 9))
    if "schedule" not in scoring:  # who is seated where decides which pairs are asked
        assert all(len(values) == 1 for values in found.values()), found
    best = [max(found[text]) for text in ("1", "2", "3", "4")]
    assert best == sorted(best) and best[0] < best[3]


async def test_a_pair_is_asked_as_soon_as_both_are_there_and_equal_texts_never() -> None:
    asked: list[tuple[str, ...]] = []

    began = asyncio.Event()

    async def ask(question: Question) -> Judgement:
        asked.append(question.responses)
        began.set()
        return await larger(question)

    async with made()(ask, 3) as group:
        first = asyncio.create_task(group.score(0, samples("1")[0]))
        second = asyncio.create_task(group.score(1, samples("2")[0]))
        await began.wait()
        assert not first.done() and not second.done(), "the third may still come"
        last = await group.score(2, samples("2")[0])
        got = [await first, await second, last]
    assert len(asked) == 2 and all("1" in pair for pair in asked)
    assert [score.value for score in got] == [0.0, 0.75, 0.75]
    assert group.report is not None and (group.report.questions, group.report.standings.tally.identical) == (2, 1)


async def test_a_sibling_that_never_comes_hangs_nobody() -> None:
    async with made(patience=0.05)(larger, 3) as group:
        got = await asyncio.wait_for(
            asyncio.gather(*(group.score(i, sample) for i, sample in enumerate(samples("1", "2")))), 10
        )
        assert [score.value for score in got] == [0.0, 1.0]
        with pytest.raises(ValueError, match="response 2 is not awaited in a group of 3"):
            await group.score(2, samples("3")[0])


def test_siblings_who_come_just_in_time_do_not_keep_the_first_waiting_for_ever() -> None:
    async def first_of_eight() -> tuple[Score, float]:
        async with made(patience=10)(larger, 8) as group:
            first = asyncio.create_task(group.score(0, *samples("0")))
            others = []
            for place in range(1, 5):
                await asyncio.sleep(9)
                others.append(asyncio.create_task(group.score(place, *samples(str(place)))))
            await asyncio.gather(*others)
            return await first, asyncio.get_running_loop().time()

    score, at = virtual_time.run(first_of_eight())
    assert (score.value, at) == (0.0, pytest.approx(LONGEST * 10)), "at 36 s the fifth came, and patience would wait on"


async def test_who_is_alone_has_no_score_and_no_zero() -> None:
    (score,) = await scores(made()(larger, 1), samples("1"))
    assert (score.value, score.outcome, score.source) == (None, Outcome.SKIPPED, ScoreSource.DROPPED)
    assert "nobody to compare it with" in score.detail


async def test_an_anchor_plays_along_and_is_not_trained() -> None:
    group = made()(larger, 3, anchor=Sample(PROMPT, "2"))
    got = await scores(group, samples("1", "3", "4"))
    assert [score.value for score in got] == [0.0, pytest.approx(2 / 3), 1.0]
    assert group.report is not None and group.report.anchored is not None
    assert group.report.anchored.anchor_score == pytest.approx(1 / 3)
    assert group.report.anchored.beats_anchor == pytest.approx(2 / 3)


def failing(text: str) -> Callable[[Question], Awaitable[Judgement]]:
    """Whatever is about this text times out."""

    async def ask(question: Question) -> Judgement:
        if text in question.responses:
            return Judgement(Outcome.TIMEOUT, 9.0, 1, detail="no answer within 9 s")
        return await larger(question)

    return ask


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"policy": "drop"}, [None, 0.0, 0.5, 1.0]),
        ({"policy": "value", "value": -1}, [-1.0, 0.0, 0.5, 1.0]),
        ({"policy": "group_mean"}, [0.5, 0.0, 0.5, 1.0]),
        ({"policy": "group_drop"}, [None] * 4),
    ],
    ids=str,
)
async def test_a_response_that_nobody_could_judge_is_the_policys(policy: dict[str, Any], expected: list[Any]) -> None:
    group = made(onFailure=policy)(failing("9"), 4)
    got = await scores(group, samples("9", "1", "2", "3"))
    assert [score.value for score in got] == expected
    assert got[0].outcome is Outcome.TIMEOUT and got[0].source is not ScoreSource.JUDGE
    assert group.report is not None and group.report.failed == {Outcome.TIMEOUT: 3}


async def test_under_policy_raise_everybody_who_waits_is_told() -> None:
    with pytest.raises(FailureRaised, match="no answer within 9 s"):
        await scores(made(onFailure={"policy": "raise"})(failing("9"), 3), samples("9", "1", "2"))


async def test_a_bug_in_what_asks_reaches_who_waits() -> None:
    async def ask(_: Question) -> Judgement:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await scores(made()(ask, 2), samples("1", "2"))


async def test_what_is_asked_ends_with_the_group() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def ask(_: Question) -> Judgement:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    async with made()(ask, 2) as group:
        members = [asyncio.create_task(group.score(i, sample)) for i, sample in enumerate(samples("1", "2"))]
        await begun.wait()
    assert ended.is_set()
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*members, return_exceptions=True))


@pytest.mark.parametrize("rule", ["winrate", "copeland", "dgr"])
def test_a_rule_that_needs_all_pairs_is_refused_where_not_all_are_asked(rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"scoring\.aggregate: {rule} with a schedule .*; write bt"):
        made(schedule={"kind": "active"}, aggregate=rule)(larger, 4)


async def test_through_http_with_the_built_in_judge() -> None:
    def prefers(request: Request) -> str:
        text = request["messages"][0]["content"]
        a, b = (int(text.partition(f"<response_{letter}>\n")[2].split("\n")[0]) for letter in "ab")
        return f"I compare. <result>{'A' if a > b else 'B'}</result>"

    transport = AiohttpTransport()
    try:
        async with ScriptedJudge(says(prefers)) as judge:
            spec = Scoring.model_validate({"mode": "pairwise", "normalise": "minmax"})
            scorer = Scorer(spec, "judge", StaticEndpoints([judge.url]), transport, judge=PAIRWISE["pairwise-abtie"])
            got = await scores(Group(spec, scorer.ask, 4, LONG), samples("30", "10", "40", "20"))
            assert len(judge.requests) == 6
    finally:
        await transport.close()
    assert [score.value for score in got] == [pytest.approx(1 / 3), -1.0, 1.0, pytest.approx(-1 / 3)]
