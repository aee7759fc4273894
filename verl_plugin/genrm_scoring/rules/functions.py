"""Rules that a user wrote in Python: which text may run, and how its function is called.

A module comes from a file of the run, or from a ConfigMap. Who may write ConfigMaps must not thereby run code in a
training job: a run approves the exact text by its SHA-256, and is told the hash when it has not.

The function is called by name with what it asks for of: `data_source`, `solution_str`, `ground_truth`, `extra_info`
(verl's compute_score), `prompt_str`, `response_str` (reward_api), `prompt`, `response`, `messages` (the prompt with its
roles), `query`. It returns a number, or a mapping with one under "score".

`solution_str` is the response alone, as verl's compute_score gets it; reward_api's function gets prompt and response
there, and calls the response `response_str`. `query` is both, as OpenRLHF calls it.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from genrm_scoring.conversations import Turn
from genrm_scoring.errors import ConfigurationError, RuleAnswered
from genrm_scoring.types import Verdict

Fields = Mapping[str, Any]
_KNOWN: Final = (
    "data_source", "solution_str", "ground_truth", "extra_info", "prompt_str", "response_str", "prompt", "response",
    "messages", "query",
)  # fmt: skip


def approve(where: str, source: str, allowed: str | None) -> None:
    """
    Args:
        where: what the text was read from, for the message.
        allowed: SHA-256 of the text that the run lets run, hex.

    Raises:
        ConfigurationError: it is another text, or the run lets none run.
    """
    found = hashlib.sha256(source.encode()).hexdigest()
    if allowed is None or allowed.lower() != found:
        named = "the run allows none" if allowed is None else f"the run allows {allowed[:64]}"
        raise ConfigurationError(
            "allow_cluster_code",
            f"{where} holds Python code with SHA-256 {found}, and {named}; read it, then write that",
        )


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function that is called with what it asks for by name; `names` are those that it asks for."""

    name: str
    names: Set[str]
    _call: Callable[..., Any]
    _given: tuple[str, ...]

    def __call__(self, fields: Fields) -> Any:
        return self._call(**{name: fields.get(name) for name in self._given})


def found_in(
    source: str, filename: str, function: str, known: Sequence[str], field: str, who: str = "a rule"
) -> UserFunction:
    """The function of a module's text, ready to be called with fields.

    Args:
        known: names of the fields that there are.
        field: what names the function, for messages; `who` is what the function is.

    Raises:
        ConfigurationError: the module does not run, has no such function, or the function asks for what there is not.
    """
    try:
        module = _module(source, filename)
    except Exception as e:
        raise ConfigurationError(field, f"{filename} does not run: {type(e).__name__}: {e}") from e
    found = module.get(function)
    if not callable(found):
        raise ConfigurationError(field, f"{filename} has no function {function}")
    wanted = inspect.signature(found).parameters.values()
    named = {p.name for p in wanted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    missing = [p.name for p in wanted if p.name in named and p.default is p.empty and p.name not in known]
    missing += [p.name for p in wanted if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if missing:
        raise ConfigurationError(
            field, f"{function} in {filename} asks for {', '.join(missing)}; {who} is given {', '.join(known)}"
        )
    takes_all = any(p.kind is p.VAR_KEYWORD for p in wanted)
    given = tuple(name for name in known if takes_all or name in named)
    return UserFunction(function, frozenset(named), found, given)


@lru_cache(maxsize=8)
def _module(source: str, filename: str) -> dict[str, Any]:
    """Run once, whatever number of its functions is called. A file finds what lies beside it, as a program does."""
    if (file := Path(filename)).is_file() and (folder := str(file.parent.absolute())) not in sys.path:
        sys.path.insert(0, folder)
    module: dict[str, Any] = {"__name__": "genrm_rules", "__file__": filename}
    exec(compile(source, filename, "exec"), module)  # noqa: S102  (the run approved it; this is a worker)
    return module


def loaded(source: str, filename: str, function: str) -> Callable[[Fields], Verdict]:
    """A rule of a module's text.

    Raises:
        ConfigurationError: see `found_in`.
    """
    rule = found_in(source, filename, function, _KNOWN, "spec.terms.rule.function")
    return lambda fields: verdict_of(rule(fields), function)


def verdict_of(answer: Any, function: str, who: str = "a rule") -> Verdict:
    """
    Raises:
        RuleAnswered: it is no number, or none under "score".
    """
    number = answer.get("score") if isinstance(answer, Mapping) else answer
    try:
        value = math.nan if number is None or isinstance(number, str) else float(number)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        steps = " (scores of single steps are out of scope)" if isinstance(number, list | tuple) else ""
        raise RuleAnswered(f"{function} returned {answer!r:.200}; {who} returns a number, or one under 'score'{steps}")
    return Verdict(function, value)


def fields_of(
    response: str, ground_truth: Any, prompt: str, data_source: str, extra: Fields, messages: Sequence[Turn] = ()
) -> Fields:
    """A sample by all names that functions call its parts."""
    return {
        "data_source": data_source,
        "solution_str": response,
        "response_str": response,
        "response": response,
        "ground_truth": ground_truth,
        "prompt_str": prompt,
        "prompt": prompt,
        "extra_info": dict(extra),
        "messages": [{"role": role, "content": text} for role, text in messages or (("user", prompt),)],
        "query": prompt + response,
    }
