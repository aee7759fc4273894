"""How good is the answer, from 1 to 10? The judge gives reasons and ends with `<score>7</score>`.

After the pointwise judge of RM-Gallery. There a grade outside is clamped, a missing one is 5, and the grades are
stretched inside each group, so that how good a group is gets lost. Here the grade is what the judge said or nothing,
and stretching is a choice (`normalise`).
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.judges.templated import pointwise
from genrm_scoring.parsers import TextReader, Worth, tagged
from genrm_scoring.templates import built_in

POINTWISE_1_10: Final = pointwise(
    built_in("pointwise-1-10"),
    TextReader(lambda text: tagged(text, "score"), Worth(minimum=1.0, maximum=10.0)),
)
