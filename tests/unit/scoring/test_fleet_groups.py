"""A fleet's terms are asked while responses arrive, and its scores are those of all responses asked about at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from genrm_api.answer_rules import AnswerRule
from genrm_api.scoring import Scoring
from genrm_scoring.arrivals import AllTogether, Arrivals, Mixed, arrivals_of
from genrm_scoring.errors import ConfigurationError, GenrmError
from genrm_scoring.fleet import FleetScorer
from genrm_scoring.mixing import Mixture
from genrm_scoring.rankings import Listwise
from genrm_scoring.sources import BuiltInRule, Pairwise, Pointwise, Source
from genrm_scoring.types import Judgement, Outcome, Question, Ranking, Sample, Score, Verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scoring import virtual_time
from tests.unit.scoring.mixing.fleets import gated, mixture, mixtures, model, rule

LONG = 10_000.0
TEXTS = "01234567"
KINDS: dict[str, dict[str, Any]] = {
    "pointwise": {},
    "listwise": {"mode": "listwise"},
    "all": {"mode": "pairwise"},
    "anchored": {"mode": "pairwise", "anchor": "reference"},
    "circular": {"mode": "pairwise", "schedule": {"kind": "circular"}},
    "active": {"mode": "pairwise", "schedule": {"kind": "active"}, "order": "both"},
}


@dataclass
class Judge:
    """Likes what is worth more, after a while; `worthless` are texts about which it says nothing. Every question that
    it was asked is in `asked`."""

    worth: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    worthless: frozenset[str] = frozenset()
    asked: Counter[tuple[str, ...]] = field(default_factory=Counter)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def judge(self, sample: Sample) -> Judgement:
        return await self(Question.about(sample))

    async def __call__(self, question: Question, vote: int = 0) -> Judgement:
        async with self.changed:
            self.asked[question.responses] += 1
            self.changed.notify_all()
        await asyncio.sleep(sum(self.seconds.get(text, 0) for text in question.responses))
        if self.worthless & set(question.responses):
            return Judgement(Outcome.PARSE_FAILED, 1.0, 1, detail="no word about it")
        return Judgement(Outcome.OK, 1.0, 1, verdict=self._verdict(question.responses))

    def _verdict(self, texts: Sequence[str]) -> Verdict:
        worth = [self.worth.get(text, float(text)) for text in texts]
        if len(texts) == 1:
            return Verdict("", worth[0])
        best_first = sorted(range(len(texts)), key=lambda place: (-worth[place], texts[place]))
        preference = 0.5 if worth[0] == worth[1] else float(worth[0] > worth[1])
        return Verdict("", preference, ranking=Ranking(tuple(best_first)))

    async def until(self, *responses: str) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.asked[responses] > 0)


def source_of(kind: str, judge: Judge) -> Source:
    scoring = Scoring.model_validate(KINDS[kind])
    if kind == "pointwise":
        return Pointwise(judge)  # type: ignore[arg-type]
    if kind == "listwise":
        return Listwise(scoring, judge)
    return Pairwise(scoring, judge, LONG)


def fleet_of(mixture: Mixture, judges: dict[str, tuple[str, Judge]]) -> FleetScorer:
    """Terms without a judge are rules."""
    exact = AnswerRule.model_validate({"kind": "exact"})
    rules = {term.name: BuiltInRule(exact) for term in mixture.terms}
    return FleetScorer(mixture, rules | {name: source_of(*of) for name, of in judges.items()})


@dataclass(frozen=True)
class Case:
    """A fleet of any terms, and responses that arrive some seconds after each other."""

    mixture: Mixture
    kinds: dict[str, str]
    seconds: dict[str, float]
    worth: dict[str, float]
    worthless: frozenset[str]
    responses: list[str]
    gaps: list[float]
    reference: str | None
    lost: int

    def outcome(self, of: Callable[[FleetScorer, float], Arrivals]) -> tuple[Any, ...]:
        """The scores, the states of running normalisation after them, and what was asked."""
        judges = {n: (k, Judge(self.worth, self.seconds, self.worthless)) for n, k in self.kinds.items()}

        async def all_come() -> tuple[Any, ...]:
            fleet = fleet_of(self.mixture, judges)
            arrivals = of(fleet, LONG)
            size = len(self.responses) + self.lost
            tasks = []
            for response, gap in zip(self.responses, self.gaps, strict=True):
                sample = Sample("p", response, reference=self.reference)
                tasks.append(asyncio.create_task(arrivals.score("g", size, sample)))
                await asyncio.sleep(gap)
            for _ in range(self.lost):
                arrivals.lost("g", size)
            try:
                scores = await asyncio.gather(*tasks)
            except GenrmError as e:
                return type(e), str(e), "and what was asked before does not matter"
            finally:
                await arrivals.close()
            return scores, fleet.running, {name: judge.asked for name, (_, judge) in judges.items()}

        return virtual_time.run(all_come())


@st.composite
def cases(draw: st.DrawFn, kinds: Sequence[str] = tuple(KINDS), lost: bool = False) -> Case:
    of = draw(mixtures())
    responses = draw(st.lists(st.sampled_from(TEXTS), min_size=3 if lost else 1, max_size=6))
    seconds = st.sampled_from([0.0, 0.5, 3.0, 20.0])
    return Case(
        of,
        {term.name: draw(st.sampled_from(kinds)) for term in of.terms if term.rule is None},
        {text: draw(seconds) for text in TEXTS},
        {text: draw(st.sampled_from([0.0, 1.0, 2.0, 2.0])) for text in TEXTS},
        frozenset() if lost else draw(st.frozensets(st.sampled_from(TEXTS), max_size=2)),
        responses,
        [draw(seconds) for _ in responses],
        draw(st.sampled_from(["1", "2", None])),
        1 if lost else 0,
    )


@settings(deadline=None, max_examples=60)
@given(cases())
def test_scores_are_those_of_all_at_once_and_nothing_is_asked_twice(case: Case) -> None:
    assert case.outcome(arrivals_of) == case.outcome(AllTogether)


@settings(deadline=None, max_examples=60)
@given(cases(("pointwise", "listwise", "all", "anchored"), lost=True))
def test_one_that_is_lost_changes_nothing_for_the_others(case: Case) -> None:
    (scores, running, _), (expected, as_expected, _) = case.outcome(arrivals_of), case.outcome(AllTogether)
    assert (scores, running) == (expected, as_expected)


def come(arrivals: Arrivals, size: int, *responses: str, key: Hashable = "g") -> list[asyncio.Task[Score]]:
    samples = [Sample("p", response, reference="1") for response in responses]
    return [asyncio.create_task(arrivals.score(key, size, sample)) for sample in samples]


async def test_a_model_that_looks_at_each_alone_and_a_tournament_do_not_wait_for_the_last_sibling() -> None:
    alone, pairs, behind = Judge(), Judge(), Judge()
    of = mixture(rule(), model("alone"), model("pairs"), gated("behind"))
    judges = {"alone": ("pointwise", alone), "pairs": ("all", pairs), "behind": ("pointwise", behind)}
    arrivals = arrivals_of(fleet_of(of, judges), LONG)
    early = come(arrivals, 3, "1", "2")
    await alone.until("1")
    await alone.until("2")
    await behind.until("1")
    async with asyncio.timeout(5), pairs.changed:
        await pairs.changed.wait_for(lambda: pairs.asked.total() > 0)
    assert not any(task.done() for task in early)
    scores = await asyncio.gather(*early, *come(arrivals, 3, "3"))
    assert [score.value for score in scores] == [1 + 1 + 0 + 1, 2 + 0.5, 3 + 1]
    assert behind.asked == Counter({("1",): 1}), "the gate keeps the others from being asked"
    await arrivals.close()


async def test_a_tournament_behind_a_gate_waits_until_it_is_known_who_takes_part() -> None:
    alone, pairs = Judge(), Judge()
    of = mixture(rule(), model("alone"), gated("pairs", **{"else": {"policy": "value", "value": -1}}))
    arrivals = arrivals_of(fleet_of(of, {"alone": ("pointwise", alone), "pairs": ("all", pairs)}), LONG)
    early = come(arrivals, 3, "1", "1")
    await alone.until("1")
    await asyncio.sleep(0)
    assert not pairs.asked
    scores = await asyncio.gather(*early, *come(arrivals, 3, "2"))
    assert [score.value for score in scores] == [2.5, 2.5, 1.0] and not pairs.asked, "equal texts tie"
    await arrivals.close()


async def test_one_that_is_late_is_scored_among_those_before_who_are_not_judged_again() -> None:
    alone, pairs = Judge(), Judge()
    of = mixture(model("alone", normalise={"kind": "minmax", "scope": "running"}), model("pairs"))
    fleet = fleet_of(of, {"alone": ("pointwise", alone), "pairs": ("all", pairs)})
    arrivals = arrivals_of(fleet, 0.05)
    async with asyncio.timeout(5):
        early = await asyncio.gather(*come(arrivals, 3, "1", "3"))
        assert [score.value for score in early] == [-1.0, 2.0]
        learned = fleet.running
        (late,) = await asyncio.gather(*come(arrivals, 3, "2"))
    assert [term.raw for term in late.terms] == [2.0, 0.5] and late.value == 0.5
    assert alone.asked == Counter({("1",): 1, ("3",): 1, ("2",): 1})
    assert fleet.running == learned, "its siblings' numbers do not enter twice"
    await arrivals.close()


def test_one_that_is_late_while_the_others_are_still_being_judged_is_not_forgotten_with_them() -> None:
    async def values() -> list[float | None]:
        judge = Judge(seconds={"1": 30, "2": 50})
        arrivals = arrivals_of(fleet_of(mixture(model("alone")), {"alone": ("pointwise", judge)}), 10)
        early = come(arrivals, 3, "1", "3")
        await asyncio.sleep(20)
        late = come(arrivals, 3, "2")
        found = [score.value for score in await asyncio.gather(*early, *late)]
        assert asyncio.get_running_loop().time() == 70 and judge.asked.total() == 3
        await arrivals.close()
        return found

    assert virtual_time.run(values()) == [1.0, 3.0, 2.0]


async def test_a_data_set_without_the_anchor_is_said_to_everybody_who_waits() -> None:
    arrivals = arrivals_of(fleet_of(mixture(model("pairs")), {"pairs": ("anchored", Judge())}), LONG)
    samples = [Sample("p", text) for text in "12"]
    found = await asyncio.gather(*(arrivals.score("g", 2, sample) for sample in samples), return_exceptions=True)
    assert [type(error) for error in found] == [ConfigurationError] * 2
    await arrivals.close()


@pytest.mark.parametrize("kind", ["pointwise", "all"])
async def test_what_was_asked_ends_when_nobody_waits_for_its_scores_any_more(kind: str) -> None:
    slow = Judge(seconds={"1": LONG, "2": LONG})
    arrivals = arrivals_of(fleet_of(mixture(model("slow")), {"slow": (kind, slow)}), LONG)
    assert isinstance(arrivals, Mixed)
    tasks = come(arrivals, 3, "1", "2")
    async with asyncio.timeout(5), slow.changed:
        await slow.changed.wait_for(lambda: slow.asked.total() > 0)
    async with asyncio.timeout(5):
        await arrivals.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [asyncio.CancelledError] * 2
    assert len(asyncio.all_tasks()) == 1, "this one"
