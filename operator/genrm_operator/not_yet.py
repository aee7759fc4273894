"""What the API can say and this version of the operator cannot carry out: refused, never silently left out.

A field is in the schema from the day its meaning is fixed, so that manifests need not change when its code comes.
Until then a RewardModel that asks for it is `Degraded` with the reason NotSupportedYet, its children stay as they are,
and the reference page lists it. What an engine lacks its adapter says; this is what the operator lacks with any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from genrm_api.lifecycle import SleepMode
from genrm_api.rewardmodel import EngineName, RewardModel, RewardModelSpec
from genrm_api.status import Reason

from genrm_operator.errors import Impossible


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that is missing. `asked_for` tells what the spec says of it, `None` if nothing."""

    field: str
    what: str
    instead: str
    asked_for: Callable[[RewardModelSpec], object | None]


def _uri(spec: RewardModelSpec) -> str | None:
    return spec.weights.uri if spec.weights is not None and spec.weights.uri.startswith("oci://") else None


def _sleep_mode(spec: RewardModelSpec) -> str | None:
    mode = spec.lifecycle.sleep.mode
    return mode if mode is SleepMode.RESTART and spec.engine.name is EngineName.CUSTOM else None


def _slots(spec: RewardModelSpec) -> str | None:
    return "any" if spec.gpu is not None and spec.gpu.slots and spec.engine.name is EngineName.CUSTOM else None


def _idle(spec: RewardModelSpec) -> str | None:
    idle = spec.lifecycle.idle
    return (idle.sleep_after or idle.off_after) if spec.engine.name is EngineName.CUSTOM else None


def _pairs(spec: RewardModelSpec) -> str | None:
    unknown = spec.is_external or spec.engine.name is EngineName.CUSTOM
    return f"{len(spec.scoring.canary.pairs)} pairs" if spec.scoring.canary is not None and unknown else None


GAPS: Final[Sequence[Gap]] = (
    Gap("spec.model.uri", "oci://", "write hf:// or pvc://", _uri),
    Gap(
        "spec.lifecycle.sleep.mode",
        "Restart with engine.name custom, which has no start gate",
        "write ScaleToZero or None",
        _sleep_mode,
    ),
    Gap("spec.gpu.slots", "any with engine.name custom, which has no start gate", "write sharing: Exclusive", _slots),
    Gap("spec.lifecycle.idle", "any time with engine.name custom, whose requests nobody counts", "remove it", _idle),
    Gap(
        "spec.scoring.canary",
        "pairs where no door is asked through: type External, engine.name custom",
        "remove it",
        _pairs,
    ),
)


def refuse_gaps(rm: RewardModel) -> None:
    """
    Raises:
        Impossible: the spec asks for something that is not there yet.
    """
    for gap in GAPS:
        if (asked := gap.asked_for(rm.spec)) is not None:
            raise Impossible(
                Reason.NOT_SUPPORTED_YET,
                f"{gap.field}: {asked} is not carried out by this version of the operator; {gap.instead}",
            )
