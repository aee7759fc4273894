r"""Is the answer correct? The judge thinks aloud and ends with `\boxed{True}` or `\boxed{False}`.

After the generative reward model of verl's genrm_remote recipe: one user message, the last box counts, True is worth
1.0 and False 0.0. Unlike there, anything else is no verdict at all: a missing box, another word in it, a box that never
closes, or one that only occurs while the model was still thinking.
"""

from __future__ import annotations

from typing import Final

from genrm_scoring.judges.templated import pointwise
from genrm_scoring.parsers import TextReader, Worth, boxed
from genrm_scoring.templates import built_in

BOXED_TRUE_FALSE: Final = pointwise(built_in("boxed-true-false"), TextReader(boxed, Worth({"True": 1.0, "False": 0.0})))
