"""How the tests are shared out among pytest-xdist's workers (`make test` starts some; `pytest` alone has none).

What stands on one expensive thing runs in one worker: the node with its engines, or one real engine. All else goes file
by file. The longest group comes first, so that no worker waits for it at the end.
"""

from __future__ import annotations

import os

import pytest

NODE = "node"
LONGEST_FIRST = (NODE, "tests/cluster/", "tests/e2e/", "tests/unit/")


def group(item: pytest.Item) -> str:
    names = getattr(item, "fixturenames", ())
    if "node" in names:
        return NODE
    if "tests/e2e/contract/" in item.nodeid:
        return f"tests/e2e/contract/{item.callspec.params['engine']}"  # type: ignore[attr-defined]
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
