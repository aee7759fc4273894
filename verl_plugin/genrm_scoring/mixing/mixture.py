"""What a RewardFleet says, ready to be carried out: which terms to ask for, and in what order.

mixture.open(known)              the terms of one sample whose numbers are to be fetched now
… known grows, until nothing is open …
mix(mixture, group, running)     the scores of a whole group
mixture.step_ended(running)      after the last group of a step
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genrm_api.rewardfleet import RewardFleetSpec
from genrm_api.terms import ElsePolicy, Gate, GateElse, Term, TermCombine

from genrm_scoring.mixing.expression import Expression, parsed
from genrm_scoring.mixing.gate import passes
from genrm_scoring.mixing.running import Running
from genrm_scoring.types import Score


@dataclass(frozen=True, slots=True)
class Mixture:
    """A fleet's terms with the gates of its `compat` written out, and its expression checked."""

    spec: RewardFleetSpec
    terms: tuple[Term, ...]
    expression: Expression | None

    @classmethod
    def of(cls, spec: RewardFleetSpec) -> Mixture:
        """
        Raises:
            ConfigurationError: the expression is no arithmetic over the fleet's terms.
        """
        names = frozenset(term.name for term in spec.terms)
        expression = None if spec.expression is None else parsed(spec.expression, names)
        return cls(spec, _with_compat(spec), expression)

    def open(self, known: Mapping[str, Score]) -> tuple[str, ...]:
        """Names of the terms to ask for now, given what is known of one sample."""
        return tuple(
            term.name
            for term in self.terms
            if term.name not in known and (term.gate is None or passes(term.gate, known.get(term.gate.term)))
        )

    def takes_part(self, term: Term) -> bool:
        """Whether the score is made of this term, too."""
        if self.expression is not None:
            return term.name in self.expression.names
        return term.combine is not TermCombine.NONE

    def matters(self, term: Term) -> bool:
        """Whether a score hangs on the term: as a part of it, or because a gate does."""
        return self.takes_part(term) or any(
            other.gate is not None and other.gate.term == term.name for other in self.terms
        )

    def join(self, term: Term) -> TermCombine:
        """How the term folds, where the fleet's combine does."""
        return term.combine or (TermCombine(self.spec.combine) if self.spec.combine.folds else TermCombine.ADD)

    def step_ended(self, running: Mapping[str, Running]) -> dict[str, Running]:
        """The states of running normalisation after the last group of a step."""
        half_lives = {term.name: term.normalise.half_life for term in self.terms if term.normalise is not None}
        return {name: state.step_ended(half_lives.get(name)) for name, state in running.items()}


def _with_compat(spec: RewardFleetSpec) -> tuple[Term, ...]:
    """VeRL-with-RMs counts a reward model only where the rule is exactly 1, and takes it for 0 elsewhere."""
    if spec.compat is None:
        return tuple(spec.terms)
    rule, *others = spec.terms
    gate = Gate(term=rule.name, equals=1, tolerance=0, else_=GateElse(policy=ElsePolicy.VALUE, value=0))
    return (rule, *(term.model_copy(update={"gate": gate}) for term in others))
