"""Which of two answers is better? The judge ends with `<result>A</result>`, or B, or tie.

After the pairwise judge of RM-Gallery. The verdict is the preference for A, the response that is shown first: 1, 0, or
0.5 for a tie. There whatever cannot be read is a tie; here only a tie is one.

RM-Gallery lets a run bring its own prompt, `custom_alignment_prompt(user_query, response_a, response_b, reference,
**kwargs)`: such a function is named by `spec.scoring.preprocess` (see `around`).
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.judges.templated import pairwise
from genrm_scoring.parsers import TextReader, Worth, tagged
from genrm_scoring.templates import built_in

READER: Final = TextReader(
    lambda text: tagged(text, "result"),
    Worth({"A": 1.0, "B": 0.0, "tie": 0.5, "a": 1.0, "b": 0.0, "Tie": 0.5, "TIE": 0.5}),
)
PAIRWISE_ABTIE: Final = pairwise(built_in("pairwise-abtie"), READER)
