"""How the tests are shared out among pytest-xdist's workers (`make test` starts some; `pytest` alone has none).

All that computes, real engines and training runs, goes to one worker, one after another: on two cores two such would
only slow each other down until deadlines pass. It takes the longest and begins first. All else waits more than it
computes, and goes to the others file by file.
"""

from __future__ import annotations

import os

import pytest

HEAVY = "heavy"
LAST = ("tests/e2e/contract/test_attacks.py", "tests/e2e/contract/test_the_end.py")
LONGEST_FIRST = (HEAVY, "tests/cluster/", "tests/e2e/", "tests/unit/")


def group(item: pytest.Item) -> str:
    if {"node", "real_vllm", "verl_python"} & set(getattr(item, "fixturenames", ())):
        return HEAVY
    if "tests/e2e/contract/" in item.nodeid:
        engine: str = item.callspec.params["engine"]  # type: ignore[attr-defined]
        return HEAVY if engine.endswith("-real") else f"tests/e2e/contract/{engine}"
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # An engine that was attacked on every route is late with everything: each route is a label of its metrics.
    items.sort(key=lambda item: next((i for i, file in enumerate(LAST, 1) if file in item.nodeid), 0))
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    groups = {item.nodeid: group(item) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))

    def rank(item: pytest.Item) -> int:
        return next((i for i, start in enumerate(LONGEST_FIRST) if groups[item.nodeid].startswith(start)), 99)

    items.sort(key=rank)
