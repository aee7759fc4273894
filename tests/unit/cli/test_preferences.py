"""Files of pairs of which the better response is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from genrm_cli.preferences import Preference, of_row, read
from genrm_scoring.errors import ConfigurationError

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2?"}]


def reply(text: str) -> list[dict[str, str]]:
    return [*CHAT, {"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"x": "2 + 2?", "chosen": "4", "rejected": "5"}, "2 + 2?"),
        ({"x": CHAT[1:], "chosen": reply("4"), "rejected": reply("5"), "source": "s"}, "2 + 2?"),
        ({"prompt": CHAT, "chosen": "4", "rejected": "5"}, "[system]\nBe short.\n\n[user]\n2 + 2?"),
        (
            {"prompt": CHAT[1:], "reward_model": {"style": "pair", "ground_truth": {"chosen": "4", "rejected": "5"}}},
            "2 + 2?",
        ),
    ],
)
def test_both_layouts_are_read(row: dict[str, Any], prompt: str) -> None:
    found = of_row(row)
    assert (found.prompt, found.chosen, found.rejected) == (prompt, "4", "5")
    roles = [role for role, _ in found.messages]
    assert roles == ([] if row.get("x") == "2 + 2?" else ["system", "user"] if prompt.startswith("[") else ["user"])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"chosen": "4", "rejected": "5"}, "no prompt; write one of the columns x, prompt, question"),
        ({"x": "?", "chosen": "4"}, "no rejected"),
        ({"prompt": "?", "reward_model": {"ground_truth": "4"}}, "no chosen"),
        ({"x": 3, "chosen": "4", "rejected": "5"}, "found 3; write a text, or a chat"),
        ({"x": "?", "chosen": [], "rejected": "5"}, "found []; write a text, or a chat"),
    ],
)
def test_a_row_of_another_layout_says_what_is_missing(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        of_row(row)
    assert sentence in str(refused.value)


def test_parquet_and_json_hold_the_same(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"x": CHAT[1:], "chosen": reply("4"), "rejected": reply(str(i))} for i in range(5, 8)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = [read(tmp_path / f"a.{ending}") for ending in ("parquet", "json", "jsonl")]
    assert (
        found[0]
        == found[1]
        == found[2]
        == [Preference("2 + 2?", "4", str(i), (("user", "2 + 2?"),)) for i in range(5, 8)]
    )
    assert read(tmp_path / "a.parquet", limit=2) == found[0][:2]


def test_a_row_with_an_image_is_refused_by_its_number(tmp_path: Path) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    rows = [{"x": "?", "chosen": "4", "rejected": "5"}, {"x": image, "chosen": "4", "rejected": "5"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(ConfigurationError, match="row 1: prompt: a message has a part of type image_url"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.jsonl", None, "cannot be read: No such file"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "{", "neither Parquet nor JSON"),
        ("a.parquet", "x", "is no Parquet file"),
        ("a.jsonl", '{"x": "?", "chosen": "4", "rejected": "5"}\n{"x": "?"}', "row 1: no chosen"),
    ],
)
def test_a_broken_file_is_named_with_the_row(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path / name)
    assert sentence in str(refused.value) and name in str(refused.value)
