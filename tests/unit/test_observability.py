"""What the chart ships for those on call: alerts and dashboards name only metrics that exist, and are rendered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from genrm_operator import watches
from genrm_operator.metrics import ALL
from genrm_operator.settings import Settings

from dev import dashboards
from dev.bootstrap import ROOT
from tests.unit import rendering

CHART = ROOT / "charts" / "genrm-operator"
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
EVERYTHING = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "metrics.enginePodMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "dashboards.enabled=true",
)
PROCESS_METRICS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
EXIST = {name for metric in ALL for name in metric.series()} | PROCESS_METRICS | set(dashboards.VLLM_METRICS)
LABELS = {name: {*metric.labels, "le"} for metric in ALL for name in metric.series()}


# ---------------------------------------------------------------------- PromQL, as far as names go


def names(expression: str) -> set[str]:
    """The metrics that an expression reads: words that are no function, no keyword, no label and no value."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^{}]*\}", "", bare)  # matchers
    bare = re.sub(r"\[[^\]]*\]", "", bare)  # ranges
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_][\w:]*(?!\w)(?!\s*\()", bare)
    return {
        word for word in words if word not in ("and", "or", "unless", "bool", "offset", "inf", "nan")
    } - AGGREGATIONS


AGGREGATIONS = {"sum", "max", "min", "count", "avg", "topk"}  # "sum by (x) (...)" has lost its "by (x)" by then


def labels(expression: str) -> Iterator[tuple[str, str]]:
    """(metric, label) of every matcher."""
    for name, matchers in re.findall(r"([a-zA-Z_][\w:]*)\{([^{}]*)\}", re.sub(r'"[^"]*"', '""', expression)):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            yield name, label


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (a) (rate(x_total{b="y_total"}[5m])) > 0.5', {"x_total"}),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[$__rate_interval])))", {"h_bucket"}),
        ("absent(up == 1) or vector(0)", {"up"}),
        ("a and on (pod) deriv(b[1m]) > 0 unless c", {"a", "b", "c"}),
        ('vllm:x{p=~"a-.*"} / ignoring(q) group_left(r) y', {"vllm:x", "y"}),
        ("topk(20, z)", {"z"}),
    ],
)
def test_the_reader_of_expressions_finds_the_metrics(expression: str, expected: set[str]) -> None:
    assert names(expression) == expected


def check(expression: str) -> None:
    assert names(expression), f"reads no metric: {expression}"
    assert names(expression) <= EXIST, f"{names(expression) - EXIST} does not exist: {expression}"
    for metric, label in labels(expression):
        if metric in LABELS:
            assert label in LABELS[metric], f"{metric} has no label {label}: {expression}"
    assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}")), expression


# ---------------------------------------------------------------------- alerts


def rules() -> Iterator[dict[str, Any]]:
    for group in ALERTS["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize("rule", [*rules()], ids=lambda rule: str(rule["alert"]))
def test_an_alert_reads_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    kept = set(re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])[:1])
    for text in rule["annotations"].values():
        used = set(re.findall(r"\$labels\.(\w+)", text))
        assert used <= {label.strip() for part in kept for label in part.split(",")}, (
            f"{text} uses labels that are gone"
        )


def test_what_a_platform_team_must_hear_of_has_an_alert() -> None:
    alerts = {rule["alert"] for rule in rules()}
    for about in (
        "WakeFailed",
        "ScoresDrifted",
        "SleepIneffective",
        "TransitionsFailing",
        "OperatorDeaf",
        "ReconcileErrors",
        "QueueGrowing",
    ):
        assert f"Genrm{about}" in alerts


def test_deaf_means_the_same_to_the_alert_and_to_healthz() -> None:
    (deaf,) = (rule for rule in rules() if rule["alert"] == "GenrmOperatorDeaf")
    assert deaf["expr"].endswith(f"> {watches.STALE_SECONDS:g}")


# ---------------------------------------------------------------------- dashboards


def test_there_is_a_dashboard_of_the_fleet_one_model_and_the_operator() -> None:
    assert [path.stem for path in DASHBOARDS] == ["fleet", "operator", "reward-model"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
def test_a_dashboard_is_valid_and_reads_metrics_that_exist(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"genrm-{path.stem}" and board["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    for panel in board["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= dashboards.WIDTH
        for target in panel["targets"]:
            check(target["expr"])
            used = set(re.findall(r"\$\{?(\w+)", target["expr"] + target["datasource"]["uid"]))
            assert used <= variables, panel["title"]
    for variable in board["templating"]["list"]:
        for metric in re.findall(r"label_values\((\w+)", variable["query"]):
            assert metric in EXIST


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
def test_no_two_panels_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


# ---------------------------------------------------------------------- the chart


def render(*values: str) -> dict[tuple[str, str], dict[str, Any]]:
    return rendering.render(*(part for value in values for part in ("--set", value)))


def test_the_chart_ships_the_rules_as_they_are_tested() -> None:
    rendered = render(*EVERYTHING, "metrics.prometheusRule.labels.release=prometheus")
    rule = rendered["PrometheusRule", "genrm-operator"]
    assert rule["spec"] == ALERTS
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_chart_ships_the_dashboards_as_they_are_tested() -> None:
    rendered = render(*EVERYTHING, "dashboards.namespace=grafana")
    for path in DASHBOARDS:
        config = rendered["ConfigMap", f"genrm-operator-dashboard-{path.stem}"]
        assert config["data"] == {f"genrm-{path.name}": path.read_text()}
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["namespace"] == "grafana"


def test_nothing_that_needs_another_operator_is_made_unless_it_is_asked_for() -> None:
    kinds = {kind for kind, _ in render()}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"}


def container(rendered: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    return dict(rendered["Deployment", "genrm-operator"]["spec"]["template"]["spec"]["containers"][0])


@pytest.mark.parametrize("port", [9090, 9999])
def test_probes_service_and_monitors_meet_on_the_port_that_the_operator_serves(port: int) -> None:
    rendered = render(*EVERYTHING, f"metrics.port={port}")
    operator = container(rendered)
    environment = {entry["name"]: entry.get("value") for entry in operator["env"]}
    assert environment["GENRM_METRICS_PORT"] == str(port)
    (named,) = operator["ports"]
    assert named["containerPort"] == port
    for probe in ("livenessProbe", "readinessProbe"):
        assert operator[probe]["httpGet"] == {"path": "/healthz", "port": named["name"]}
    service = rendered["Service", "genrm-operator-metrics"]
    assert service["spec"]["ports"][0]["targetPort"] == named["name"]
    monitor = rendered["ServiceMonitor", "genrm-operator"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    pods = rendered["PodMonitor", "genrm-operator"]["spec"]
    template = rendered["Deployment", "genrm-operator"]["spec"]["template"]
    assert pods["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert pods["podMetricsEndpoints"][0]["port"] == named["name"]
    for endpoint in (*monitor["endpoints"], *pods["podMetricsEndpoints"]):
        assert endpoint["honorLabels"], "else `namespace` would be the operator's"


def test_the_charts_defaults_are_the_programs_defaults() -> None:
    environment = {entry["name"]: entry.get("value") for entry in container(render())["env"]}
    defaults = Settings(master_key=b"")
    assert environment["GENRM_METRICS_PORT"] == str(defaults.metrics_port)
    assert environment["GENRM_LOG_FORMAT"] == defaults.log_format
    assert environment["GENRM_LOG_LEVEL"] == defaults.log_level


def test_one_slow_answer_restarts_no_operator() -> None:
    probe = container(render())["livenessProbe"]
    assert probe.get("failureThreshold", 3) * probe["periodSeconds"] >= 30


@pytest.mark.parametrize(
    ("watched", "expected"), [("", {"any": True}), ("watchNamespaces={a,b}", {"matchNames": ["a", "b"]})]
)
def test_engines_are_scraped_where_the_operator_watches(watched: str, expected: dict[str, object]) -> None:
    spec = render(*EVERYTHING, *filter(None, [watched]))["PodMonitor", "genrm-operator-engines"]["spec"]
    assert spec["namespaceSelector"] == expected
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["relabelings"][0]["targetLabel"] == "reward_model", "the dashboard of one model selects by it"


def test_a_monitor_of_a_service_that_is_not_there_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"serviceMonitor\.enabled needs"):
        render("metrics.serviceMonitor.enabled=true", "metrics.service.enabled=false")
