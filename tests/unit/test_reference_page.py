"""The reference pages of the resources say everything that the schemas say."""

from __future__ import annotations

import pytest
from genrm_operator.not_yet import GAPS

from dev import reference

each = pytest.mark.parametrize("page", reference.PAGES, ids=[page.file for page in reference.PAGES])


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


@each
def test_every_object_has_its_table_and_every_field_its_row(page: reference.Page) -> None:
    text = page.text()
    for path, node in reference.everything("spec", page.schema["properties"]["spec"]):
        for name in node.get("properties", {}):
            assert f"`{path}`" in text and f"| `{name}` |" in text, f"{path}.{name}"


@each
def test_every_field_says_what_it_means(page: reference.Page) -> None:
    rows = [line for line in page.text().splitlines() if line.startswith("| `")]
    assert rows and [row for row in rows if row.endswith("|  |")] == []


def test_what_is_not_carried_out_yet_is_named() -> None:
    text = reference.pages()["rewardmodel.md"]
    section = text[text.index("## Not carried out yet") : text.index("## status")]
    assert all(f"`{gap.field}`" in section for gap in GAPS)
