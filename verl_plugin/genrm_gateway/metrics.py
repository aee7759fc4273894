"""What was asked and what came of it, for Prometheus."""

from __future__ import annotations

from typing import Final

from genrm_scoring.types import Score
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._samples = Counter(
            "genrm_gateway_samples_total",
            "Samples by what they were asked in, of whom, how the score ended and who gave it.",
            ["format", "target", "outcome", "source"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "genrm_gateway_request_seconds",
            "Seconds from a request to its answer, waits for a wake included.",
            ["format"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "genrm_gateway_requests_total", "Requests by format and status.", ["format", "code"], registry=self.registry
        )
        self._refused = Counter(
            "genrm_gateway_refused_total", "Requests that got no score, by status.", ["code"], registry=self.registry
        )
        self._streams = Counter(
            "genrm_gateway_streams_total",
            "Answers that were asked for in events, by how they ended; `left`: their client did not wait for the end.",
            ["outcome"],
            registry=self.registry,
        )
        self.gathering = Gauge("genrm_gateway_groups_waiting", "Groups that wait for members.", registry=self.registry)

    def scored(self, wire_format: str, target: str, score: Score) -> None:
        self._samples.labels(wire_format, target, score.outcome.value, score.source.value).inc()

    def answered(self, wire_format: str, code: int, seconds: float) -> None:
        self._requests.labels(wire_format, str(code)).inc()
        self._seconds.labels(wire_format).observe(seconds)

    def refused(self, code: int) -> None:
        self._refused.labels(str(code)).inc()

    def streamed(self, outcome: str) -> None:
        self._streams.labels(outcome).inc()

    def page(self) -> bytes:
        return generate_latest(self.registry)
