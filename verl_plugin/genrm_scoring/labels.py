"""Labels that a model cannot say in one token: a judge that reads their probabilities is told so before it is asked.

Of a model in a cluster the operator knows, and its status says (`ScoringValid`). Of an endpoint elsewhere its own
`/tokenize` does, where it has one: vLLM and SGLang do, others are asked nothing more.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Sequence
from typing import Final

from genrm_api.labels import labels_in, labels_of, split_labels, why_split
from genrm_api.rewardmodel import RewardModel
from genrm_api.scoring import Scoring
from genrm_api.status import Reason

from genrm_scoring.endpoints import Endpoints
from genrm_scoring.errors import AttemptFailed, LabelsSplit
from genrm_scoring.replies import refusal
from genrm_scoring.transport import Transport

ASK_SECONDS: Final = 3.0
"""For all of them."""


def refuse_split_labels(rm: RewardModel) -> None:
    """
    Raises:
        LabelsSplit: the operator has found some, of the labels that the spec has now.
    """
    for condition in (rm.status.conditions if rm.status is not None else None) or ():
        now = condition.observed_generation == rm.metadata.get("generation")
        if condition.reason == Reason.LABEL_NOT_ONE_TOKEN and now and labels_of(rm):
            raise LabelsSplit(f"RewardModel {rm.name}", condition.message)


async def refuse_labels_that_it_splits(
    scoring: Scoring, model: str, endpoints: Endpoints, transport: Transport, field: str
) -> None:
    """Ask the first endpoint. One that does not tell is believed.

    Args:
        model: the name under which it is served.
        field: of the labels, for the error.

    Raises:
        LabelsSplit: some labels are several tokens there.
    """
    labels = labels_in(scoring)
    first = next(iter(endpoints.snapshot().endpoints), None)
    if not labels or first is None:
        return
    url = f"{first.url.removesuffix('/v1')}/tokenize"

    async def tokenize(text: str) -> Sequence[int]:
        asked = {"model": model, "prompt": text, "add_special_tokens": False}
        reply = await transport.post(url, json.dumps(asked).encode(), ASK_SECONDS)
        if reply.status != 200:
            raise refusal(reply)
        return [operator.index(token) for token in json.loads(reply.body)["tokens"]]

    try:
        async with asyncio.timeout(ASK_SECONDS):
            split = await split_labels(labels, tokenize)
    except (AttemptFailed, TimeoutError, ValueError, KeyError, TypeError, RecursionError):
        return
    if split:
        raise LabelsSplit(field, why_split(split))
