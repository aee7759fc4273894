"""Manifests drawn from a CRD's own schema: valid, nearly valid, hostile.

The generator walks the schema, so a new field is tested from the day it is there. What a schema cannot say (which
strings a pattern likes, which values two rules quarrel about) a `Grammar` says, one for each resource. It rolls its own
dice, from a seed that hypothesis draws: a draw for each of a manifest's hundred choices would cost more than the API
server's answer. `smallest` does by hand what hypothesis then cannot, and shrinks what was found.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

Words = tuple[Sequence[Any], Sequence[Any]]
"""Good ones and bad ones."""
MAP_KEYS: Final = ["app", "team", "app.io/x", "genrm.dev/serving", "genrm.dev.x/y", "genrm.dev/"]
QUANTITIES: Final = (
    ["1", 8, "500m", "16Gi", "0.5", 0, "1.5Gi", 2.0],
    ["", "-1", "1.5m", "1gi", "1 Gi", -1, 0.5, "1E", 10**15, "1Gi\n", True, "9" * 16],
)
JUNK: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.0,
    1.5,
    1e30,
    2**63,
    "",
    "x",
    "1",
    [],
    {},
    [None],
    {"a": None},
    [[]],
    [{}],
]
RARE: Final = 24
"""One value in so many is bad, where a manifest is to be nearly valid."""


class Dice:
    """One manifest's luck. `wild`: one in how many values is bad; 0: none that the schema alone would refuse."""

    def __init__(self, luck: Random, wild: int, words: Mapping[str, Words]) -> None:
        self._luck, self._wild, self._words = luck, wild, words

    def one(self, choices: Sequence[Any]) -> Any:
        return self._luck.choice(choices)

    def below(self, n: int) -> int:
        return self._luck.randrange(n)

    def bad(self) -> bool:
        return self._wild > 0 and self.below(self._wild) == 0

    def mostly(self) -> bool:
        return self.below(8) > 0

    def word(self, words: Words) -> Any:
        return self.one(words[1] if self.bad() else words[0])

    def text(self, field: str) -> Any:
        return self.word(self._words.get(field) or (["x"], ["", "é" * 400]))


@dataclass(frozen=True)
class Grammar:
    """What the schema of a resource does not say."""

    schema: Mapping[str, Any]
    """Of its spec."""
    words: Mapping[str, Words]
    """Texts, by the name of their field."""
    mend: Callable[[Dice, dict[str, Any]], dict[str, Any]]
    """Put right, mostly, what rules between fields would refuse; one such quarrel hides all others."""
    cases: Sequence[dict[str, Any]]
    """Each is about one rule; laid over something else it makes that rule speak in other company."""


def part(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """The object in a field, or an empty one where there is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def drop(dice: Dice, holder: dict[str, Any], *names: str) -> None:
    for name in names:
        if dice.mostly():
            holder.pop(name, None)


def mended_function(dice: Dice, holder: dict[str, Any]) -> None:
    """What names a function: of a ConfigMap there is one file only."""
    if "." in str(holder.get("function")):
        drop(dice, holder, "configMap")


def _value(dice: Dice, schema: Mapping[str, Any], name: str) -> Any:
    if dice.bad() and dice.below(3) == 0:
        return dice.one(JUNK)
    if "enum" in schema:
        return dice.one([*schema["enum"], "Other"] if dice.bad() else schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return dice.word(QUANTITIES)
    match schema.get("type"):
        case "object":
            return _object(dice, schema, name)
        case "array":
            most = schema.get("maxItems", 3)
            size = most + 1 if dice.bad() and most <= 16 else schema.get("minItems", 0) + dice.below(3)
            return [_value(dice, schema["items"], name) for _ in range(size)]
        case "integer" | "number" as kind:
            return _number(dice, schema, kind)
        case "boolean":
            return dice.one([True, False])
        case _:
            return dice.text(name)


def _object(dice: Dice, schema: Mapping[str, Any], name: str) -> Any:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return dice.one([{}, {"nodeSelector": {"a": "b"}}, {"x": [None, {"y": None}], "z": None}])
    if (inner := schema.get("additionalProperties")) is not None:
        keys = MAP_KEYS[:3] if not dice.bad() else MAP_KEYS
        return {dice.one(keys): _value(dice, inner, name) for _ in range(dice.below(3))}
    out = {}
    properties = schema["properties"]
    there = dice.below(1 << len(properties))
    if dice.below(2):
        there &= dice.below(1 << len(properties))  # each with one chance in four
    for number, (key, prop) in enumerate(properties.items()):
        if not dice.bad() if key in schema.get("required", ()) else there >> number & 1:
            out[key] = _value(dice, prop, key)
    if dice.bad() and dice.below(3) == 0:
        out[dice.one(["unknown", "max_model_len", "served_name", ""])] = dice.one(JUNK)
    return out


def _number(dice: Dice, schema: Mapping[str, Any], kind: str) -> Any:
    low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
    good = [v for v in (low, high, (low + high) / 2, low + 1) if low <= v <= high]
    if schema.get("exclusiveMinimum"):
        good.remove(low)
    if kind == "integer":
        good = [int(v) for v in good]
    bad = [float(low), low - 1, high + 1, low, high, (low + high) / 2 + 0.25, str(low), 1e30, 2**70, -0.0]
    return dice.one(bad if dice.bad() else good)


def spec(luck: Random, grammar: Grammar) -> Any:
    """One spec: valid but for rules between fields, nearly so, hostile, or with one rule's case laid over it."""
    case = luck.choice(grammar.cases) if luck.randrange(3) == 0 else None
    dice = Dice(luck, 0 if case is not None else luck.choice([0, 0, RARE, RARE, 6]), grammar.words)
    found = _value(dice, grammar.schema, "spec")
    if not isinstance(found, dict):
        return found
    found = grammar.mend(dice, found)
    return found if case is None else _laid_over(found, case)


def _laid_over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return copy.deepcopy(above)
    merged = below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    return {key: value for key, value in merged.items() if value is not None or key not in above}


def text(luck: Random, grammar: Grammar) -> str:
    """The JSON of one `spec` member, now and then with a key written twice."""
    found = json.dumps(spec(luck, grammar), ensure_ascii=False)
    if found.startswith('{"') and luck.randrange(41) == 0:
        key = found[: found.index(":")]
        return f"{key}: null, {found[1:]}"
    return found


def smallest(found: str, differs: Callable[[str], bool]) -> str:
    """`found` without all that can be left out while it still makes the difference."""
    tree = json.loads(found)

    def parts(node: Any) -> Iterator[tuple[Any, Any]]:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            yield from parts(node[key])

    def without_one() -> bool:
        for holder, key in list(parts(tree)):
            gone = holder.pop(key)
            if differs(json.dumps(tree, ensure_ascii=False)):
                return True
            if isinstance(holder, list):
                holder.insert(key, gone)
            else:
                holder[key] = gone
        return False

    if not differs(json.dumps(tree, ensure_ascii=False)):
        return found  # it was about how it is written
    while without_one():
        pass
    return json.dumps(tree, ensure_ascii=False)
