"""Arithmetic that a user wrote, over the numbers of terms; nothing else can be said in it.

The text is parsed by Python's own parser and checked node by node against a short list before it is ever evaluated:
numbers, names of terms, + - * / **, comparisons, and/or/not, `a if b else c`, and a few functions. There are no
strings, attributes, subscripts, loops or definitions, so there is nothing to reach beyond the numbers. Text and tree
are bounded, and every step computes with floats: a power cannot grow into a number of a million digits.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from genrm_api.terms import FUNCTIONS

from genrm_scoring.errors import ConfigurationError, MixFailed

LONGEST: Final = 512
"""Characters."""
MOST_NODES: Final = 256
FIELD: Final = "spec.expression"

_BINARY: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: Final[Mapping[type[ast.unaryop], Callable[[float], float]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: lambda x: float(not x),
}
_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[float, float], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


_CALLS: Final[Mapping[str, tuple[Callable[..., float], int, int]]] = {
    "abs": (abs, 1, 1),
    "clip": (_clip, 3, 3),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 1),
    "max": (max, 2, 16),
    "min": (min, 2, 16),
    "sqrt": (math.sqrt, 1, 1),
}
"""Function, and least and most arguments."""
assert tuple(sorted(_CALLS)) == FUNCTIONS


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression; `names` are the terms that it stands on."""

    text: str
    names: frozenset[str]
    _root: ast.expr

    def value(self, numbers: Mapping[str, float]) -> float:
        """What the expression is for these numbers, one for each of `names`.

        Raises:
            MixFailed: it is no number there: a division by zero, a logarithm of what is not positive, an overflow.
        """
        try:
            found = _value(self._root, numbers)
        except (ArithmeticError, ValueError) as e:
            raise MixFailed(f"{self.text!r}: {e}") from e
        if not math.isfinite(found):
            raise MixFailed(f"{self.text!r} is {found}")
        return found


def parsed(text: str, terms: frozenset[str]) -> Expression:
    """Read an expression over the names in `terms`.

    Raises:
        ConfigurationError: it is no arithmetic, or names what is no term.
    """
    if len(text) > LONGEST:
        raise ConfigurationError(FIELD, f"{len(text)} characters; write at most {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of, 1if x, nobody means
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, SyntaxWarning, DeprecationWarning) as e:
        raise ConfigurationError(FIELD, f"{text!r} is no arithmetic: {e}") from e
    nodes = list(ast.walk(tree.body))
    if len(nodes) > MOST_NODES:
        raise ConfigurationError(FIELD, f"{text!r} has {len(nodes)} parts; write it with at most {MOST_NODES}")
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    names = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}
    for node in nodes:
        _refuse(node, text, terms, is_function=id(node) in called)
    return Expression(text, frozenset(names), tree.body)


def _refuse(node: ast.AST, text: str, terms: frozenset[str], *, is_function: bool) -> None:
    def refuse(what: str) -> None:
        raise ConfigurationError(FIELD, f"{what} in {text!r}; write arithmetic over {', '.join(sorted(terms))}")

    match node:
        case ast.Constant(value=found):
            if isinstance(found, bool) or not isinstance(found, int | float):
                refuse(f"{found!r}")
            elif abs(found) > 1e300:
                refuse(f"a number of {len(repr(found))} characters")
        case ast.Name(id=name):
            if not is_function and name not in terms:
                refuse(f"{name}, which is no term,")
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if not isinstance(function, ast.Name) or function.id not in _CALLS:
                refuse(f"a call of {ast.unparse(function)}")
            elif keywords or any(isinstance(argument, ast.Starred) for argument in arguments):
                refuse(f"{ast.unparse(node)}")
            elif not _CALLS[function.id][1] <= len(arguments) <= _CALLS[function.id][2]:
                refuse(f"{function.id} of {len(arguments)} numbers")
        case ast.BinOp(op=op) if type(op) in _BINARY:
            pass
        case ast.UnaryOp(op=op) if type(op) in _UNARY:
            pass
        case ast.Compare(ops=ops) if all(type(op) in _COMPARISONS for op in ops):
            pass
        case ast.IfExp() | ast.BoolOp() | ast.operator() | ast.unaryop() | ast.cmpop() | ast.boolop() | ast.Load():
            pass
        case _:
            refuse(type(node).__name__)


def _value(node: ast.expr, numbers: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=found):
            return float(found)  # type: ignore[arg-type]  # checked when it was read
        case ast.Name(id=name):
            return numbers[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, numbers), _value(right, numbers))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, numbers))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _CALLS[name][0](*(_value(argument, numbers) for argument in arguments))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, numbers) else orelse, numbers)
        case ast.BoolOp(op=op, values=values):
            truths = (bool(_value(value, numbers)) for value in values)
            return float(all(truths) if isinstance(op, ast.And) else any(truths))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            held = [_value(side, numbers) for side in (left, *comparators)]
            return float(all(_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, held, held[1:], strict=False)))
    raise AssertionError(f"{type(node).__name__} passed the check")
