"""Does a reply help a courier who cannot reach the customer? Three times yes or no, in one JSON object.

After the example of VeRL-with-RMs: the last JSON object after the thinking, repaired where it is nearly one, and the
mean of its 0/1 dimensions. There an object that could not be read was worth -1, less than the worst reply; here it is
no verdict, nor is one in which a dimension is missing or is neither 0 nor 1.
"""

from __future__ import annotations

import math
from typing import Final

from genrm_scoring.judges.judge import Messages, an_object
from genrm_scoring.judges.templated import asked
from genrm_scoring.parsers import Worth, last_object, spoken
from genrm_scoring.templates import ONE, Template, built_in
from genrm_scoring.types import Answer, Question, Verdict

DIMENSIONS: Final = ("understanding", "rules", "action")
_YES_OR_NO: Final = Worth({"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0})
_TEMPLATE: Final = Template(built_in("rider-json"), ONE)


class RiderJson:
    reads_logprobs = False
    schema = an_object({name: {"enum": [0, 1]} for name in DIMENSIONS})

    def messages(self, question: Question) -> Messages:
        return asked(_TEMPLATE, question)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        found = last_object(spoken(answer.text))
        given = {name: _YES_OR_NO.of(found.label((name,))).value for name in DIMENSIONS}
        value = math.fsum(given.values()) / len(given)
        return Verdict(" ".join(f"{name}={said:g}" for name, said in given.items()), value, given)
