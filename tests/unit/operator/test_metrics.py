"""What is counted is what the table says; a deleted model leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
from genrm_api.rewardmodel import EngineName
from genrm_operator import errors, metrics
from genrm_operator.metrics import ALL, Metrics, ModelView, reason_of
from genrm_operator.observed import Transition
from prometheus_client.parser import text_string_to_metric_families

from dev.bootstrap import ROOT

JUDGE = ("rl", "judge")
OTHER = ("rl", "other")


def value(of: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    found = of.registry.get_sample_value(name, dict(labels or {}))
    return None if found is None else float(found)


def model_labels(of: Metrics) -> set[str]:
    """The RewardModels that some series names."""
    return {
        sample.labels["reward_model"]
        for family in text_string_to_metric_families(of.text().decode())
        for sample in family.samples
        if "reward_model" in sample.labels
    }


class _Watches:
    def silences(self) -> Mapping[tuple[str, str], float]:
        return {("pods", ""): 3.5}


@pytest.fixture
def everything() -> Metrics:
    """Each metric has at least one series."""
    made = Metrics()
    made.observe(queue_depth=lambda: 7, watches=_Watches(), leads=lambda: False)
    made.looked(0.02)
    made.waited(0.3)
    made.called("patch", "Pod", 200, 0.004)
    made.transition_ended(Transition.WAKE, "vllm", 3.0, "done")
    made.saw(
        JUDGE, ModelView("Serving", 2, ("Serving", "Serving", "Waking"), ("scoring", "idle"), 1, 1.5, 0.5, False, True)
    )
    return made


def test_the_registry_yields_what_the_table_says_and_nothing_else(everything: Metrics) -> None:
    families = {family.name: family for family in everything.registry.collect()}
    ours = {name for name in families if name.startswith("genrm_")}
    assert ours == {metric.name.removesuffix("_total") for metric in ALL}
    for metric in ALL:
        family = families[metric.name.removesuffix("_total")]
        assert family.type == metric.kind and family.documentation == metric.help
        seen = {label for s in family.samples for label in s.labels if not s.name.endswith("_created")} - {"le"}
        assert seen == set(metric.labels), metric.name
        names = {s.name for s in family.samples if not s.name.endswith("_created")}
        assert names == set(metric.series())


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: str(metric.name))
def test_names_keep_to_the_conventions(metric: metrics.Metric) -> None:
    assert re.fullmatch(r"genrm_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds"), "base units"
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".") and "|" not in metric.help, "a sentence, in a cell of a table"


@pytest.mark.parametrize(
    ("do", "name", "labels", "expected"),
    [
        (lambda m: m.look_failed("Forbidden"), "genrm_reconcile_errors_total", {"reason": "Forbidden"}, 1),
        (lambda m: m.looked(0.02), "genrm_reconcile_seconds_count", {}, 1),
        (lambda m: m.waited(0.3), "genrm_queue_wait_seconds_sum", {}, 0.3),
        (
            lambda m: m.called("create", "Event", 0, 10.0),
            "genrm_api_request_seconds_count",
            {"verb": "create", "kind": "Event", "code": "none"},
            1,
        ),
        (
            lambda m: m.transition_ended(Transition.SLEEP, "vllm", 60.0, "failed", "DrainTimeout"),
            "genrm_transition_failures_total",
            {"transition": "sleep", "engine": "vllm", "reason": "DrainTimeout"},
            1,
        ),
        (
            lambda m: m.transition_ended(Transition.SLEEP, "vllm", 60.0, "failed", "DrainTimeout"),
            "genrm_transition_seconds_sum",
            {"transition": "sleep", "engine": "vllm", "result": "failed"},
            60,
        ),
    ],
)
def test_what_happens_is_counted(
    do: Callable[[Metrics], None], name: str, labels: Mapping[str, str], expected: float
) -> None:
    made = Metrics()
    do(made)
    assert value(made, name, labels) == expected


def test_what_alerts_look_at_begins_at_zero() -> None:
    """`increase()` sees no step from nothing to 1."""
    fresh = Metrics()
    for engine in EngineName:
        labels = {"transition": "wake", "engine": str(engine), "reason": "EngineError"}
        assert value(fresh, "genrm_transition_failures_total", labels) == 0
    assert value(fresh, "genrm_reconcile_errors_total", {"reason": "Bug"}) == 0


def test_pods_and_leases_are_counted_by_state(everything: Metrics) -> None:
    where = {"namespace": "rl", "reward_model": "judge"}
    assert value(everything, "genrm_engine_pods", where | {"state": "Serving"}) == 2
    assert value(everything, "genrm_engine_pods", where | {"state": "Waking"}) == 1
    assert value(everything, "genrm_engine_pods", where | {"state": "Asleep"}) is None
    assert value(everything, "genrm_leases_held", where | {"phase": "scoring"}) == 1
    assert value(everything, "genrm_reward_model_last_wake_seconds", where) == 1.5
    assert value(everything, "genrm_reward_model_scores_verified", where) == 0
    assert value(everything, "genrm_reward_model_sleep_effective", where) == 1
    assert value(everything, "genrm_watch_silence_seconds", {"resource": "pods", "namespace": ""}) == 3.5
    assert value(everything, "genrm_queue_depth") == 7 and value(everything, "genrm_leader") == 0


def test_a_model_is_in_one_phase_only(everything: Metrics) -> None:
    everything.saw(JUDGE, ModelView("Asleep"))
    labels = {"namespace": "rl", "reward_model": "judge"}
    assert value(everything, "genrm_reward_models", labels | {"phase": "Serving"}) is None
    assert value(everything, "genrm_reward_models", labels | {"phase": "Asleep"}) == 1


def test_a_deleted_model_leaves_no_series(everything: Metrics) -> None:
    everything.saw(OTHER, ModelView("Asleep", 1, ("Asleep",)))
    assert model_labels(everything) == {"judge", "other"}
    everything.forget(JUDGE)
    assert model_labels(everything) == {"other"}
    everything.forget(JUDGE)  # forgotten again by its last event


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (errors.DrainTimeout("pod", "x"), "DrainTimeout"),
        (errors.EngineError("pod", "x"), "EngineError"),
        (errors.Forbidden("GET x", 403, "x"), "Forbidden"),
        (KeyError("x"), "Bug"),
    ],
)
def test_reasons_are_few(error: Exception, word: str) -> None:
    assert reason_of(error) == word


def test_the_reference_page_is_what_the_table_makes_it() -> None:
    assert (ROOT / "docs" / "reference" / "metrics.md").read_text() == metrics.page()
