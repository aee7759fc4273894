"""Whether the labels that runs read from probabilities are tokens of the model that is to say them.

One engine of a model is asked, once for each boot of it and whenever the labels change: through its closed door as soon
as it has started, through its open one later. An engine whose model takes a label apart serves all the same, because
the label is not its fault, and not everybody who asks it reads labels: a run that is under way may have begun with
others. It is said as loudly as of a spec that cannot be carried out, and a run that would read such labels does not
begin (`genrm_scoring.targets`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from genrm_api.labels import labels_of, split_labels, why_split
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import ConditionStatus, Reason

from genrm_operator.calls import Answer
from genrm_operator.engines import Adapter
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import EngineError
from genrm_operator.observed import DoorState, Pod
from genrm_operator.trouble import Trouble

CONDITION: Final = "ScoringValid"
ASK_SECONDS: Final = 2.0
"""For all labels: a tokenizer takes milliseconds for each, and a look waits for it."""
RETRY_SECONDS: Final = 60.0

Ask = Callable[[Pod, Call], Awaitable[Answer]]
Standing = tuple[bool | None, str, str]
"""Of the condition: whether it is true, reason and message."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one engine, in one boot, said of some labels: `split` are those of several tokens; `None`: it did not say,
    and `why` not. It is asked again from `again_at` on (monotonic seconds)."""

    labels: tuple[str, ...]
    boot_id: str
    split: tuple[str, ...] | None
    why: str = ""
    again_at: float = math.inf


async def hear(
    rm: RewardModel, adapter: Adapter, heard: Heard | None, pods: Sequence[Pod], busy: Collection[str], ask: Ask
) -> Heard | None:
    """What is known of the labels of `rm`, after one of its engines was asked where that is due.

    Args:
        heard: what was known before.
        busy: uids of pods with whom something else is being done.
        ask: carries out a call to the engine of a pod.
    """
    labels, now = labels_of(rm), asyncio.get_running_loop().time()
    if not labels or adapter.tokenizing(rm, "") is None:
        return None
    boots = {pod.door.boot_id for pod in pods if pod.door is not None}
    if heard is not None and heard.labels == labels and heard.boot_id in boots and now < heard.again_at:
        return heard
    pod = next((pod for pod in pods if pod.uid not in busy and _answers(pod)), None)
    return heard if pod is None else await _asked(rm, adapter, labels, pod, ask, now)


def _answers(pod: Pod) -> bool:
    """Whether its door lets the operator in."""
    door = pod.door
    awake = door is not None and door.engine_asleep is False and not pod.deleting
    return door is not None and awake and door.state in (DoorState.CLOSED, DoorState.SERVING)


async def _asked(rm: RewardModel, adapter: Adapter, labels: tuple[str, ...], pod: Pod, ask: Ask, now: float) -> Heard:
    async def tokenize(text: str) -> tuple[int, ...]:
        call = adapter.tokenizing(rm, text)
        assert call is not None, "who asks has seen that there is one"
        return adapter.tokens((await ask(pod, call)).json())

    assert pod.door is not None, "only a pod whose door has answered is asked"
    boot_id = pod.door.boot_id
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return Heard(labels, boot_id, await split_labels(labels, tokenize))
    except EngineError as error:
        cannot = error.status is not None and 400 <= error.status < 500
        return Heard(labels, boot_id, None, str(error), math.inf if cannot else now + RETRY_SECONDS)
    except TimeoutError:
        why = f"{pod.name}: no answer within {ASK_SECONDS:g} s"
        return Heard(labels, boot_id, None, why, now + RETRY_SECONDS)
    except (ValueError, KeyError, TypeError) as error:
        return Heard(labels, boot_id, None, f"{pod.name}: answered in a form that cannot be read: {error!r}")


def standing(rm: RewardModel, heard: Heard | None) -> Standing | None:
    """What is to be said of the labels that `rm` has now; in a new operator process, or while all sleep, what its
    status says of the same spec. `None`: nothing."""
    labels = labels_of(rm)
    if not labels:
        return None
    if heard is None or heard.labels != labels:
        return _as_before(rm)
    if heard.split is None:
        return (
            None,
            Reason.LABELS_NOT_ASKED,
            f"the labels of spec.scoring.parse are not known to be tokens: {heard.why}",
        )
    if heard.split:
        return False, Reason.LABEL_NOT_ONE_TOKEN, f"spec.scoring.parse.values: {why_split(heard.split)}"
    return True, Reason.LABELS_ARE_TOKENS, f"each of {len(labels)} labels of spec.scoring.parse is one token"


def _as_before(rm: RewardModel) -> Standing | None:
    found = (rm.status.conditions if rm.status else None) or ()
    before = next((c for c in found if c.type == CONDITION), None)
    if before is None or before.observed_generation != rm.metadata.get("generation"):
        return None
    true = {ConditionStatus.TRUE: True, ConditionStatus.FALSE: False}.get(before.status)
    return true, before.reason, before.message


def trouble_of(rm: RewardModel, heard: Heard | None) -> Trouble | None:
    """What keeps runs from being scored by it."""
    found = standing(rm, heard)
    return None if found is None or found[0] is not False else Trouble(found[1], found[2])
