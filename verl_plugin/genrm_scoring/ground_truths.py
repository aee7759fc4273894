"""What a data set says is right about a prompt: a text, a number, several of them, or an object of the user's own.

It travels as it is, as JSON holds it: a rule's function and a reward server get what the data set has. A judge is shown
a text, its `reference`: that of a text or a number. What else there is becomes no text by itself, since which part of
it a judge should see (`chosen`, or `rejected`?) nobody can know but who wrote the template.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any


def as_json(value: Any) -> Any:
    """Of numpy's, pyarrow's and Python's values, what JSON can hold; what it cannot is left out. A number that is none
    is how tables say "nothing"; an exact one (a fraction, a decimal) is a text, which keeps it exact."""
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if hasattr(value, "tolist"):  # an array, or one number of it
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, numbers.Number) else None


def text_of(truth: Any) -> str | None:
    """The text of a ground truth that is a text or a number."""
    if isinstance(truth, str):
        return truth
    return None if isinstance(truth, bool) or not isinstance(truth, int | float) else str(truth)


def in_words(truth: Any) -> str:
    """What kind of value it is, for a sentence about one that cannot be used."""
    match truth:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(truth).lower()}"
        case Mapping():
            return f"an object with {', '.join(map(str, truth)) or 'no keys'}"
        case list():
            return f"a list of {len(truth)}"
        case _:
            return f"{truth!r:.80}"
