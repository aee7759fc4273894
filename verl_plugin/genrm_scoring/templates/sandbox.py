"""The template language: a part of Jinja in which nothing can run for long, grow large, or reach out of its variables.

A template comes with a RewardModel, so who may write one need not be who trains. Jinja's own sandbox keeps it from
Python's insides, and says of itself that it is no bound on time or memory. So a template may only do what needs none:
write variables, choose (`if`), go through the responses (`for`, two deep), and a few filters. No calls, no arithmetic,
no assignments, no macros, no includes; `{{ 'x' * 10**9 }}` and a loop in a loop in a loop are refused when the template
is read, with the line. What it writes is bounded, and what it does in loops is so few things that each may look at a
whole response.

A variable that a question never has is refused when the template is read, by name. One that this sample lacks (it has
no reference, say) may be asked after (`{% if reference %}`), but not written: `Unaskable`. So it is with the keys of
what the data set says in its own words, `extra.KEY` and `ground_truth.KEY`, which only samples have. Of these texts and
numbers can be written, and what else there is as JSON.

Values are text (see `defused`): Jinja does not look into them for templates, nor a tokenizer for special tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from genrm_scoring.errors import ConfigurationError, PromptTooLong, Unaskable
from genrm_scoring.templates.defused import defused

FIELD: Final = "scoring.template"
LONGEST_TEMPLATE: Final = 32768
"""Characters, as in the API."""
LONGEST_QUESTION: Final = 8 << 20
"""Characters: more than fits into any context."""
LONGEST_LIST: Final = 32
DEEPEST: Final = 2
"""Loops in one another: the responses, and once more within."""

MOST_IN_LOOPS: Final[Mapping[int, int]] = {1: 256, 2: 16}
"""Filters, tests and comparisons, by how deep in loops they are: each is carried out for every response, or for every
pair of them, and takes time with its length."""

OBJECTS: Final = ("extra", "ground_truth")
"""Variables that are what the data set has, as JSON: their keys may be asked for."""
MOST_REPLACED: Final = 2
"""Of `replace` in one expression: each may make a text as long as a question."""

Value = Any
"""A text, some texts, or JSON."""


class _Missing(StrictUndefined):
    """What the sample lacks: false where it is asked after, an error where it is written."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class _Object(dict[str, Any]):
    """An object of the data set; knows where it is, for sentences."""

    __slots__ = ("path",)

    def __init__(self, items: Mapping[str, Any], path: str) -> None:
        super().__init__(items)
        self.path = path


_FILTERS: Final = (
    "d", "default", "first", "join", "json", "last", "length", "lower", "replace", "trim", "truncate", "upper"
)  # fmt: skip
_TESTS: Final = ("defined", "undefined", "none", "odd", "even", "eq", "equalto", "ne", "lt", "le", "gt", "ge", "in")
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.If, nodes.For, nodes.CondExpr,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter, nodes.Test, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Neg, nodes.Tuple, nodes.List,
)  # fmt: skip
_OF_JINJA: Final = ("self", "super", "caller", "varargs", "kwargs")
"""Names that Jinja fills in by itself."""
_WORK: Final = (nodes.Filter, nodes.Test, nodes.Compare)
_LOOP: Final = ("index", "index0", "first", "last", "length", "revindex", "revindex0")


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of loops what is theirs, of objects their keys, and of nothing else anything."""
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self._of(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str) or isinstance(obj, Undefined):
            return self._of(obj, argument)
        return super().getitem(obj, argument)

    def _of(self, obj: Any, key: str) -> Any:
        if isinstance(obj, Undefined):
            return obj
        if not isinstance(obj, _Object):
            return self.undefined(hint=f"no {key!r} in {_kind(obj)}")
        if obj.get(key) is None:
            there = ", ".join(sorted(name for name, value in obj.items() if value is not None))
            return self.undefined(hint=f"{obj.path}.{key}; {obj.path} has {there or 'nothing'}")
        return obj[key]


def _environment() -> _Environment:
    environment = _Environment(undefined=_Missing, trim_blocks=True, lstrip_blocks=True, finalize=_written)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS if name not in _OURS} | _OURS
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


def _written(value: Any) -> Any:
    """
    Raises:
        TypeError: Python's way to spell it is nothing for a judge.
    """
    if isinstance(value, str | int | float | Undefined):
        return value
    if isinstance(value, _Object):
        there = ", ".join(sorted(value)) or "nothing"
        raise TypeError(f"{value.path} is an object with {there}; write one of its keys, or {value.path} | json")
    raise TypeError(f"{_kind(value)} is no text; write one of its items, or all of it with | json")


def _as_json(value: Any) -> str:
    return defused(json.dumps(value, ensure_ascii=False))


def _replaced(text: Any, old: str, new: Any) -> Any:
    """Defused once more: what is put together may spell what the parts did not.

    Raises:
        PromptTooLong
    """
    if isinstance(text, Undefined):
        return text
    if not isinstance(text, str):
        raise TypeError(f"replace in {_kind(text)}; it takes a text")
    new = str(new)
    if len(text) + text.count(old) * len(new) > LONGEST_QUESTION:
        raise PromptTooLong(f"a question of more than {LONGEST_QUESTION} characters")
    return defused(text.replace(old, new))


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


_OURS: Final[dict[str, Any]] = {"json": _as_json, "replace": _replaced}
_ENVIRONMENT: Final = _environment()


class Template:
    """A question in the making. May be shared by threads."""

    def __init__(self, source: str, variables: Set[str]) -> None:
        """
        Raises:
            ConfigurationError: it is too long, no Jinja, or wants what no template may, or a variable that is none of
                `variables`.
        """
        if len(source) > LONGEST_TEMPLATE:
            raise ConfigurationError(FIELD, f"{len(source)} characters; write at most {LONGEST_TEMPLATE}")
        try:
            tree = _ENVIRONMENT.parse(source)
            _check(tree, variables)
            self.variables: Set[str] = meta.find_undeclared_variables(tree)
            """Those it uses."""
            self._compiled = _ENVIRONMENT.from_string(tree)
        except TemplateSyntaxError as e:
            raise ConfigurationError(FIELD, f"line {e.lineno}: {e.message}") from None
        except (TemplateError, RecursionError, SyntaxError) as e:
            raise ConfigurationError(FIELD, f"cannot be compiled: {e}") from None

    def render(self, values: Mapping[str, Value]) -> str:
        """The question. `None` is a value that the sample lacks; what the template has no use for is not looked at.

        Raises:
            Unaskable: the template writes a value that is lacking.
            PromptTooLong: the question would be longer than `LONGEST_QUESTION`.
        """
        pieces, length = [], 0
        try:
            known = {name: values.get(name) for name in self.variables}
            given = {name: _defused(value, name) for name, value in known.items() if value is not None}
            for piece in self._compiled.root_render_func(self._compiled.new_context(given)):
                pieces.append(piece)
                length += len(piece)
                if length > LONGEST_QUESTION:
                    raise PromptTooLong(f"a question of more than {LONGEST_QUESTION} characters")
        except UndefinedError as e:
            raise Unaskable(f"the template asks for what the sample lacks: {e.message}") from None
        except (TemplateError, TypeError, RecursionError) as e:
            raise Unaskable(f"the template cannot be written for this sample: {e}") from None
        return "".join(pieces)


def _defused(value: Value, path: str) -> Value:
    if isinstance(value, str):
        return defused(value)
    if isinstance(value, Mapping):
        return _Object({key: _defused(one, f"{path}.{key}") for key, one in value.items()}, path)
    return [_defused(one, path) for one in value] if isinstance(value, Sequence) else value


def _check(tree: nodes.Template, variables: Set[str]) -> None:
    """
    Raises:
        ConfigurationError: see `Template`.
    """
    _check_node(tree, loops=0)
    _check_work(tree, 0, Counter())
    unknown = sorted(meta.find_undeclared_variables(tree) - variables)
    if unknown:
        near = get_close_matches(unknown[0], variables, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(
            FIELD, f"{unknown[0]!r} is no variable; {meant}there are {', '.join(sorted(variables))}"
        )


def _check_node(node: nodes.Node, loops: int) -> None:
    if not isinstance(node, _ALLOWED):
        _refuse(node, f"{_spelled(node)} is not allowed; a template can write variables, choose (if) and go through "
                "the responses (for)")  # fmt: skip
    match node:
        case nodes.For():
            loops += 1
            if loops > DEEPEST:
                _refuse(node, f"loops more than {DEEPEST} deep; write fewer")
            if isinstance(node.iter, nodes.Tuple | nodes.List):
                if len(node.iter.items) > LONGEST_LIST:
                    _refuse(node, f"a loop over {len(node.iter.items)} constants; write at most {LONGEST_LIST}")
            elif not _is_name(node.iter, "responses"):
                _refuse(node, "a loop over something else than responses; write `for ... in responses`")
            if node.recursive:
                _refuse(node, "a recursive loop; write a plain one")
        case nodes.Name() if node.name in _OF_JINJA:
            _refuse(node, f"{node.name!r} is no variable")
        case nodes.Filter() if node.name not in _FILTERS:
            _refuse(node, f"no filter {node.name!r}; there are {', '.join(_FILTERS)}")
        case nodes.Filter(name="join") if not _is_name(node.node, "responses"):
            _refuse(node, "join of something else than responses; write `responses | join('...')`")
        case nodes.Filter(name="replace"):
            _check_replace(node)
        case nodes.Filter() if node.dyn_args or not all(isinstance(argument, nodes.Const) for argument in node.args):
            _refuse(node, f"filter {node.name!r} with a computed argument; write a constant")
        case nodes.Test() if node.name not in _TESTS:
            _refuse(node, f"no test {node.name!r}; there are {', '.join(_TESTS)}")
        case nodes.Getitem() if not _is_place(node.arg) and not (_is_key(node.arg) and _is_object(node.node)):
            _refuse(node, "an index that is computed; write a whole number or a slice")
        case nodes.Getattr() if not ((_is_name(node.node, "loop") and node.attr in _LOOP) or _is_object(node.node)):
            _refuse(node, f"attribute {node.attr!r}; values are text and have none (loop has {', '.join(_LOOP)}, and "
                    f"{' and '.join(OBJECTS)} have keys)")  # fmt: skip
    for child in node.iter_child_nodes():
        _check_node(child, loops)


def _check_work(node: nodes.Node, loops: int, found: Counter[int]) -> None:
    """`found`: what was met before, by how deep in loops it is."""
    loops += isinstance(node, nodes.For)
    if loops and isinstance(node, _WORK):
        found[loops] += 1
        if found[loops] > MOST_IN_LOOPS[loops]:
            where = "a loop" if loops == 1 else "a loop in a loop"
            _refuse(node, f"more than {MOST_IN_LOOPS[loops]} filters, tests and comparisons in {where}; write fewer")
    for child in node.iter_child_nodes():
        _check_work(child, loops, found)


def _check_replace(node: nodes.Filter) -> None:
    """What is replaced is a constant; what by, another, or a variable."""
    old, new = (*node.args, None, None)[:2]
    if len(node.args) != 2 or node.dyn_args or not _is_key(old) or not isinstance(new, nodes.Const | nodes.Name):
        _refuse(node, "replace takes a text and what to write for it; write `replace('{response}', response)`")
    if sum(inner.name == "replace" for inner in node.find_all(nodes.Filter)) >= MOST_REPLACED:
        _refuse(node, f"more than {MOST_REPLACED} replace in one expression; write fewer")


def _is_key(node: nodes.Node | None) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str) and bool(node.value)


def _is_object(node: nodes.Node) -> bool:
    """Whether it is one of `OBJECTS`, or somewhere in it."""
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return isinstance(node, nodes.Name) and node.name in OBJECTS


def _is_name(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _is_place(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Slice):
        return all(part is None or _is_place(part) for part in (node.start, node.stop, node.step))
    if isinstance(node, nodes.Neg):
        return _is_place(node.node)
    return isinstance(node, nodes.Const) and type(node.value) is int


def _refuse(node: nodes.Node, sentence: str) -> NoReturn:
    raise ConfigurationError(FIELD, f"line {node.lineno}: {sentence}")


def _spelled(node: nodes.Node) -> str:
    """What a person would call it."""
    names: Mapping[type[Any], str] = {
        nodes.Call: "a call", nodes.Assign: "{% set %}", nodes.AssignBlock: "{% set %}", nodes.Macro: "{% macro %}",
        nodes.Include: "{% include %}", nodes.Import: "{% import %}", nodes.FromImport: "{% from %}",
        nodes.Extends: "{% extends %}", nodes.Block: "{% block %}", nodes.CallBlock: "{% call %}",
        nodes.FilterBlock: "{% filter %}", nodes.With: "{% with %}", nodes.Concat: "~",
    }  # fmt: skip
    if isinstance(node, nodes.BinExpr):
        return f"arithmetic ({type(node).__name__.lower()})"
    return names.get(type(node), type(node).__name__.lower())
