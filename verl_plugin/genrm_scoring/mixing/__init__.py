"""Mixing: one score from several reward models, rules and reward APIs, as a RewardFleet says; pure.

mixture     what the fleet says: which terms to ask for, when
gate        whether a rule lets a term be asked
column      one term over a group: transforms, normalisation, the term's own failure policy
running     normalisation by all that a run has scored
combine     the numbers of one sample to one: add, mul, min, max, geomean, power; expression
mix         all of it over a group, with every term's number beside each score
"""

from genrm_scoring.mixing.expression import Expression, parsed
from genrm_scoring.mixing.mix import Mixed, mix
from genrm_scoring.mixing.mixture import Mixture
from genrm_scoring.mixing.running import Running

__all__ = ["Expression", "Mixed", "Mixture", "Running", "mix", "parsed"]
