"""A rule of the API, stated twice in one place: as CEL for the API server and as Python for everybody else.

`ApiModel` is the base of every type of the API: camelCase on the wire, unknown fields refused, frozen. A subclass lists
its cross-field rules in `rules`; the CRD generator writes their CEL, and pydantic runs their Python side after the
fields themselves have been checked. A `Transition` rule looks at the object before and after an update.

Null means absent, as in the API server, which prunes a null before it looks at anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Rule:
    """One cross-field rule.

    `cel` is true for a valid object (`self` is the object the rule is attached to). `message` is a CEL string
    expression that names the field, what was found and what to write. `found_wrong` is the same rule in Python: the
    sentence for an invalid object, `None` for a valid one.
    """

    cel: str
    message: str
    found_wrong: Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Transition:
    """One rule about a change: `oldSelf` and `self` in `cel`, the old and the new object in `found_wrong`."""

    cel: str
    message: str
    found_wrong: Callable[[Any, Any], str | None]


AnyRule = Rule | Transition


NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
_NAME_SENTENCE: Final = " must be DNS-1035 (a-z, 0-9, -), at most 40 characters"


def _bad_name(resource: Any) -> str | None:
    name = str(resource.metadata.get("name", ""))
    return None if re.fullmatch(NAME_PATTERN, name) else f"metadata.name: {name}{_NAME_SENTENCE}"


NAME_RULE: Final = Rule(
    cel=f"self.metadata.name.matches('{NAME_PATTERN}')",
    message=f"'metadata.name: ' + self.metadata.name + '{_NAME_SENTENCE}'",
    found_wrong=_bad_name,
)
"""Of a resource: its Services have its name, and longer ones."""


def quoted(text: str) -> str:
    """`text` as a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


RESERVED: Final = (
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
    "namespace", "null", "package", "return", "true", "var", "void", "while",
)  # fmt: skip
"""Words that CEL keeps for itself."""


def in_cel(name: str) -> str:
    """A field's name as CEL says it: reserved words are written as `__word__`.

    See "Escaping" in the Kubernetes documentation of validation rules.
    """
    return f"__{name}__" if name in RESERVED else name


def with_found(sentence: str, cel: str) -> str:
    """A CEL expression for `sentence` with its `%d` replaced by what `cel` is, a number or a text.

    By replacing, and once only, because the API server does not know how long the text of a number is, or of what a
    filter has found: it takes `'a' + string(b)` for endless, and refuses the CRD for what that might cost.
    """
    return f"{quoted(sentence)}.replace('%d', string({cel}))"


def rule(cel: str, sentence: str, broken: Callable[[Any], bool]) -> Rule:
    """A rule whose sentence is the same for every object that breaks it."""
    return Rule(cel, quoted(sentence), lambda found: sentence if broken(found) else None)


class ApiModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    rules: ClassVar[tuple[AnyRule, ...]] = ()

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Read a manifest. Names of Python attributes are no names of fields here, other than in a constructor."""
        return super().model_validate(obj, **{"by_alias": True, "by_name": False} | options)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {field.alias for field in cls.model_fields.values()}  # under another name even a null is refused
        return {k: v for k, v in data.items() if v is not None or k not in known}

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        rules = (rule for rule in type(self).rules if isinstance(rule, Rule))
        wrong = [sentence for rule in rules if (sentence := rule.found_wrong(self)) is not None]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def refused_change(self, old: Self) -> str | None:
        """What forbids to replace `old` by this object, in sentences; `None` if nothing does."""
        rules = (rule for rule in type(self).rules if isinstance(rule, Transition))
        wrong = [sentence for rule in rules if (sentence := rule.found_wrong(old, self)) is not None]
        return "; ".join(wrong) or None
