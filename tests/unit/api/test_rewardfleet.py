"""The RewardFleet's own rules, from the Python side."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.rewardfleet import FleetCombine, RewardFleet
from pydantic import ValidationError

from tests.unit.api.fleet_cases import ACCEPTED, ACCEPTED_NAMES, BROKEN, BROKEN_NAMES, JUDGE, UNFIT, fleet, manifest


@pytest.mark.parametrize(("spec", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_fleet_is_refused_with_a_sentence(spec: dict[str, Any], says: str) -> None:
    assert says in refusal(spec)


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_fleet_that_works_is_accepted(spec: dict[str, Any]) -> None:
    RewardFleet.model_validate(manifest(spec) | {"status": None})


@pytest.mark.parametrize(("name", "says"), [*BROKEN_NAMES.items(), ("", UNFIT)])
def test_a_name_that_leases_cannot_carry_is_refused(name: str, says: str) -> None:
    assert says in refusal(fleet(JUDGE), name)


@pytest.mark.parametrize("name", ACCEPTED_NAMES)
def test_a_name_that_fits_is_accepted(name: str) -> None:
    RewardFleet.model_validate(manifest(fleet(JUDGE), name))


def test_what_a_fleet_leaves_out_is_the_plain_sum_of_its_terms() -> None:
    spec = RewardFleet.model_validate(manifest(fleet(JUDGE))).spec
    assert spec.combine is FleetCombine.ADD and spec.terms[0].weight == 1 and spec.on_failure.policy == "drop"
    assert (spec.breaker.max_failed_fraction, spec.breaker.minimum_count) == (0.2, 32)


def refusal(spec: dict[str, Any], name: str = "math") -> str:
    with pytest.raises(ValidationError) as refused:
        RewardFleet.model_validate(manifest(spec, name))
    return str(refused.value)
