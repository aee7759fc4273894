"""Python of users that may run in this process's children: the run's own files, and what it approved of ConfigMaps.

A resource names a function, and a ConfigMap where that is not the run's own. A run may bring several files, because the
files of other frameworks call their functions alike: then FILE.FUNCTION says which, as `module.function` does in
Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genrm_api.functions import FunctionSource

from genrm_scoring.cluster_code import Code, place
from genrm_scoring.errors import ConfigurationError

LONGEST: Final = 1 << 20
"""Bytes of a file."""


@dataclass(frozen=True, slots=True)
class Module:
    """The text of a Python module, and where it is from."""

    source: str
    filename: str


Modules = Mapping[str, Module]
"""By the names of their files, without suffix."""


@dataclass(frozen=True, slots=True)
class Found:
    """A function by its name in a module that has it."""

    module: Module
    function: str


def modules_in(paths: Iterable[Path], field: str) -> dict[str, Module]:
    """The files with a run's functions; `field` is what named them.

    Raises:
        ConfigurationError
    """
    found: dict[str, Module] = {}
    for path in paths:
        if path.stem in found:
            raise ConfigurationError(field, f"{path} and {found[path.stem].filename} have one name; rename one")
        try:
            if (size := path.stat().st_size) > LONGEST:
                raise ConfigurationError(field, f"{path} is a file of {size} bytes; write at most {LONGEST}")
            found[path.stem] = Module(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigurationError(field, f"{path} cannot be read: {e}") from e
    return found


def found_function(function: str, config_map: FunctionSource | None, modules: Modules, code: Code, where: str) -> Found:
    """The module that holds a function that a resource names. Nothing of it runs here.

    Args:
        code: what was approved of ConfigMaps.
        where: what names it, for messages.

    Raises:
        ConfigurationError: it is not there.
    """
    file, _, name = function.rpartition(".")
    if config_map is not None:
        if (text := code.get(place(config_map))) is None:
            raise ConfigurationError(
                f"{where}.configMap",
                f"{config_map.name}: its code was not approved here; remove it, and give your own file",
            )
        return _holding(name, Module(text, f"ConfigMap {place(config_map)}"), where)
    if not modules:
        raise ConfigurationError(f"{where}.function", f"{function} is wanted, and no Python file was given")
    if not file and len(modules) > 1:
        ways = ", ".join(f"{known}.{name}" for known in modules)
        raise ConfigurationError(f"{where}.function", f"{name} may be of several files; write one of {ways}")
    if file and file not in modules:
        raise ConfigurationError(f"{where}.function", f"{function}: no file {file}.py was given; there are "
                                 f"{', '.join(module.filename for module in modules.values())}")  # fmt: skip
    return _holding(name, modules[file] if file else next(iter(modules.values())), where)


def _holding(function: str, module: Module, where: str) -> Found:
    try:
        tree = ast.parse(module.source, module.filename)
    except (SyntaxError, ValueError, RecursionError) as e:
        raise ConfigurationError(f"{where}.function", f"{module.filename} is no Python: {e}") from None
    names = set(_names(tree))
    if function not in names and "*" not in names:
        raise ConfigurationError(f"{where}.function", f"{module.filename} has no function {function}")
    return Found(module, function)


def _names(tree: ast.AST) -> Iterator[str]:
    """What a module may define, wherever in it: what the process that runs it finds is the last word."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name
