"""Every reason that the operator can write into a condition is on the one list that the reference page shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import genrm_operator
import pytest
from genrm_api.status import REASONS, Reason
from genrm_operator import reconciler, status
from genrm_operator.trouble import _WAITING

WHO_SAYS_WHY = ("Impossible", "Trouble")
SOURCES = sorted(Path(genrm_operator.__file__).parent.rglob("*.py"))


def written_in(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in WHO_SAYS_WHY
            and node.args
        ):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield first.value


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_reason_in_the_source_is_listed(source: Path) -> None:
    assert set(written_in(source)) <= set(Reason), f"list it in genrm_api/status.py: {source}"


def test_what_the_reconciler_itself_says_is_listed() -> None:
    pairs = [node for node in ast.walk(ast.parse(Path(reconciler.__file__).read_text())) if isinstance(node, ast.Tuple)]
    first = [pair.elts[0] for pair in pairs if len(pair.elts) == 2]
    words = {word.value for word in first if isinstance(word, ast.Constant) and isinstance(word.value, str)}
    assert words and words <= set(Reason)


def test_what_the_kubelet_says_is_translated_to_listed_reasons() -> None:
    assert {reason for reason, _ in _WAITING.values()} <= set(Reason)


def test_phases_are_reasons() -> None:
    tree = ast.parse(Path(status.__file__).read_text())
    phase = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_phase")
    words = {leaf.value for leaf in ast.walk(phase) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
    assert words and words <= set(Reason)


def test_each_is_explained() -> None:
    assert set(REASONS) == set(Reason)
