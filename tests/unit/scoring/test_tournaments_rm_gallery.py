"""The numbers of RM-Gallery 0.1.7, as its own code gave them (tests/fixtures/rm_gallery)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from genrm_api.comparing import Aggregate, Normalise
from genrm_api.scoring import Scoring
from genrm_scoring.arrivals import arrivals_of
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.normalise import normalise
from genrm_scoring.rankings import Listwise
from genrm_scoring.sources import Pairwise
from genrm_scoring.tournaments import Comparison, rm_gallery
from genrm_scoring.types import Judgement, Outcome, Question, Ranking, Sample, Verdict

CORPUS = json.loads((Path(__file__).parents[2] / "fixtures" / "rm_gallery" / "scores.json").read_text())
RULES = [Aggregate.WINRATE, Aggregate.COPELAND, Aggregate.DGR, Aggregate.ELO]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("game", CORPUS["tournaments"], ids=lambda game: f"{game['players']}-{game['seed']}")
def test_a_tournament_has_the_scores_of_rm_gallery(rule: Aggregate, game: dict[str, Any]) -> None:
    comparisons = [Comparison(i, j, (result + 1) / 2) for i, j, result in game["games"]]
    assert rm_gallery.scores(rule, game["players"], comparisons, game["seed"]) == pytest.approx(game[rule], abs=1e-9)


def judged(verdict: Verdict) -> Judgement:
    return Judgement(Outcome.OK, 0.1, 1, verdict=verdict)


def sampled(players: int) -> list[Sample]:
    """Responses that say their number, in no order that anybody chose."""
    found = [Sample("Which one?", str(number), session=number) for number in range(players)]
    return random.Random(players).sample(found, players)


async def pairwise_scores(game: dict[str, Any], **scoring: Any) -> list[float | None]:
    """From a spec to scores, by number; pairs without a game fail."""
    results = {(i, j): result for i, j, result in game["games"]}

    async def ask(question: Question) -> Judgement:
        first, second = map(int, question.responses)
        assert first < second, "the earlier one is always shown first"
        if (first, second) not in results:
            return Judgement(Outcome.TIMEOUT, 9.0, 1, detail="no answer")
        return judged(Verdict("", (results[first, second] + 1) / 2))

    spec = Scoring.model_validate({"mode": "pairwise", "compat": "rm-gallery", **scoring})
    arrivals = arrivals_of(Pairwise(spec, ask, 60.0), 60.0)
    came = sampled(game["players"])
    try:
        scores = await asyncio.gather(*(arrivals.score("g", len(came), sample) for sample in came))
    finally:
        await arrivals.close()
    by_number = sorted(zip(came, scores, strict=True), key=lambda one: int(one[0].response))
    return [score.value for _, score in by_number]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "game", [g for g in CORPUS["tournaments"] if g["players"] > 1], ids=lambda game: f"{game['players']}-{game['seed']}"
)
async def test_a_spec_that_wants_them_gets_the_scores_of_rm_gallery(rule: Aggregate, game: dict[str, Any]) -> None:
    expected = game[rule]
    if rule is Aggregate.DGR and any(not result for _, _, result in game["games"]):
        # Its coins fall by a seed of the whole process there, and by the prompt's here.
        comparisons = [Comparison(i, j, (result + 1) / 2) for i, j, result in game["games"]]
        coins = hashlib.sha256(b"5 " + hashlib.sha256(b"Which one?").digest()).digest()
        expected = rm_gallery.scores(rule, game["players"], comparisons, int.from_bytes(coins[:8]))
    found = await pairwise_scores(game, aggregate=rule, sampling={"seed": 5})
    assert found == pytest.approx(expected, abs=1e-9)


async def test_a_response_of_which_nothing_was_said_has_no_score_even_there() -> None:
    game = {"players": 4, "games": [[0, 1, 1], [0, 2, 1], [1, 2, 0]]}
    found = await pairwise_scores(game)
    assert found[3] is None and found[0] == 1.0


@pytest.mark.parametrize("case", [case for case in CORPUS["listwise"] if len(case["ranking"]) > 1])
async def test_a_ranking_scaled_has_the_scores_of_rm_gallery(case: dict[str, Any]) -> None:
    async def ask(question: Question, vote: int) -> Judgement:
        assert list(question.responses) == sorted(question.responses, key=int)
        return judged(Verdict("", 0.0, ranking=Ranking(tuple(case["ranking"]))))

    spec = Scoring.model_validate({"mode": "listwise", "order": "given", "normalise": "minmax"})
    came = sampled(len(case["ranking"]))
    scores = await Listwise(spec, ask).scores(came)
    found = {int(sample.response): score.value for sample, score in zip(came, scores, strict=True)}
    assert [found[number] for number in range(len(came))] == pytest.approx(case["scores"], abs=1e-9)


@pytest.mark.parametrize("case", CORPUS["pointwise"])
def test_numbers_scaled_have_the_scores_of_rm_gallery(case: dict[str, Any]) -> None:
    assert normalise(Normalise.MINMAX, case["values"]) == pytest.approx(case["scores"], abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_who_is_shown_first_is_no_matter(rule: Aggregate) -> None:
    given = [Comparison(0, 1, 1), Comparison(0, 2, 0.5), Comparison(1, 2, 0)]
    turned = [Comparison(1, 0, 0), Comparison(2, 0, 0.5), Comparison(2, 1, 1)]
    assert rm_gallery.scores(rule, 3, given) == rm_gallery.scores(rule, 3, turned)


def test_coins_of_ties_fall_by_the_seed() -> None:
    """Four that tie all around, but for a circle: which arc goes is the coins' choice."""
    games = [Comparison(0, 1, 1), Comparison(1, 2, 1), Comparison(2, 3, 1), Comparison(0, 3, 0)]
    games += [Comparison(0, 2, 0.5), Comparison(1, 3, 0.5)]
    found = {tuple(rm_gallery.scores(Aggregate.DGR, 4, games, seed)) for seed in range(20)}
    assert len(found) > 1
    assert rm_gallery.scores(Aggregate.DGR, 4, games, 7) == rm_gallery.scores(Aggregate.DGR, 4, games, 7)


def test_a_rule_that_rm_gallery_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"scoring\.aggregate: bt"):
        rm_gallery.scores(Aggregate.BT, 2, [])
