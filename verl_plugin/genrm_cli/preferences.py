"""Pairs of which somebody said which response is better, from files.

Two layouts: columns `x` (or `prompt`, or `question`), `chosen`, `rejected`; and verl's, with `prompt` and
`reward_model.ground_truth` holding `chosen` and `rejected`. A prompt is a text or a chat; a response is a text or the
last message of a chat. Parquet, JSON lines or a JSON array.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genrm_scoring.conversations import Turn, as_text, text_in, turns_of
from genrm_scoring.errors import ConfigurationError

_PROMPTS: Final = ("x", "prompt", "question")


@dataclass(frozen=True, slots=True)
class Preference:
    prompt: str
    chosen: str
    rejected: str
    messages: tuple[Turn, ...] = ()
    """The prompt as a conversation, where it is one."""


def read(path: Path, limit: int | None = None) -> list[Preference]:
    """
    Raises:
        ConfigurationError: names the file, the row, and what is missing there.
    """
    found: list[Preference] = []
    for number, row in enumerate(_rows(path)):
        if limit is not None and number >= limit:
            break
        try:
            found.append(of_row(row))
        except (ValueError, ConfigurationError) as e:
            raise ConfigurationError("--data", f"{path}, row {number}: {e}") from None
    if not found:
        raise ConfigurationError("--data", f"{path} holds no rows")
    return found


def of_row(row: Mapping[str, Any]) -> Preference:
    """
    Raises:
        ValueError: it is of neither layout.
        ConfigurationError: it shows something else than text.
    """
    truth = (row.get("reward_model") or {}).get("ground_truth")
    pair = truth if isinstance(truth, Mapping) else row
    prompt = next((row[key] for key in _PROMPTS if row.get(key) is not None), None)
    if prompt is None:
        raise ValueError(f"no prompt; write one of the columns {', '.join(_PROMPTS)}")
    missing = [key for key in ("chosen", "rejected") if pair.get(key) is None]
    if missing:
        raise ValueError(f"no {missing[0]}; write it as a column, or into reward_model.ground_truth")
    chosen, rejected = (_response(pair[key]) for key in ("chosen", "rejected"))
    messages = () if isinstance(prompt, str) else turns_of(_chat(prompt), "prompt")
    return Preference(prompt if isinstance(prompt, str) else as_text(messages), chosen, rejected, messages)


def _response(value: Any) -> str:
    if isinstance(value, str):
        return value
    chat = _chat(value)
    return text_in(chat[-1].get("content"), "response")


def _chat(value: Any) -> Sequence[Mapping[str, Any]]:
    """
    Raises:
        ValueError
    """
    found = list(value) if isinstance(value, Sequence) or hasattr(value, "tolist") else []
    if not found or not all(isinstance(message, Mapping) for message in found):
        raise ValueError(f"found {value!r:.80}; write a text, or a chat of messages with role and content")
    return found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json":
            yield from json.loads(path.read_text())
        else:
            yield from (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    except OSError as e:
        raise ConfigurationError("--data", f"{path} cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise ConfigurationError("--data", f"{path} is neither Parquet nor JSON as its name says: {e}") from e


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as e:
        raise ConfigurationError("--data", "Parquet needs pyarrow: pip install 'genrm-operator[cli]'") from e
    try:
        for batch in parquet.ParquetFile(path).iter_batches(1024):
            yield from batch.to_pylist()
    except ArrowInvalid as e:
        raise ConfigurationError("--data", f"{path} is no Parquet file: {e}") from e
