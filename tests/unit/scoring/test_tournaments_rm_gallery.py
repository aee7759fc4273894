"""The numbers of RM-Gallery 0.1.7, as its own code gave them (tests/fixtures/rm_gallery)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from genrm_api.scoring import Aggregate
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.tournaments import Comparison, rm_gallery

CORPUS = json.loads((Path(__file__).parents[2] / "fixtures" / "rm_gallery" / "scores.json").read_text())
RULES = [Aggregate.WINRATE, Aggregate.COPELAND, Aggregate.DGR, Aggregate.ELO]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("game", CORPUS["tournaments"], ids=lambda game: f"{game['players']}-{game['seed']}")
def test_a_tournament_has_the_scores_of_rm_gallery(rule: Aggregate, game: dict[str, Any]) -> None:
    comparisons = [Comparison(i, j, (result + 1) / 2) for i, j, result in game["games"]]
    assert rm_gallery.scores(rule, game["players"], comparisons, game["seed"]) == pytest.approx(game[rule], abs=1e-9)


@pytest.mark.parametrize("case", CORPUS["listwise"])
def test_a_ranking_has_the_scores_of_rm_gallery(case: dict[str, Any]) -> None:
    assert rm_gallery.listwise(case["ranking"]) == pytest.approx(case["scores"], abs=1e-9)


@pytest.mark.parametrize("case", CORPUS["pointwise"])
def test_numbers_have_the_scores_of_rm_gallery(case: dict[str, Any]) -> None:
    assert rm_gallery.pointwise(case["values"]) == pytest.approx(case["scores"], abs=1e-9)


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
