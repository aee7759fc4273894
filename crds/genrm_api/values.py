"""Scalars as the API server reads them.

Pydantic's own conversions are friendlier than Kubernetes: `"2"`, `2.0` and `true` pass for an integer. These types say
yes exactly where a structural schema does, so that one manifest gets one verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

from genrm_api import durations


def _integer(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"found {value!r}; write a whole number, without a point")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {value!r}; write a number")
    return value


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(f"found {value!r}; write true or false")
    return value


Int = Annotated[int, BeforeValidator(_integer)]
Number = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]

Duration = Annotated[str, StringConstraints(pattern=durations.PATTERN, max_length=32)]

QUANTITY_PATTERN: Final = r"^([0-9]{1,15}m?|[0-9]{1,6}(\.[0-9]{1,6})?([kMGT]|[KMGT]i)?)$"
"""What fits every machine; larger or finer numbers are typing errors."""


_FACTORS: Final[Mapping[str, int]] = {
    **{unit: 1000**power for power, unit in enumerate(("", "k", "M", "G", "T"))},
    **{f"{unit}i": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), start=1)},
}


def amount(quantity: str) -> float:
    """The number that a quantity is: bytes or cores."""
    if quantity.endswith("m"):
        return int(quantity[:-1]) / 1000
    number = quantity.rstrip("kKMGTi")
    return float(number) * _FACTORS[quantity[len(number) :]]


def _quantity(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"found {value!r}; write an amount like 4, 500m or 16Gi")
    return str(int(value))


Quantity = Annotated[
    str,
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=32),
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
            "minimum": 0,
            "maximum": 999_999_999_999_999,
        }
    ),
]
"""An amount of CPU or bytes; a bare number is one too, as in a pod."""


def without_nulls(value: Any) -> Any:
    """A map as the API server stores it: an entry whose value is null is no entry."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
