"""Templates that lie in files of their own, beside who reads them: `templateFile` in the place of `template`.

Only what is read from files knows it: a file of resources, and `reward_model.scoring` of a run. A resource of the
cluster holds its template itself, because nobody there could open a path of the one who wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.templates.sandbox import LONGEST_TEMPLATE

KEY: Final = "templateFile"
_MOST_BYTES: Final = 4 * LONGEST_TEMPLATE
"""UTF-8 has at most four for a character."""


def with_template(scoring: Any, folder: Path, where: str) -> Any:
    """A `scoring` block, unread, with the text of its template in the place of the file's name.

    Args:
        folder: what the name is relative to.
        where: the block, for messages.

    Raises:
        ConfigurationError: there is no such file, it is none that could be a template, or there is a template beside.
    """
    if not isinstance(scoring, Mapping) or KEY not in scoring:
        return scoring
    others = {key: value for key, value in scoring.items() if key != KEY}
    if (name := scoring[KEY]) is None:  # absent, as in the API
        return others
    field = f"{where}.{KEY}"
    if not isinstance(name, str) or not name:
        raise ConfigurationError(field, f"found {name!r}; write the path of a file")
    if scoring.get("template") is not None:
        raise ConfigurationError(field, "found beside template; write one of them")
    return {**others, "template": _text(folder / name, field)}


def _text(path: Path, field: str) -> str:
    try:
        with path.open("rb") as file:
            read = file.read(_MOST_BYTES + 1)
        text = read.decode("utf-8") if len(read) <= _MOST_BYTES else None
    except OSError as e:
        raise ConfigurationError(field, f"{path} cannot be read: {e.strerror or e}") from None
    except UnicodeDecodeError as e:
        raise ConfigurationError(field, f"{path} is no text in UTF-8: {e}") from None
    if text is None or len(text) > LONGEST_TEMPLATE:
        raise ConfigurationError(field, f"{path} is too large; a template has at most {LONGEST_TEMPLATE} characters")
    if not text.strip():
        raise ConfigurationError(field, f"{path} is empty; write the question")
    return text
