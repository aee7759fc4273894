"""Judges: how responses become a question, and an answer becomes a verdict.

A judge is pure text (see `judge`); it raises `ParseFailed` where the answer is not unmistakably a verdict, and never
guesses. One built-in a file, its template beside the others in `genrm_scoring.templates`. `POINTWISE`, `PAIRWISE` and
`LISTWISE` are the values of `spec.scoring.judge` in each mode; `judge_of` makes the one that a `scoring` block
describes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from genrm_api.comparing import JUDGES, ScoringMode
from genrm_api.functions import ONE_WAY, asks_and_reads
from genrm_api.judging import Parse, ParseKind
from genrm_api.scoring import Scoring

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.judges.boxed import BOXED_TRUE_FALSE
from genrm_scoring.judges.by_function import Written, read_by_function
from genrm_scoring.judges.critique import CritiqueThenScore
from genrm_scoring.judges.five_criteria import FiveCriteria
from genrm_scoring.judges.grade import POINTWISE_1_10
from genrm_scoring.judges.judge import Asks, Judge, Messages, RankingJudge, an_object
from genrm_scoring.judges.pair import PAIRWISE_ABTIE
from genrm_scoring.judges.ranking import LISTWISE_RANKING, Listwise, listwise
from genrm_scoring.judges.rider import RiderJson
from genrm_scoring.judges.templated import Templated, pairwise, pointwise
from genrm_scoring.parsers import reader_of

__all__ = [
    "LISTWISE",
    "PAIRWISE",
    "POINTWISE",
    "Asks",
    "CritiqueThenScore",
    "Judge",
    "Listwise",
    "Messages",
    "RankingJudge",
    "Templated",
    "Written",
    "judge_of",
    "pairwise",
    "pointwise",
    "pointwise_judge",
    "schema_of",
    "writes",
]

POINTWISE: Final[Mapping[str, Judge]] = {
    "boxed-true-false": BOXED_TRUE_FALSE,
    "pointwise-1-10": POINTWISE_1_10,
    "five-criteria": FiveCriteria(),
    "rider-json": RiderJson(),
}
PAIRWISE: Final[Mapping[str, Judge]] = {"pairwise-abtie": PAIRWISE_ABTIE}
LISTWISE: Final[Mapping[str, RankingJudge]] = {"listwise-ranking": LISTWISE_RANKING}


def pointwise_judge(scoring: Scoring) -> Judge:
    """The judge of one response that a `scoring` block describes.

    Raises:
        ConfigurationError: its template or its parser cannot work.
    """
    return _own(scoring, pointwise) or POINTWISE[scoring.judge or JUDGES[ScoringMode.POINTWISE][0]]


def judge_of(scoring: Scoring) -> Judge:
    """The judge of one response, of two in mode pairwise, or of several in mode listwise, that a `scoring` block
    describes. What its `preprocess` and `postprocess` do, `around` does.

    Raises:
        ConfigurationError: its template or its parser cannot work.
    """
    if scoring.mode is ScoringMode.LISTWISE:
        return _listwise_judge(scoring)
    if scoring.mode is not ScoringMode.PAIRWISE:
        return pointwise_judge(scoring)
    return _own(scoring, pairwise) or PAIRWISE[scoring.judge or JUDGES[ScoringMode.PAIRWISE][0]]


def writes(scoring: Scoring, variable: str) -> bool:
    """Whether the judge that a `scoring` block describes is told this variable of a sample; functions are told all.

    Raises:
        ConfigurationError: its template or its parser cannot work.
    """
    if scoring.preprocess is not None or scoring.postprocess is not None:
        return True
    judge = judge_of(scoring)
    template = judge.template if isinstance(judge, Templated | Listwise) else None
    return template is not None and variable in template.variables


def _own(scoring: Scoring, made: Callable[..., Judge]) -> Judge | None:
    """The judge that is none of the built-in ones; `made` makes it of a template.

    Raises:
        ConfigurationError
    """
    parse = scoring.parse
    if not scoring.asks_its_own and parse is None and scoring.postprocess is None:
        return None
    if not asks_and_reads(scoring):
        raise ConfigurationError("scoring.preprocess", ONE_WAY)
    reader = read_by_function if parse is None else reader_of(parse, scoring.mode)
    logprobs = parse is not None and parse.kind is ParseKind.LOGPROB
    schema = None if parse is None else schema_of(parse)
    if scoring.template is None:
        return Written(reader, logprobs, schema)
    return made(scoring.template, reader, reads_logprobs=logprobs, schema=schema)


def _listwise_judge(scoring: Scoring) -> RankingJudge:
    if not scoring.asks_its_own:
        return LISTWISE[scoring.judge or JUDGES[ScoringMode.LISTWISE][0]]
    strip_thinking = scoring.parse is None or scoring.parse.strip_thinking
    if scoring.template is None:
        return Listwise(None, strip_thinking)
    return listwise(scoring.template, strip_thinking=strip_thinking)


def schema_of(parse: Parse) -> Mapping[str, Any] | None:
    """The JSON Schema of an object with the field that `parse` reads, and nothing beside it."""
    if parse.kind is not ParseKind.JSON or parse.field is None:
        return None
    found: Mapping[str, Any] = {"type": "number"} if parse.values is None else {"enum": list(parse.values)}
    for key in reversed(parse.field.split(".")):
        found = an_object({key: found})
    return found
