"""Reward servers of other frameworks as endpoints: what each is sent for one sample, and where its score is. Pure.

    get-reward, get-reward2   reward_api: the decoded text in parts, an object with `score`
    openrlhf                  lists of one, `rewards`
    slime                     prompt, response and label; a bare number, or an object

Their frameworks take an answer without a number for a zero. Here it is a judgement that failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from genrm_api.external import WireFormat

from genrm_scoring.errors import ConfigurationError, ParseFailed
from genrm_scoring.types import Question


def request_of(wire_format: WireFormat, question: Question) -> dict[str, Any]:
    """What is sent about the one response of a question.

    Raises:
        ConfigurationError: the format is no reward server's.
    """
    (response,) = question.responses
    match wire_format:
        case WireFormat.GET_REWARD | WireFormat.GET_REWARD2:
            return {
                "data_source": question.data_source,
                "solution_str": question.prompt + response,
                "ground_truth": question.ground_truth,
                "extra_info": dict(question.extra),
                "prompt_str": question.prompt,
                "response_str": response,
            }
        case WireFormat.OPENRLHF:
            whole = question.prompt + response
            return {"query": [whole], "prompts": [question.prompt], "labels": [question.ground_truth]}
        case WireFormat.SLIME:
            return {"prompt": question.prompt, "response": response, "label": question.ground_truth}
        case _:
            raise ConfigurationError("format", f"{wire_format} is no reward server's; write get-reward2, for example")


def score_in(wire_format: WireFormat, body: bytes) -> float:
    """
    Raises:
        ParseFailed: the answer holds no number where the format has it.
    """
    try:
        found = json.loads(body)
        match wire_format:
            case WireFormat.OPENRLHF:
                (number,) = found["rewards"]
                if isinstance(number, list):
                    (number,) = number
            case WireFormat.SLIME if not isinstance(found, Mapping):
                number = found
            case WireFormat.SLIME:
                number = found["score"] if "score" in found else found["reward"]
            case _:
                number = found["score"]
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{number!r} is no score")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        why = f"{type(e).__name__}: {str(e)[:80]}"
        raise ParseFailed(f"no score in the format {wire_format} in {body[:200]!r} ({why})") from None
    return float(number)
