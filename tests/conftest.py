"""How the tests are shared out among pytest-xdist's workers (`make test` starts some; `pytest` alone has none).

What computes goes one after another: on two cores several such would only slow each other down until deadlines pass. It
begins first, in two parts: all that runs on a real node or trains, which waits for half of its time, and the engines'
own tests, of which one server is up at a time. All else waits more than it computes, and goes file by file to whoever
has nothing to do.
"""

from __future__ import annotations

import os

import pytest

NODE = "node"
ENGINES = "engines"
LONGEST_FIRST = (NODE, ENGINES, "tests/cluster/", "tests/e2e/", "tests/unit/")


def group(item: pytest.Item) -> str:
    if {"node", "verl_python"} & set(getattr(item, "fixturenames", ())):
        return NODE
    if "tests/e2e/contract/" in item.nodeid:
        engine: str = item.callspec.params["engine"]  # type: ignore[attr-defined]
        return ENGINES if engine.endswith("-real") else f"tests/e2e/contract/{engine}"
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    groups = {item.nodeid: group(item) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))

    def rank(item: pytest.Item) -> int:
        return next((i for i, start in enumerate(LONGEST_FIRST) if groups[item.nodeid].startswith(start)), 99)

    items.sort(key=rank)
