"""A verdict read from probabilities: the judge's distribution over its labels, at the place where it gives one.

An answer that says B tells nothing of how near it was to A; the probabilities of the tokens in its place do (Liu et
al., "G-Eval", 2023). Of the tokens an engine reports there, those that spell a label, with or without white space
around, add up to the label's mass. The masses are renormalised, and the verdict is their expected worth. What went to
other tokens, or to those that the engine did not report, is the *missing mass*: it is told beside the verdict, and too
much of it is no verdict, because what is left was not asked.

The place is the first token with something in it after the thinking. It has to be a label itself, and no sentence that
begins with one: what the model said instead of a verdict is not searched for something like it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genrm_scoring.errors import ConfigurationError, ParseFailed
from genrm_scoring.parsers.excerpt import head, tail
from genrm_scoring.parsers.thinking import spoken, spoken_span
from genrm_scoring.parsers.worth import Worth
from genrm_scoring.types import Answer, Verdict

TOP: Final = 20
"""Tokens to ask the engine for in each place: the most that OpenAI's format and vLLM's default allow."""
MOST_MISSING: Final = 0.2
"""Probability that may go to something else than a label."""
_MARKS: Final = " \t\r\n▁Ġ"
"""White space, and what two tokenizers write for it where an engine does not."""

_AFTER: Final = ("", "\n", ".", ",", ":", ";", "!", ")")
"""What may follow the label. In "A closer look ..." A is no verdict."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """`masses` by label add up to 1, `missing` is what was left out before, and `said` is the label of the answer."""

    said: str
    masses: Mapping[str, float]
    missing: float

    def expected(self, values: Mapping[str, float]) -> float:
        return math.fsum(mass * values[label] for label, mass in self.masses.items())


@dataclass(frozen=True, slots=True)
class LogprobReader:
    """`values` says what each label is worth, `worth` within which bounds."""

    values: Mapping[str, float]
    worth: Worth = Worth()  # noqa: RUF009  (frozen)
    strip_thinking: bool = True

    def __post_init__(self) -> None:
        for label in self.values:
            longer = next((other for other in self.values if other != label and other.startswith(label)), None)
            if not label or label != label.strip() or longer is not None:
                raise ConfigurationError(
                    "scoring.parse.values",
                    f"{label!r} cannot be told by its first token"
                    + (f" from {longer!r}" if longer else "")
                    + "; write labels of one token each, like A and B, none of them the beginning of another",
                )

    def __call__(self, answer: Answer) -> Verdict:
        """
        Raises:
            ParseFailed: the answer is no label, or too much of the probability went elsewhere.
        """
        if answer.logprobs is None:
            raise ParseFailed("the engine sent no logprobs")
        found = distribution(answer.logprobs, answer.text, self.values, strip_thinking=self.strip_thinking)
        facts = {f"p({label})": mass for label, mass in found.masses.items()} | {"missing": found.missing}
        return Verdict(found.said, self.worth.within(found.expected(self.values)), facts)


def distribution(
    logprobs: Sequence[Any],
    text: str,
    labels: Mapping[str, float],
    *,
    strip_thinking: bool = True,
    most_missing: float = MOST_MISSING,
) -> Distribution:
    """How an answer's probability is spread over `labels`, in the place of its verdict.

    `logprobs` is `choices[0].logprobs.content` of OpenAI's format: tokens with their natural log-probability and those
    of the likeliest tokens in their place (`top_logprobs`). `text` is the answer itself: the tokens may be more than
    it, as vLLM counts the end of the turn among them, and thoughts that a reasoning parser has taken out.

    Raises:
        ParseFailed: see the module; or what the engine sent is of another form.
    """
    try:
        place = _place(logprobs, strip_thinking=strip_thinking)
        label, candidates = str(place["token"]).strip(_MARKS), _candidates(place)
    except (KeyError, TypeError, ValueError) as e:
        raise ParseFailed(f"the engine sent logprobs of another form: {type(e).__name__} {e}") from None
    said = spoken(text, strip_thinking=strip_thinking).lstrip()
    if label not in labels or not said.startswith(label) or said[len(label) :].lstrip(" ")[:1] not in _AFTER:
        raise ParseFailed(
            f"the answer is {head(said)}, which is none of {', '.join(labels)}{_cut(label, said, labels)}"
        )
    masses = dict.fromkeys(labels, 0.0)
    for token, logprob in candidates:
        if (name := token.strip(_MARKS)) in masses and not math.isnan(logprob):
            masses[name] += math.exp(min(logprob, 0.0))
    total = math.fsum(masses.values())
    missing = max(0.0, 1.0 - total)
    if not total > 0 or missing > most_missing:
        raise ParseFailed(f"{missing:.3f} of the probability went to something else than {', '.join(labels)}")
    return Distribution(label, {name: mass / total for name, mass in masses.items()}, missing)


def _cut(token: str, said: str, labels: Collection[str]) -> str:
    """What is to be said of an answer that is a label, and begins with a token that is only a part of it."""
    meant = next((label for label in labels if label.startswith(token) and said.startswith(label)), None)
    return "" if meant is None else f"; {meant!r} is more than one token to this model: write labels that are one"


def _place(logprobs: Sequence[Any], *, strip_thinking: bool) -> Mapping[str, Any]:
    """The first token with something in it, after the thoughts."""
    tokens: list[str] = [token["token"] for token in logprobs]
    text = "".join(tokens)
    start, end = spoken_span(text) if strip_thinking else (0, len(text))
    begin = 0
    for at, token in enumerate(tokens):
        if start <= begin < end and token.strip(_MARKS):
            found: Mapping[str, Any] = logprobs[at]
            return found
        begin += len(token)
    raise ParseFailed(f"nothing was said after the thinking, which ends with {tail(text)}")


def _candidates(place: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The tokens that might have been, and the one that was, where an engine does not count it among them."""
    said, its = str(place["token"]), float(place["logprob"])
    found = [(str(top["token"]), float(top["logprob"])) for top in place.get("top_logprobs") or ()]
    if not any(token == said and abs(logprob - its) < 1e-3 for token, logprob in found):
        found.append((said, its))
    return found
