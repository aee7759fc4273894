"""docs/reference/rewardmodel.md says everything that the schema says."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_operator.not_yet import GAPS

from dev import reference

PAGE = reference.page()
SPEC: dict[str, Any] = reference.WHOLE["properties"]["spec"]


@pytest.mark.parametrize(
    ("cel", "said"),
    [
        ("'a: ' + self.b + ' is wrong'", "a: … is wrong"),
        ("'%d are too many'.replace('%d', string(self.a + self.b))", "… are too many"),
        ("'spec.' + (has(self.a) ? 'a' : 'b') + ' it\\'s'", "spec.… it's"),
        ("'a' + self.xs.filter(x, x != 'y')[0].name", "a…"),
    ],
)
def test_a_message_expression_reads_as_its_sentence(cel: str, said: str) -> None:
    assert reference.sentence(cel) == said


def test_every_object_has_its_table_and_every_field_its_row() -> None:
    for path, node in reference.everything("spec", SPEC):
        for name in node.get("properties", {}):
            assert f"`{path}`" in PAGE and f"| `{name}` |" in PAGE, f"{path}.{name}"


def test_every_field_says_what_it_means() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_what_is_not_carried_out_yet_is_named() -> None:
    section = PAGE[PAGE.index("## Not carried out yet") : PAGE.index("## status")]
    assert all(f"`{gap.field}`" in section for gap in GAPS)
