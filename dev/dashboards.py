"""The chart's Grafana dashboards, from one short description each: `python -m dev.dashboards FOLDER`.

A dashboard's JSON is mostly positions and defaults; what a person decides about it is here. Engines' own metrics are
vLLM's; the names that a panel may use are listed with their source.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VLLM_METRICS: Final = (
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:generation_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prompt_tokens_total",
)
"""From vLLM 0.32, `vllm/v1/metrics/loggers.py`; counters there have no `_total`, which the client library adds."""

WIDTH: Final = 24
HEIGHT: Final = 8
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` are (PromQL, legend). `kind` is Grafana's word; `unit` too."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    about: str = ""
    stack: bool = False

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        custom: dict[str, Any] = {"fillOpacity": 20 if self.stack else 5, "showPoints": "never"}
        if self.stack:
            custom["stacking"] = {"mode": "normal"}
        instant = self.kind in ("stat", "table")
        return {
            "id": number,
            "title": self.title,
            "description": self.about,
            "type": self.kind,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": HEIGHT},
            "fieldConfig": {
                "defaults": {"unit": self.unit, "min": 0, **({} if instant else {"custom": custom})},
                "overrides": [],
            },
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": DATASOURCE,
                    "expr": expression,
                    "legendFormat": legend,
                    **({"instant": True, "range": False} if instant else {}),
                    **({"format": "table"} if self.kind == "table" else {}),
                }
                for index, (expression, legend) in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    name: str
    title: str
    about: str
    panels: Sequence[Panel]
    variables: Sequence[tuple[str, str]] = ()
    """(name, PromQL of `label_values`)."""

    def json(self) -> dict[str, Any]:
        return {
            "uid": f"genrm-{self.name}",
            "title": self.title,
            "description": self.about,
            "tags": ["genrm"],
            "schemaVersion": 39,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "links": [{"type": "dashboards", "tags": ["genrm"], "title": "genrm", "asDropdown": True}],
            "templating": {"list": [*self._variables()]},
            "panels": [*self._placed()],
        }

    def _variables(self) -> Iterator[dict[str, Any]]:
        yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
        for name, query in self.variables:
            yield {"name": name, "type": "query", "datasource": DATASOURCE, "query": query, "refresh": 2, "sort": 1}

    def _placed(self) -> Iterator[dict[str, Any]]:
        """Rows from left to right, in the order that the panels are listed in."""
        x = y = 0
        for number, panel in enumerate(self.panels, 1):
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            yield panel.json(number, x, y)
            x += panel.width


def quantiles(histogram: str, by: str = "", where: str = "") -> list[tuple[str, str]]:
    """The median and the slow end of a histogram."""
    labels = ", ".join(("le", by)) if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{where}[$__rate_interval])))", name)
        for q, name in ((0.5, f"p50{legend}"), (0.99, f"p99{legend}"))
    ]


MODEL: Final = '{namespace="$namespace", reward_model="$reward_model"}'

FLEET: Final = Dashboard(
    name="fleet",
    title="genrm / Fleet",
    about="All RewardModels: what they do, who needs them, what goes wrong.",
    panels=(
        Panel("RewardModels", [("count(genrm_reward_models)", "models")], kind="stat", width=4),
        Panel("Degraded", [('count(genrm_reward_models{phase="Degraded"}) or vector(0)', "")], kind="stat", width=4),
        Panel("Runs that hold a Lease", [("sum(genrm_leases_held) or vector(0)", "")], kind="stat", width=4),
        Panel("Pods whose last transition failed", [("sum(genrm_failing_pods)", "")], kind="stat", width=4),
        Panel(
            "Serving of all pods asked for",
            [('(sum(genrm_engine_pods{state="Serving"}) or vector(0)) / sum(genrm_reward_model_replicas)', "")],
            unit="percentunit",
            kind="stat",
        ),
        Panel("RewardModels by phase", [("sum by (phase) (genrm_reward_models)", "{{phase}}")], stack=True),
        Panel("Engine pods by state", [("sum by (state) (genrm_engine_pods)", "{{state}}")], stack=True),
        Panel("Leases by what they ask for", [("sum by (phase) (genrm_leases_held)", "{{phase}}")], stack=True),
        Panel(
            "Wake seconds of a pod",
            quantiles("genrm_transition_seconds", "engine", '{transition="wake", result="done"}'),
            unit="s",
        ),
        Panel(
            "Sleep seconds of a pod",
            quantiles("genrm_transition_seconds", "engine", '{transition="sleep", result="done"}'),
            unit="s",
        ),
        Panel(
            "Transitions that failed",
            [
                (
                    "sum by (transition, reason) (increase(genrm_transition_failures_total[$__rate_interval])) > 0",
                    "{{transition}} {{reason}}",
                )
            ],
        ),
        Panel(
            "What every model does",
            [("sum by (namespace, reward_model, phase) (genrm_reward_models)", "")],
            kind="table",
            width=12,
        ),
        Panel(
            "Slowest last wakes",
            [("topk(20, genrm_reward_model_last_wake_seconds)", "{{namespace}}/{{reward_model}}")],
            unit="s",
            width=12,
            about="From the decision to the last replica serving.",
        ),
    ),
)

ONE_MODEL: Final = Dashboard(
    name="reward-model",
    title="genrm / One RewardModel",
    about="One RewardModel. The engine's panels need its pods to be scraped with the label reward_model.",
    variables=(
        ("namespace", "label_values(genrm_reward_models, namespace)"),
        ("reward_model", 'label_values(genrm_reward_models{namespace="$namespace"}, reward_model)'),
    ),
    panels=(
        Panel("Phase", [(f"genrm_reward_models{MODEL}", "{{phase}}")], kind="stat", width=6),
        Panel("Last wake", [(f"genrm_reward_model_last_wake_seconds{MODEL}", "")], unit="s", kind="stat", width=6),
        Panel("Last sleep", [(f"genrm_reward_model_last_sleep_seconds{MODEL}", "")], unit="s", kind="stat", width=6),
        Panel("Failing pods", [(f"genrm_failing_pods{MODEL}", "")], kind="stat", width=6),
        Panel(
            "Pods by state",
            [
                (f"sum by (state) (genrm_engine_pods{MODEL})", "{{state}}"),
                (f"genrm_reward_model_replicas{MODEL}", "asked for"),
            ],
            width=12,
        ),
        Panel(
            "Leases by what they ask for",
            [(f"sum by (phase) (genrm_leases_held{MODEL})", "{{phase}}")],
            width=12,
            stack=True,
        ),
        Panel("Requests running", [(f"sum by (pod) (vllm:num_requests_running{MODEL})", "{{pod}}")], stack=True),
        Panel("Requests waiting", [(f"sum by (pod) (vllm:num_requests_waiting{MODEL})", "{{pod}}")], stack=True),
        Panel("KV cache used", [(f"max by (pod) (vllm:kv_cache_usage_perc{MODEL})", "{{pod}}")], unit="percentunit"),
        Panel(
            "Tokens a second",
            [
                (f"sum(rate(vllm:prompt_tokens_total{MODEL}[$__rate_interval]))", "read"),
                (f"sum(rate(vllm:generation_tokens_total{MODEL}[$__rate_interval]))", "written"),
            ],
        ),
        Panel("Seconds of a request", quantiles("vllm:e2e_request_latency_seconds", where=MODEL), unit="s"),
        Panel(
            "Prefix cache hits",
            [
                (
                    f"sum(rate(vllm:prefix_cache_hits_total{MODEL}[$__rate_interval]))"
                    f" / sum(rate(vllm:prefix_cache_queries_total{MODEL}[$__rate_interval]))",
                    "hit",
                )
            ],
            unit="percentunit",
        ),
    ),
)

OPERATOR: Final = Dashboard(
    name="operator",
    title="genrm / Operator",
    about="The operator itself: does it hear, does it keep up, what refuses it.",
    panels=(
        Panel("Leads", [("genrm_leader", "{{pod}}")], kind="stat", width=6),
        Panel("Longest silence of a watch", [("max(genrm_watch_silence_seconds)", "")], unit="s", kind="stat", width=6),
        Panel("Waiting for a look", [("sum(genrm_queue_depth)", "")], kind="stat", width=6),
        Panel("Looks a second", [("sum(rate(genrm_reconcile_seconds_count[5m]))", "")], kind="stat", width=6),
        Panel("Seconds of a look", quantiles("genrm_reconcile_seconds"), unit="s"),
        Panel("Seconds waited for a look", quantiles("genrm_queue_wait_seconds"), unit="s"),
        Panel(
            "Looks that failed",
            [("sum by (reason) (rate(genrm_reconcile_errors_total[$__rate_interval])) > 0", "{{reason}}")],
            unit="ops",
        ),
        Panel(
            "Calls to the API server",
            [
                (
                    "sum by (verb, kind) (rate(genrm_api_request_seconds_count[$__rate_interval]))",
                    "{{verb}} {{kind}}",
                )
            ],
            unit="reqps",
        ),
        Panel(
            "Calls that were not answered by 2xx",
            [
                (
                    'sum by (verb, kind, code) (rate(genrm_api_request_seconds_count{code!~"2.."}[$__rate_interval]))',
                    "{{verb}} {{kind}} {{code}}",
                )
            ],
            unit="reqps",
        ),
        Panel("Seconds of a call", quantiles("genrm_api_request_seconds", "verb"), unit="s"),
        Panel(
            "Silence of each watch",
            [("max by (resource, namespace) (genrm_watch_silence_seconds)", "{{resource}} {{namespace}}")],
            unit="s",
            about="In order it stays under 70 s.",
        ),
        Panel(
            "CPU",
            [("rate(process_cpu_seconds_total[$__rate_interval]) and on (pod, instance) genrm_leader", "{{pod}}")],
        ),
        Panel(
            "Memory",
            [("process_resident_memory_bytes and on (pod, instance) genrm_leader", "{{pod}}")],
            unit="bytes",
        ),
    ),
)

ALL: Final = (FLEET, ONE_MODEL, OPERATOR)


def files() -> dict[str, str]:
    """File name → text of every dashboard."""
    return {f"{board.name}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n" for board in ALL}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text)
