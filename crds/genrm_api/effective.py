"""The effective spec: what a RewardModel means once everything that it leaves out is filled in.

Defaults that no type of reward model forbids stand in the schema, and the API server writes them. All others stand
here, in one pure function that everybody who acts on a RewardModel or shows one shares. Durations are seconds here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from genrm_api import durations
from genrm_api.access import LabelSelector, Peer
from genrm_api.comparing import (
    DEFAULT_JUDGE,
    JUDGES,
    Normalise,
    Schedule,
    ScoringMode,
    Versus,
    default_aggregate,
    default_order,
)
from genrm_api.engine import Engine, EngineName
from genrm_api.gpu import Sharing, Slot
from genrm_api.judging import Votes
from genrm_api.labels import with_labels
from genrm_api.lifecycle import LifecycleState, OnDrainTimeout, RoutingMode, SleepMode
from genrm_api.rewardmodel import RewardModel, RewardModelSpec, RewardModelType
from genrm_api.scoring import Scoring

OWN_NAMESPACE = Peer(pod_selector=LabelSelector())
"""Every pod of the RewardModel's own namespace."""


@dataclass(frozen=True, slots=True)
class EffectiveLifecycle:
    state: LifecycleState
    sleep_mode: SleepMode
    sleep_level: int
    drain_timeout: float
    on_drain_timeout: OnDrainTimeout
    sleep_timeout: float
    wake_timeout: float
    verify_wake: bool
    most_failed_wakes: int
    """Of one pod, in a row."""
    sleep_after: float | None
    """`None`: as soon as no run asks for the model."""
    off_after: float | None
    """`None`: never."""


@dataclass(frozen=True, slots=True)
class EffectiveSpec:
    served_name: str
    has_pods: bool
    """False for an endpoint outside the cluster: whatever else this spec says of pods means nothing then."""
    engine: Engine
    startup_timeout: float
    revision: str | None
    """Of an hf:// model."""
    replicas: int
    """Pods that should exist: none while the state is Off."""
    gpus: int
    """Of each replica; 0 is CPU."""
    nodes: int
    """Over which the GPUs of each replica are spread, evenly."""
    gpu_resource: str | None
    """What a pod asks for; `None` on CPU, and where a slot gives the GPUs."""
    sharing: Sharing
    slots: tuple[Slot, ...]
    cache_claim: str | None
    """`None`: scratch space of the pod's own."""
    clients: tuple[Peer, ...]
    monitoring: tuple[Peer, ...]
    lifecycle: EffectiveLifecycle
    routing: RoutingMode
    pin_during_lease: bool
    surges: bool
    """A pod of a new revision may come before an old one goes."""
    scoring: Scoring


def effective_spec(rm: RewardModel) -> EffectiveSpec:
    """Fill in what `rm` leaves out."""
    spec, access, gpu, weights = rm.spec, rm.spec.access, rm.spec.gpu, rm.spec.weights
    clients = access.clients if access is not None else None
    monitoring = access.monitoring if access is not None else None
    has_pods = not spec.is_external
    exclusive = gpu is not None and gpu.sharing is Sharing.EXCLUSIVE
    from_hub = weights is not None and weights.uri.startswith("hf://")
    return EffectiveSpec(
        served_name=rm.served_name,
        has_pods=has_pods,
        engine=spec.engine,
        startup_timeout=_startup_timeout(spec, from_hub=from_hub),
        revision=None if weights is None else weights.effective_revision,
        replicas=spec.replicas if has_pods and spec.lifecycle.state is not LifecycleState.OFF else 0,
        gpus=0 if gpu is None else spec.engine.gpus,
        nodes=1 if gpu is None else gpu.nodes,
        gpu_resource=gpu.resource if gpu is not None and exclusive else None,
        sharing=Sharing.EXCLUSIVE if gpu is None else gpu.sharing,
        slots=tuple(gpu.slots or ()) if gpu is not None else (),
        cache_claim=None if weights is None or weights.cache is None else weights.cache.claim_name,
        clients=(OWN_NAMESPACE,) if clients is None else tuple(clients),
        monitoring=tuple(monitoring or ()),
        lifecycle=_lifecycle(spec),
        routing=spec.routing.mode,
        pin_during_lease=spec.rollout.pin_during_lease is not False,
        surges=spec.rollout.surge is not False and (gpu is None or (not gpu.slots and gpu.nodes == 1)),
        scoring=effective_scoring(spec.scoring, spec.type),
    )


def _lifecycle(spec: RewardModelSpec) -> EffectiveLifecycle:
    given, sleep, wake, idle = spec.lifecycle, spec.lifecycle.sleep, spec.lifecycle.wake, spec.lifecycle.idle
    return EffectiveLifecycle(
        state=given.state,
        sleep_mode=sleep.mode or _sleep_mode(spec),
        sleep_level=sleep.level,
        drain_timeout=durations.seconds(sleep.drain_timeout),
        on_drain_timeout=sleep.on_drain_timeout,
        sleep_timeout=durations.seconds(sleep.timeout),
        wake_timeout=durations.seconds(wake.timeout),
        verify_wake=_verifies(spec) if wake.verify is None else wake.verify,
        most_failed_wakes=wake.max_failures,
        sleep_after=None if idle.sleep_after is None else durations.seconds(idle.sleep_after),
        off_after=None if idle.off_after is None else durations.seconds(idle.off_after),
    )


LOAD_SECONDS: Final = 1800.0
"""For what every engine does: to load, to compile, to capture graphs."""
DOWNLOAD_SECONDS: Final = 1800.0
"""For the weights that one GPU holds, from a hub: 80 GB at 45 MB/s."""
READ_SECONDS: Final = 300.0
"""The same from a volume: at 270 MB/s."""


def _startup_timeout(spec: RewardModelSpec, *, from_hub: bool) -> float:
    """How large a model is nobody knows before its first pod; that it fits its GPUs is all that can be counted on."""
    if spec.engine.startup_timeout is not None:
        return durations.seconds(spec.engine.startup_timeout)
    gpus = 0 if spec.gpu is None else spec.engine.gpus
    fetch = DOWNLOAD_SECONDS * max(gpus, 1) if from_hub else READ_SECONDS * gpus
    return min(LOAD_SECONDS + fetch, durations.seconds(durations.LONGEST))


def _sleep_mode(spec: RewardModelSpec) -> SleepMode:
    """The device plugin leaves an exclusive GPU with its pod, asleep or not, so sleep there only costs wakes."""
    spans_nodes = spec.gpu is not None and spec.gpu.nodes > 1
    if spec.is_external or not spec.engine.can_sleep or spans_nodes:
        return SleepMode.NONE
    exclusive = spec.gpu is not None and spec.gpu.sharing is Sharing.EXCLUSIVE
    asked_for = spec.lifecycle.state is LifecycleState.ASLEEP
    return SleepMode.NONE if exclusive and not asked_for else SleepMode.ENGINE


def _verifies(spec: RewardModelSpec) -> bool:
    """A corrupt engine is found where asking is safe: a generative vLLM may die of it, a server of one's own has no
    door to be asked through."""
    if spec.is_external or spec.engine.name is EngineName.CUSTOM:
        return False
    return spec.type is RewardModelType.CLASSIFIER or spec.engine.name is EngineName.SGLANG


def scoring_digest(scoring: Scoring) -> str:
    """Names an effective scoring block, however its manifest spelled it."""
    said = scoring.model_dump(mode="json", by_alias=True, exclude_none=True)
    return f"sha256:{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}"


def effective_scoring(scoring: Scoring, type_: RewardModelType) -> Scoring:
    """Fill in what a `scoring` block leaves out, for a model of this type."""
    numbers = type_ is RewardModelType.CLASSIFIER
    mode = scoring.mode or (ScoringMode.CLASSIFY if numbers else ScoringMode.POINTWISE)
    filled: dict[str, object] = {"mode": mode, "normalise": scoring.normalise or Normalise.NONE}
    if mode is not ScoringMode.CLASSIFY:
        filled |= {
            "judge": scoring.judge or (None if scoring.asks_its_own else JUDGES[mode][0]),
            "parse": None if scoring.parse is None else with_labels(scoring.parse, mode),
            "votes": scoring.votes or Votes(count=1),
        }
    if mode in (ScoringMode.PAIRWISE, ScoringMode.LISTWISE):
        if scoring.alone is not None and scoring.alone.vs is Versus.POINTWISE:
            filled["alone"] = scoring.alone.model_copy(update={"judge": scoring.alone.judge or DEFAULT_JUDGE})
        filled["order"] = scoring.order or default_order(mode, scoring.compat)
    if mode is ScoringMode.PAIRWISE:
        filled |= {
            "aggregate": scoring.aggregate or default_aggregate(scoring.schedule),
            "schedule": scoring.schedule or Schedule(),
        }
    return scoring.model_copy(update=filled)
