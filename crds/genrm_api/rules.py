"""A rule of the API, stated twice in one place: as CEL for the API server and as Python for everybody else.

`ApiModel` is the base of every type of the API: camelCase on the wire, unknown fields refused, frozen. A subclass lists
its cross-field rules in `rules`; the CRD generator writes their CEL, and pydantic runs their Python side after the
fields themselves have been checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

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


class ApiModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        wrong = [sentence for rule in type(self).rules if (sentence := rule.found_wrong(self)) is not None]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self
