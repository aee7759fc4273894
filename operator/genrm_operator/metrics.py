"""What the operator counts and measures, and nothing else does: every metric is stated once, in `ALL`.

The page `docs/reference/metrics.md` is generated from this table, alerts and dashboards are tested against it, and
`Metrics` records into it. Two kinds of numbers: what *happened* (counters and histograms, labelled by things that are
few: an engine, a verb, a reason) and what *is* (gauges, also per RewardModel). The second kind is read when Prometheus
asks and forgotten with the model, so a deleted model leaves no series behind.
"""

from __future__ import annotations

import sys
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import prometheus_client as prometheus
from genrm_api.rewardmodel import EngineName, RewardModel
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from genrm_operator.errors import OperatorError
from genrm_operator.lifecycle import pod_state
from genrm_operator.observed import Transition
from genrm_operator.status import Seen

Key = tuple[str, str]
"""(namespace, name) of a RewardModel."""

_PER_MODEL: Final = ("namespace", "reward_model")
_LOOK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TRANSITION_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""From a tiny model on CPU to the weights of a large one."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`kind` is Prometheus' word. A histogram has `buckets`; what Prometheus calls `le` is not among `labels`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def series(self) -> tuple[str, ...]:
        """Names that a query may use."""
        return tuple(self.name + end for end in ("_bucket", "_count", "_sum")) if self.buckets else (self.name,)


RECONCILE_SECONDS: Final = Metric(
    "genrm_reconcile_seconds", "histogram", "Seconds of one look at a RewardModel.", (), _LOOK_BUCKETS
)
RECONCILE_ERRORS: Final = Metric(
    "genrm_reconcile_errors_total",
    "counter",
    "Looks that failed, by reason: an exception of the operator's errors.py, ApplyFailed for a child that the API "
    "server refused, Bug for what nobody expected.",
    ("reason",),
)
QUEUE_DEPTH: Final = Metric("genrm_queue_depth", "gauge", "RewardModels that wait for a look.")
QUEUE_WAIT_SECONDS: Final = Metric(
    "genrm_queue_wait_seconds", "histogram", "Seconds a RewardModel waited for its look.", (), _LOOK_BUCKETS
)
REWARD_MODELS: Final = Metric(
    "genrm_reward_models",
    "gauge",
    "1 for each RewardModel, in its phase: `sum by (phase)` counts them.",
    (*_PER_MODEL, "phase"),
)
REPLICAS: Final = Metric("genrm_reward_model_replicas", "gauge", "Pods that the spec asks for.", _PER_MODEL)
LAST_WAKE: Final = Metric(
    "genrm_reward_model_last_wake_seconds",
    "gauge",
    "Seconds of the last wake, from the decision to the last replica serving.",
    _PER_MODEL,
)
LAST_SLEEP: Final = Metric(
    "genrm_reward_model_last_sleep_seconds",
    "gauge",
    "Seconds of the last sleep, from the decision to the last replica asleep.",
    _PER_MODEL,
)
SCORES_VERIFIED: Final = Metric(
    "genrm_reward_model_scores_verified",
    "gauge",
    "0 if an engine computed something else than was recorded, or did not prefer the better response of a pair, when "
    "it was asked last, else 1. No series while this process has asked none.",
    _PER_MODEL,
)
SLEEP_EFFECTIVE: Final = Metric(
    "genrm_reward_model_sleep_effective",
    "gauge",
    "0 if a last sleep kept more than a fifth of the GPU memory in use, and 4 GiB, else 1. No series where that cannot "
    "be measured, or nobody slept yet.",
    _PER_MODEL,
)
ENGINE_PODS: Final = Metric(
    "genrm_engine_pods",
    "gauge",
    "Engine pods by what they do, as at the last look. A state without pods has no series.",
    (*_PER_MODEL, "state"),
)
FAILING_PODS: Final = Metric(
    "genrm_failing_pods",
    "gauge",
    "Pods whose last sleep or wake failed and was not made good since.",
    _PER_MODEL,
)
LEASES_HELD: Final = Metric(
    "genrm_leases_held",
    "gauge",
    "Unexpired Leases of runs, by what they ask for. A phase without Leases has no series.",
    (*_PER_MODEL, "phase"),
)
TRANSITION_SECONDS: Final = Metric(
    "genrm_transition_seconds",
    "histogram",
    "Seconds of one pod's wake or sleep. The result is done, failed, or given_up (wanted again while it drained).",
    ("transition", "engine", "result"),
    _TRANSITION_BUCKETS,
)
TRANSITION_FAILURES: Final = Metric(
    "genrm_transition_failures_total",
    "counter",
    "Wakes and sleeps that failed, by reason: an exception of the operator's errors.py, or Bug.",
    ("transition", "engine", "reason"),
)
ABORTED_REQUESTS: Final = Metric(
    "genrm_aborted_requests_total",
    "counter",
    "Requests that were still inside at the end of a drain and were ended for a sleep (`onDrainTimeout: Abort`, or "
    "an engine that had fallen asleep by itself).",
    ("engine",),
)
STRAY_REQUESTS: Final = Metric(
    "genrm_stray_requests_total",
    "counter",
    "Requests that an engine's own metrics still counted when it was put to sleep, though nobody was inside by its "
    "door's count: clients gave them up and the engine goes on, or somebody came past the door. vLLM only.",
    ("engine",),
)
API_SECONDS: Final = Metric(
    "genrm_api_request_seconds",
    "histogram",
    "Seconds of one call to the API server (watches are not among them). A call without an answer has the code none.",
    ("verb", "kind", "code"),
    _CALL_BUCKETS,
)
WATCH_SILENCE: Final = Metric(
    "genrm_watch_silence_seconds",
    "gauge",
    "Seconds since a watch last told anything: an event, a bookmark, or that it was opened anew. A watch in order is "
    "never silent for longer than 70 s. The namespace is empty for a watch of all namespaces.",
    ("resource", "namespace"),
)

LEADER: Final = Metric("genrm_leader", "gauge", "1 in the operator that acts, 0 in one that stands by.")

ALL: Final[Sequence[Metric]] = (
    REWARD_MODELS,
    REPLICAS,
    ENGINE_PODS,
    FAILING_PODS,
    LEASES_HELD,
    LAST_WAKE,
    LAST_SLEEP,
    SCORES_VERIFIED,
    SLEEP_EFFECTIVE,
    TRANSITION_SECONDS,
    TRANSITION_FAILURES,
    ABORTED_REQUESTS,
    STRAY_REQUESTS,
    RECONCILE_SECONDS,
    RECONCILE_ERRORS,
    QUEUE_DEPTH,
    QUEUE_WAIT_SECONDS,
    API_SECONDS,
    WATCH_SILENCE,
    LEADER,
)

TRANSITION_REASONS: Final = (
    "EngineError", "DoorUnreachable", "EngineHangs", "DrainTimeout", "NotVerified", "ScoresDiffer", "WorsePreferred",
    "Bug",
)  # fmt: skip
RECONCILE_REASONS: Final = ("ApiError", "Forbidden", "Conflict", "ApplyFailed", "Bug")


def reason_of(error: BaseException) -> str:
    """One word for a label: our exceptions by class, so that the words are few; everything else is a bug of ours."""
    return type(error).__name__ if isinstance(error, OperatorError) else "Bug"


@dataclass(frozen=True, slots=True)
class ModelView:
    """What is shown of one RewardModel, as its last look found it."""

    phase: str
    replicas: int = 0
    pod_states: Sequence[str] = ()
    lease_phases: Sequence[str] = ()
    failing_pods: int = 0
    last_wake_seconds: float | None = None
    last_sleep_seconds: float | None = None
    scores_verified: bool | None = None
    sleep_effective: bool | None = None

    @classmethod
    def of(cls, rm: RewardModel, phase: str, seen: Seen, failing_pods: int) -> ModelView:
        return cls(
            phase=phase,
            replicas=rm.spec.replicas,
            pod_states=tuple(pod_state(pod, has_door=seen.has_door) for pod in seen.pods),
            lease_phases=tuple(lease.phase for lease in seen.demand.held),
            failing_pods=failing_pods,
            last_wake_seconds=seen.last_wake_seconds,
            last_sleep_seconds=seen.last_sleep_seconds,
            scores_verified=all(check.fine for check in seen.checks.values()) if seen.checks else None,
            sleep_effective=_all({night.effective for night in seen.nights.values()}),
        )


def _all(effective: Collection[bool | None]) -> bool | None:
    """`None`: nothing is known that says the contrary, and not of all that they are."""
    return False if False in effective else None if None in effective or not effective else True


class Silences(Protocol):
    """Who knows how long each watch has been silent, by (resource, namespace)."""

    def silences(self) -> Mapping[tuple[str, str], float]: ...


class Metrics:
    """One registry, and a method for each thing that happens. Without anybody who reads it, it costs a dict entry."""

    content_type: Final = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._models: dict[Key, ModelView] = {}
        self._queue_depth: Callable[[], int] = int
        self._watches: Silences | None = None
        self._leads: Callable[[], bool] = lambda: True
        self._reconcile_seconds = self._histogram(RECONCILE_SECONDS)
        self._reconcile_errors = self._counter(RECONCILE_ERRORS)
        self._queue_wait_seconds = self._histogram(QUEUE_WAIT_SECONDS)
        self._transition_seconds = self._histogram(TRANSITION_SECONDS)
        self._transition_failures = self._counter(TRANSITION_FAILURES)
        self._aborted_requests = self._counter(ABORTED_REQUESTS)
        self._stray_requests = self._counter(STRAY_REQUESTS)
        self._api_seconds = self._histogram(API_SECONDS)
        # A counter that is born with its first failure shows no increase: those that alerts look at begin at 0.
        for reason in RECONCILE_REASONS:
            self._reconcile_errors.labels(reason)
        for engine in EngineName:
            self._aborted_requests.labels(engine)
            self._stray_requests.labels(engine)
        for transition in Transition:
            for engine in EngineName:
                for reason in TRANSITION_REASONS:
                    self._transition_failures.labels(transition, engine, reason)
        self.registry.register(_Gauges(self._gauges))
        prometheus.ProcessCollector(registry=self.registry)

    def observe(self, *, queue_depth: Callable[[], int], watches: Silences, leads: Callable[[], bool]) -> None:
        """Name those who are asked for their state at each scrape."""
        self._queue_depth, self._watches, self._leads = queue_depth, watches, leads

    def looked(self, seconds: float) -> None:
        self._reconcile_seconds.observe(seconds)

    def look_failed(self, reason: str) -> None:
        self._reconcile_errors.labels(reason).inc()

    def waited(self, seconds: float) -> None:
        self._queue_wait_seconds.observe(seconds)

    def saw(self, key: Key, model: ModelView) -> None:
        self._models[key] = model

    def forget(self, key: Key) -> None:
        """The RewardModel is gone, or no longer ours to look at: its series vanish."""
        self._models.pop(key, None)

    def transition_ended(
        self, transition: Transition, engine: str, seconds: float, result: str, reason: str | None = None
    ) -> None:
        """`reason` says why, when `result` is failed."""
        self._transition_seconds.labels(transition, engine, result).observe(seconds)
        if reason is not None:
            self._transition_failures.labels(transition, engine, reason).inc()

    def aborted(self, engine: str, requests: int) -> None:
        self._aborted_requests.labels(engine).inc(requests)

    def strayed(self, engine: str, requests: int) -> None:
        self._stray_requests.labels(engine).inc(requests)

    def called(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """A call to the API server has ended; `code` is 0 if nothing answered."""
        self._api_seconds.labels(verb, kind, str(code) if code else "none").observe(seconds)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return prometheus.generate_latest(self.registry)

    def _counter(self, metric: Metric) -> prometheus.Counter:
        return prometheus.Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> prometheus.Histogram:
        return prometheus.Histogram(
            metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
        )

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        models = self._models.items()
        yield _gauge(REWARD_MODELS, (((*key, view.phase), 1) for key, view in models))
        yield _gauge(REPLICAS, ((key, view.replicas) for key, view in models))
        yield _gauge(ENGINE_PODS, _tally((key, view.pod_states) for key, view in models))
        yield _gauge(FAILING_PODS, ((key, view.failing_pods) for key, view in models))
        yield _gauge(LEASES_HELD, _tally((key, view.lease_phases) for key, view in models))
        yield _gauge(LAST_WAKE, ((key, view.last_wake_seconds) for key, view in models))
        yield _gauge(SCORES_VERIFIED, ((key, view.scores_verified) for key, view in models))
        yield _gauge(SLEEP_EFFECTIVE, ((key, view.sleep_effective) for key, view in models))
        yield _gauge(LAST_SLEEP, ((key, view.last_sleep_seconds) for key, view in models))
        yield _gauge(QUEUE_DEPTH, [((), self._queue_depth())])
        yield _gauge(WATCH_SILENCE, self._watches.silences().items() if self._watches else ())
        yield _gauge(LEADER, [((), self._leads())])


class _Gauges(Collector):
    """Asks for the state of things when Prometheus does."""

    def __init__(self, read: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._read()


def _gauge(metric: Metric, values: Iterable[tuple[Sequence[str], float | None]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        if value is not None:
            family.add_metric(labels, value)
    return family


def _tally(models: Iterable[tuple[Key, Sequence[str]]]) -> Iterator[tuple[tuple[str, str, str], float]]:
    for key, words in models:
        for word, times in Tally(words).items():
            yield (*key, word), times


def page() -> str:
    """The reference page, as Markdown."""
    rows = (
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels) or '—'} | {m.help} |" for m in ALL
    )
    buckets = (f"* `{m.name}`: {', '.join(f'{b:g}' for b in m.buckets)}" for m in ALL if m.buckets)
    return "\n".join(
        (
            "<!-- Generated by `make generate` from operator/genrm_operator/metrics.py. Do not edit. -->",
            "# Metrics of the operator",
            "",
            "`GET /metrics` on the port `http` of the operator's pod (9090 unless the chart's `metrics.port` says",
            "otherwise), in Prometheus' format. How to scrape, alert and look:",
            "[Monitor the operator and its models](../how-to/monitor.md).",
            "",
            "| metric | type | labels | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            "Beside them the Python client's `process_*` metrics: memory, CPU, open files, start time.",
            "",
            "Buckets of the histograms, in seconds:",
            "",
            *buckets,
            "",
        )
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
