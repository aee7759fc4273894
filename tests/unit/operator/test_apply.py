"""Which children are no longer wanted."""

from __future__ import annotations

import pytest
from genrm_operator.apply import unwanted
from genrm_operator.cache import Existing

OURS, DEPLOYMENT = Existing("1", "1/1", "rm"), ("Deployment", "judge")
DOOR, ROUTER = ("ConfigMap", "judge-door-old"), ("Service", "judge-router")


@pytest.mark.parametrize(
    ("there", "wanted", "in_use", "gone"),
    [
        ({DEPLOYMENT: OURS}, [DEPLOYMENT], set(), []),
        ({DEPLOYMENT: OURS, ROUTER: OURS}, [DEPLOYMENT], set(), [ROUTER]),
        ({DEPLOYMENT: OURS, ROUTER: OURS}, [], set(), [DEPLOYMENT, ROUTER]),
        ({DOOR: OURS}, [], {"judge-door-old"}, []),
        ({DOOR: OURS}, [], {"judge-door-other"}, [DOOR]),
        ({ROUTER: Existing("1", "1/1", None)}, [], set(), []),
        ({ROUTER: Existing("1", "1/1", "another")}, [], set(), []),
    ],
    ids=["all wanted", "router gone", "everything gone", "door mounted", "door unused", "only labelled", "not ours"],
)
def test_only_what_is_ours_and_unused_is_removed(
    there: dict[tuple[str, str], Existing],
    wanted: list[tuple[str, str]],
    in_use: set[str],
    gone: list[tuple[str, str]],
) -> None:
    assert unwanted(there, wanted, "rm", in_use) == gone
