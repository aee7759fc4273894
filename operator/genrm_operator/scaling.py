"""How many engine pods a sleeping model has: no fewer than before it was told to have fewer.

Whoever scales by load sees none while a model sleeps, and would throw its warm pods away. So a decrease of
`spec.replicas` counts from the next wake; 0, which no scaler by load means as anything else, counts at once. What was
asked for last is written on the Deployment (or LeaderWorkerSet), where it outlives the operator. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from genrm_api.names import GROUP
from genrm_api.rewardmodel import RewardModel

from genrm_operator.demand import Desired

ANNOTATION_REPLICAS: Final = f"{GROUP}/replicas"
"""On what makes a model's engine pods: how many the operator asked it for."""


def asked(obj: Mapping[str, Any]) -> int | None:
    """What stands on a Deployment or LeaderWorkerSet; `None` where it is no number of ours: anybody may write there."""
    word = (obj["metadata"].get("annotations") or {}).get(ANNOTATION_REPLICAS, "")
    return int(word) if re.fullmatch("[0-9]{1,9}", word) else None


def as_it_counts(rm: RewardModel, before: Mapping[str, int], desired: Desired) -> RewardModel:
    """The RewardModel with the replicas that count now; `before` is what was asked for last, by name of the object."""
    most = max(before.values(), default=0)
    slots = rm.spec.gpu is not None and rm.spec.gpu.slots  # each is a replica by name
    if desired is not Desired.ASLEEP or slots or not 0 < rm.spec.replicas < most:
        return rm
    return rm.model_copy(update={"spec": rm.spec.model_copy(update={"replicas": most})})
