"""The page that states the door's contract, docs/reference/door.md, names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from genrm_door import ROUTES, Kind, State
from genrm_door.record import DOCUMENT_VERSION, Record

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "door.md").read_text()


@pytest.mark.parametrize("engine", ROUTES)
def test_every_route_is_on_the_page(engine: str) -> None:
    missing = [path for _, path in ROUTES[engine].table if f"`{path}`" not in PAGE and f" {path}`" not in PAGE]
    assert missing == []


def test_the_document_on_the_page_is_the_one_that_the_door_writes() -> None:
    (example,) = re.findall(r"```json\n(\{.*?\n\})\n```", PAGE, re.DOTALL)
    document = Record("b", "vllm", "r").document(None)
    assert re.findall(r'^  "(\w+)":', example, re.MULTILINE) == list(document)
    assert f'"version": {DOCUMENT_VERSION},' in example
    table = PAGE[PAGE.index("| field | meaning |") : PAGE.index("### Versions")]
    assert [name for name in document if f"`{name}`" not in table] == ["state", "engine", "revision", "startedAt"]


def test_every_state_is_on_the_page() -> None:
    assert [state.value for state in State if f"| `{state.value}`" not in PAGE] == []


def test_every_kind_of_route_has_a_row() -> None:
    kinds = {kind for routes in ROUTES.values() for kind in routes.table.values()}
    assert kinds == set(Kind), "each is used by some engine"
