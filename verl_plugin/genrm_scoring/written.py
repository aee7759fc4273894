"""Values as JSON holds them, and back: `value.as_json()` and `Kind.from_json(document)`.

What a value says of its fields' types is the whole format: a dataclass is an object with a key for each field, a tuple
is a list, an enum is its value. Nothing is lost, `Kind.from_json(value.as_json()) == value`, and nothing else is read:
a constructor that refuses a value refuses it in a document too. Text that is no Unicode (a half of a surrogate pair, as
models write them) goes through, which pydantic's own JSON would not take.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, Self, Union, get_args, get_origin, get_type_hints


class Written:
    """A dataclass of such values."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        found = _plain(self)
        assert isinstance(found, dict)
        return found

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `json.loads` made of it.

        Raises:
            ValueError: it is none; the message begins with the place.
        """
        found = _read(cls, document, cls.__name__)
        assert isinstance(found, cls)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _read(kind: Any, found: Any, where: str) -> Any:
    """What a field of type `kind` holds."""
    outer, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return found
    if outer in (Union, types.UnionType):
        (one,) = (each for each in inner if each is not types.NoneType)
        return None if found is None else _read(one, found, where)
    if outer is tuple:
        _expect(found, list, "a list", where)
        kinds = inner[:1] * len(found) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(found):
            raise ValueError(f"{where}: found {len(found)} values; there are {len(kinds)}")
        return tuple(_read(one, each, f"{where}.{at}") for at, (one, each) in enumerate(zip(kinds, found, strict=True)))
    if outer is not None:
        _expect(found, dict, "an object", where)
        return {key: _read(inner[1], value, f"{where}.{key}") for key, value in found.items()}
    read: Callable[[Any, Any, str], Any] = _whole if dataclasses.is_dataclass(kind) else _scalar
    return read(kind, found, where)


def _whole(kind: Any, found: Any, where: str) -> Any:
    _expect(found, dict, "an object", where)
    fields = _fields(kind)
    if unknown := [key for key in found if key not in fields]:
        raise ValueError(f"{where}.{unknown[0]}: unknown; there are {', '.join(fields)}")
    needed = (f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING)
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{where}.{missing[0]}: missing")
    given = {key: _read(fields[key], value, f"{where}.{key}") for key, value in found.items()}
    try:
        return kind(**given)
    except ValueError as error:  # one contradicts another
        raise ValueError(f"{where}: {error}") from error


@functools.cache
def _fields(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _scalar(kind: type[Any], found: Any, where: str) -> Any:
    if issubclass(kind, enum.Enum):
        try:
            return kind(found)
        except ValueError:
            raise ValueError(f"{where}: found {found!r}; write {', '.join(str(one.value) for one in kind)}") from None
    if kind is float:
        _expect(found, (int, float), "a number", where)
        return float(found)
    _expect(found, kind, {str: "a text", int: "a whole number"}[kind], where)
    return found


def _expect(found: Any, kind: type[Any] | tuple[type[Any], ...], what: str, where: str) -> None:
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{where}: found {found!r:.80}; write {what}")
