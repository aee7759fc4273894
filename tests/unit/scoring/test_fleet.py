"""A RewardFleet carried out: who is asked for what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from genrm_api.answer_rules import AnswerRule
from genrm_api.judging import FailurePolicy, OnFailure
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError, FailureRaised
from genrm_scoring.failure import settle
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.sources import BuiltInRule, Source, WorkerRule
from genrm_scoring.targets import Means, opened_fleet, reached, source_of
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource

from tests.unit.scoring.mixing.fleets import failed, gated, mixture, model, own, rule
from tests.unit.scoring.scripted_judge import ScriptedJudge, garbage, says

PROMPT = "What is 2 + 2?"


def answers(*responses: str) -> list[Sample]:
    return [Sample(PROMPT, response, reference="4") for response in responses]


class Scripted:
    """Scores by response; `asked` is who was asked for, in order."""

    def __init__(self, scores: dict[str, Score], begin: asyncio.Event | None = None) -> None:
        self.scored, self.begin = scores, begin
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.closed = False

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        if self.begin is not None:
            await self.begin.wait()
        self.asked += [sample.response for sample in samples]
        self.was_asked.set()
        return [self.scored[sample.response] for sample in samples]

    async def close(self) -> None:
        self.closed = True


def ruled() -> Source:
    return BuiltInRule(AnswerRule.model_validate({"kind": "exact"}))


async def test_a_term_with_a_gate_is_asked_for_those_that_pass() -> None:
    judge = Scripted({"4": own(0.5)})
    fleet = FleetScorer(mixture(rule(), gated()), {"correct": ruled(), "judged": judge})
    scores = await fleet.scores(answers("4", "5", "4"))
    assert judge.asked == ["4", "4"]
    assert [score.value for score in scores] == [1.5, 0.0, 1.5]
    await fleet.close()
    assert judge.closed


async def test_nobody_waits_for_a_term_but_those_behind_its_gate() -> None:
    begin = asyncio.Event()
    slow, free = Scripted({"4": own(1.0)}, begin), Scripted({"4": own(2.0)})
    behind = Scripted({"4": own(4.0)})
    sources = {"correct": ruled(), "slow": slow, "free": free, "behind": behind}
    fleet = FleetScorer(mixture(model("slow"), rule(), model("free"), gated("behind")), sources)
    scoring = asyncio.create_task(fleet.scores(answers("4")))
    async with asyncio.timeout(30):
        await free.was_asked.wait()
        await behind.was_asked.wait()
    assert not slow.asked
    begin.set()
    (score,) = await scoring
    assert score.value == 8.0


async def test_running_normalisation_goes_on_from_call_to_call_and_not_in_validation() -> None:
    term = model(normalise={"kind": "minmax", "scope": "running"})
    fleet = FleetScorer(mixture(term), {"judged": Scripted({"a": own(0.0), "b": own(10.0), "c": own(5.0)})})
    await fleet.scores(answers("a", "b"))
    fleet.step_ended()
    before = fleet.running
    (score, _) = await fleet.scores(answers("c", "a"), learn=False)
    assert score.value == 0.0 and fleet.running == before
    again = FleetScorer(mixture(term), {"judged": Scripted({"b": own(10.0)})}, before)
    assert [s.value for s in await again.scores(answers("b", "b"))] == [1.0, 1.0]


async def test_a_failure_under_policy_raise_stops_all() -> None:
    class Stops(Scripted):
        async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
            return settle([failed()], OnFailure(policy=FailurePolicy.RAISE))

    fleet = FleetScorer(mixture(model()), {"judged": Stops({})})
    with pytest.raises(FailureRaised):
        await fleet.scores(answers("4"))


# -- from resources


def external(name: str, url: str, **scoring: Any) -> RewardModel:
    spec = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s", **scoring}}
    return RewardModel.model_validate({"metadata": {"name": name, "namespace": "rl"}, "spec": spec})


def fleet_of(*terms: dict[str, Any], **spec: Any) -> RewardFleet:
    return RewardFleet.model_validate(
        {"metadata": {"name": "mix", "namespace": "rl"}, "spec": {"terms": terms, **spec}}
    )


async def test_a_fleet_of_a_rule_and_a_judge_asks_both() -> None:
    async with ScriptedJudge(says(r"\boxed{True}")) as judge:
        means = Means(model=lambda name: external(name, judge.url))
        async with opened_fleet(fleet_of(rule(), gated()), means) as fleet:
            scores = await fleet.scores(answers("4", "5"))
    assert [score.value for score in scores] == [2.0, 0.0] and len(judge.requests) == 1
    assert [term.source for term in scores[0].terms] == [ScoreSource.RULE, ScoreSource.JUDGE]


async def test_the_policy_of_a_model_does_not_count_in_a_fleet_and_that_of_the_fleet_does() -> None:
    policy = {"policy": "value", "value": 9}
    async with ScriptedJudge(garbage()) as judge:
        means = Means(model=lambda name: external(name, judge.url, onFailure=policy, timeout="1s"))
        async with opened_fleet(fleet_of(rule(), model()), means) as fleet:
            (first, _) = await fleet.scores(answers("4", "4"))
    assert first.value is None and first.outcome is Outcome.TRANSPORT


async def test_alone_a_model_has_its_own_policy_and_its_own_normalisation() -> None:
    def grade(request: Any) -> str:
        return r"\boxed{True}" if "four" in request["messages"][0]["content"] else r"\boxed{False}"

    async with ScriptedJudge(says(grade)) as judge:
        rm = external("judge", judge.url, normalise="minmax")
        async with reached(rm, Means()) as way:
            scores = await source_of(rm, way).scores(answers("four", "five"))
    assert [score.value for score in scores] == [1.0, -1.0]


async def test_responses_are_compared_in_pairs() -> None:
    def first_is_longer(request: Any) -> str:
        text = request["messages"][0]["content"]
        return f"<result>{'A' if text.index('long answer') < text.index('short') else 'B'}</result>"

    async with ScriptedJudge(says(first_is_longer)) as judge:
        rm = external("judge", judge.url, mode="pairwise")
        async with reached(rm, Means()) as way:
            pairs = source_of(rm, way)
            assert [s.value for s in await pairs.scores(answers("short", "a long answer"))] == [0.0, 1.0]
            (alone,) = await pairs.scores(answers("short"))
    assert alone.value is None and alone.outcome is Outcome.SKIPPED and "write spec.scoring.alone" in alone.detail


async def test_an_anchor_plays_along_and_one_response_alone_is_compared_with_it() -> None:
    async with ScriptedJudge(says(prefers_the_longer)) as judge:
        rm = external("judge", judge.url, mode="pairwise", anchor="reference")
        async with reached(rm, Means()) as way:
            pairs = source_of(rm, way)
            sample = Sample("2 + 2?", "a long answer", reference="gold")
            (alone,) = await pairs.scores([sample])
            with pytest.raises(ConfigurationError, match="anchor: reference is wanted"):
                await pairs.scores([Sample("2 + 2?", "a long answer")])
    assert alone.value == 1.0 and len(judge.requests) == 2, "one pair is asked both ways round"


def prefers_the_longer(request: Any) -> str:
    """Of two, marked as what they are; read out of any of the built-in questions."""
    text = request["messages"][0]["content"]
    first, second = (text.rindex(mark) for mark in ("long answer", "gold"))
    if "<ranking>" in text:
        return f"<ranking>{'1, 2' if first < second else '2, 1'}</ranking>"
    return f"<result>{'A' if first < second else 'B'}</result>"


@pytest.mark.parametrize(
    "scoring",
    [
        {"mode": "pairwise"},
        {"mode": "pairwise", "order": "given", "aggregate": "copeland", "normalise": "zscore"},
        {"mode": "pairwise", "aggregate": "bt", "schedule": {"kind": "circular", "budget": 99}},
        {"mode": "pairwise", "compat": "rm-gallery"},
        {"mode": "listwise", "normalise": "minmax"},
    ],
    ids=str,
)
@pytest.mark.parametrize("vs", ["reference", "baseline"])
async def test_a_response_alone_meets_a_text_both_ways_round_and_a_group_does_not(
    scoring: dict[str, Any], vs: str
) -> None:
    texts: dict[str, Any] = {"reference": "gold"} if vs == "reference" else {"extra": {"baseline": "gold"}}
    async with ScriptedJudge(says(prefers_the_longer)) as judge:
        rm = external("judge", judge.url, alone={"vs": vs}, **scoring)
        async with reached(rm, Means()) as way:
            source = source_of(rm, way)
            (alone,) = await source.scores([Sample("2 + 2?", "a long answer", **texts)])
            assert (alone.value, alone.outcome, alone.source) == (1.0, Outcome.OK, ScoreSource.JUDGE)
            asked = [request["messages"][0]["content"] for request in judge.requests]
            assert len(asked) == 2 and len({text.index("long answer") < text.rindex("gold") for text in asked}) == 2
            (without,) = await source.scores([Sample("2 + 2?", "a long answer")])
            assert (without.value, without.outcome) == (None, Outcome.SKIPPED)
            assert f"spec.scoring.alone.vs: {vs} is wanted, and the data set has nothing as" in without.detail
            assert len(judge.requests) == 2
            group = await source.scores([Sample("2 + 2?", said, **texts) for said in ("a long answer", "gold or so")])
    assert all(score.value is not None for score in group)
    assert not any("gold or so" not in r["messages"][0]["content"] for r in judge.requests[2:]), "no third player"


@pytest.mark.parametrize("mode", ["pairwise", "listwise"])
async def test_a_text_that_plays_is_not_shown_as_the_reference_too(mode: str) -> None:
    def shown(request: Any) -> int:
        return str(request["messages"][0]["content"]).count("gold")

    said = "<result>A</result>" if mode == "pairwise" else "<ranking>1, 2</ranking>"
    async with ScriptedJudge(says(said)) as judge:
        sample = Sample("2 + 2?", "4", reference="gold", extra={"baseline": "5"})
        for vs, times in (("reference", 1), ("baseline", 1)):
            rm = external("judge", judge.url, mode=mode, alone={"vs": vs})
            async with reached(rm, Means()) as way:
                await source_of(rm, way).scores([sample])
            assert [shown(request) for request in judge.requests] == [times, times]
            judge.requests.clear()
        rm = external("judge", judge.url, mode="pairwise", anchor="reference")
        async with reached(rm, Means()) as way:
            await source_of(rm, way).scores([sample, replace(sample, response="3")])
        assert [shown(request) for request in judge.requests] == [1, 1, 1], "as one of the two, or as the reference"


async def test_a_judge_who_likes_the_first_place_says_nothing_of_a_response_alone() -> None:
    async with ScriptedJudge(says("<result>A</result>")) as judge:
        rm = external("judge", judge.url, mode="pairwise", alone={"vs": "reference"})
        async with reached(rm, Means()) as way:
            (alone,) = await source_of(rm, way).scores([Sample("2 + 2?", "4", reference="5")])
    assert alone.value == 0.5


@pytest.mark.parametrize("mode", ["pairwise", "listwise"])
@pytest.mark.parametrize(
    ("judged_by", "said", "value"), [(None, r"\boxed{True}", 1.0), ("pointwise-1-10", "<score>7</score>", 7.0)]
)
async def test_a_response_alone_is_looked_at_by_itself(
    mode: str, judged_by: str | None, said: str, value: float
) -> None:
    alone = {"vs": "pointwise", **({} if judged_by is None else {"judge": judged_by})}
    words = {"structured": {"choice": ["A", "B"]}, "maxTokens": 9}
    async with ScriptedJudge(says(said)) as judge:
        rm = external("judge", judge.url, mode=mode, alone=alone, sampling=words)
        async with reached(rm, Means()) as way:
            (score,) = await source_of(rm, way).scores(answers("4"))
    assert (score.value, score.source) == (value, ScoreSource.JUDGE)
    (request,) = judge.requests
    assert request["max_tokens"] == 9 and "structured_outputs" not in request, "that form is of the judge of pairs"


async def test_a_response_alone_that_cannot_be_judged_is_the_policys() -> None:
    policy = {"policy": "value", "value": -1}
    async with ScriptedJudge(says("I cannot say.")) as judge:
        rm = external("judge", judge.url, mode="pairwise", alone={"vs": "pointwise"}, onFailure=policy)
        async with reached(rm, Means()) as way:
            (score,) = await source_of(rm, way).scores(answers("4"))
    assert (score.value, score.outcome, score.source) == (-1.0, Outcome.PARSE_FAILED, ScoreSource.POLICY)


async def test_all_are_ranked_in_one_question_and_each_vote_shows_them_otherwise() -> None:
    def longest_first(request: Any) -> str:
        text = request["messages"][0]["content"]
        places = sorted((text.index(f"answer {mark}"), size) for mark, size in (("a", 1), ("bb", 2), ("ccc", 3)))
        shown = [size for _, size in places]
        order = sorted(range(3), key=lambda place: -shown[place])
        return f"<ranking>{', '.join(str(place + 1) for place in order)}</ranking>"

    async with ScriptedJudge(says(longest_first)) as judge:
        votes = {"count": 3}
        rm = external("judge", judge.url, mode="listwise", votes=votes, sampling={"temperature": 1.0})
        async with reached(rm, Means()) as way:
            scores = await source_of(rm, way).scores(answers("answer a", "answer ccc", "answer bb"))
            assert [score.value for score in scores] == [0.0, 1.0, 0.5]
            assert len({request["messages"][0]["content"] for request in judge.requests}) == 3
            same = await source_of(rm, way).scores(answers("answer a", "answer a"))
    assert [score.value for score in same] == [0.5, 0.5] and len(judge.requests) == 3


async def test_votes_on_a_list_differ_at_temperature_0_and_those_on_a_response_alone_do_not() -> None:
    def answer(request: Any) -> str:
        return "<ranking>1, 2</ranking>" if "answer b" in str(request) else r"\boxed{True}"

    async with ScriptedJudge(says(answer)) as judge:
        how: Any = {"votes": {"count": 2}, "sampling": {"temperature": 0}, "alone": {"vs": "pointwise"}}
        rm = external("judge", judge.url, mode="listwise", **how)
        async with reached(rm, Means()) as way:
            scores = await source_of(rm, way).scores(answers("answer a", "answer b"))
            assert [score.value for score in scores] == [0.5, 0.5], "who takes the first place for good takes nobody"
            assert len({request["messages"][0]["content"] for request in judge.requests}) == 2
            judge.requests.clear()
            (alone,) = await source_of(rm, way).scores(answers("answer a"))
    assert alone.value == 1.0 and len(judge.requests) == 1


async def test_a_ranking_that_is_none_fails_the_group() -> None:
    async with ScriptedJudge(says("<ranking>1, 1</ranking>")) as judge:
        rm = external("judge", judge.url, mode="listwise")
        async with reached(rm, Means()) as way:
            scores = await source_of(rm, way).scores(answers("a", "b"))
    assert {score.outcome for score in scores} == {Outcome.PARSE_FAILED} and scores[0].value is None


async def test_a_list_is_shown_in_the_order_that_the_spec_says() -> None:
    async def first_shown(order: str, *responses: str) -> str:
        async with ScriptedJudge(says("<ranking>1, 2, 3</ranking>")) as judge:
            rm = external("judge", judge.url, mode="listwise", order=order)
            async with reached(rm, Means()) as way:
                await source_of(rm, way).scores(answers(*responses))
        text = judge.requests[0]["messages"][0]["content"]
        return min(responses, key=text.index)

    one, other = ("answer a", "answer b", "answer c"), ("answer c", "answer b", "answer a")
    assert await first_shown("given", *one) == "answer a" and await first_shown("given", *other) == "answer c"
    assert await first_shown("hash", *one) == await first_shown("hash", *other)


async def test_an_order_that_is_shown_again_is_asked_with_another_seed() -> None:
    async with ScriptedJudge(says("<ranking>1, 2</ranking>")) as judge:
        rm = external("judge", judge.url, mode="listwise", votes={"count": 6})
        async with reached(rm, Means()) as way:
            await source_of(rm, way).scores(answers("a", "b"))
    assert len({request["messages"][0]["content"] for request in judge.requests}) == 2
    assert len({request["seed"] for request in judge.requests}) == 6


async def test_most_votes_on_an_order_must_be_one() -> None:
    order, none = says("<ranking>1, 2</ranking>"), says("I cannot say.")
    for script, outcome in (((none, order, order), Outcome.OK), ((none, none, order), Outcome.PARSE_FAILED)):
        async with ScriptedJudge(*script) as judge:
            rm = external("judge", judge.url, mode="listwise", votes={"count": 3}, sampling={"temperature": 1.0})
            async with reached(rm, Means()) as way:
                scores = await source_of(rm, way).scores(answers("a", "b"))
        assert {score.outcome for score in scores} == {outcome}


async def test_python_of_the_user_runs_in_a_worker() -> None:
    source = "def score(response, ground_truth):\n    return float(len(response))\n"
    worker = WorkerRule(AnswerRule.model_validate({"kind": "python", "function": "score"}), processes=2, source=source)
    try:
        assert [s.value for s in await worker.scores(answers("a", "abc", "ab"))] == [1.0, 3.0, 2.0]
    finally:
        await worker.close()


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ([model()], "judge is not known here"),
        ([{"name": "own", "rule": {"kind": "python", "function": "f"}}], "no Python file was given"),
        ([{"name": "own", "rule": {"kind": "python", "function": "f", "configMap": {"name": "m"}}}], "not approved"),
        (
            [{"name": "api", "api": {"url": "https://a/b", "credentialsSecretRef": {"name": "s"}}}],
            "no keys are read here",
        ),
    ],
)
async def test_what_cannot_be_carried_out_is_not_opened(terms: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        async with opened_fleet(fleet_of(*terms), Means()):
            pass


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"type": "Generative", "model": {"uri": "hf://a/b"}}, "runs in a cluster"),
        (
            {"type": "Generative", "model": {"uri": "hf://a/b"}, "lifecycle": {"state": "Asleep"}},
            "set it to Auto",
        ),
        (
            {
                "type": "External",
                "external": {"url": "https://a/v1"},
                "scoring": {"template": "{{ respnse }}", "parse": {"kind": "number"}},
            },
            "RewardModel judge spec.scoring.template: .*did you mean response",
        ),
        (
            {
                "type": "External",
                "external": {"url": "https://a/v1"},
                "scoring": {"mode": "pairwise", "schedule": {"kind": "circular", "budget": 4}, "aggregate": "winrate"},
            },
            "winrate with a schedule that does not ask all pairs",
        ),
    ],
)
async def test_a_model_that_cannot_be_scored_with_is_refused(spec: dict[str, Any], sentence: str) -> None:
    rm = RewardModel.model_validate({"metadata": {"name": "judge", "namespace": "rl"}, "spec": spec})
    with pytest.raises(ConfigurationError, match=sentence):
        async with reached(rm, Means()) as way:
            source_of(rm, way)
