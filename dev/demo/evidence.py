"""What the demo saw, and whether it is enough: pure, from samples, judgement log and training output."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dev.grpo import Training


class EngineState(enum.StrEnum):
    AWAKE = "awake"
    ASLEEP = "asleep"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one engine; `at` is Unix seconds."""

    at: float
    pod: str
    state: EngineState


@dataclass(frozen=True, slots=True)
class Span:
    """A pod did one thing from `start` to `end` (Unix seconds). `what` is awake, asleep, away or scoring."""

    pod: str
    what: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything observed of one run. `judgements` are the lines of the plugin's judgement log."""

    steps: int
    samples_per_step: int
    training: Training
    judgements: Sequence[Mapping[str, Any]]
    samples: Sequence[Sample]
    engine: str
    pods: Sequence[str]
    ended_at: float

    def of_step(self, step: int) -> list[Mapping[str, Any]]:
        return [j for j in self.judgements if j["step"] == step]

    def per_pod(self, step: int) -> Counter[str]:
        return Counter(str(j["pod"]) for j in self.of_step(step))

    def outcomes(self) -> Counter[str]:
        return Counter(str(j["outcome"]) for j in self.judgements)

    def retries(self) -> int:
        return sum(int(j["attempts"]) - 1 for j in self.judgements)

    def checks(self) -> list[Check]:
        """What has to hold for the demo to have succeeded."""
        return [
            self._every_sample_judged(),
            Check("the judges are vLLM", self.engine.startswith("vllm "), self.engine or "no engine answered"),
            Check(
                "gradients are not zero and weights changed in every step",
                self.training.learned and len(self.training.gradients) == self.steps,
                f"gradients {', '.join(f'{g:.3f}' for g in self.training.gradients) or 'none'}",
            ),
            *self._asleep_between_steps(),
            self._asleep_after_the_run(),
        ]

    def _every_sample_judged(self) -> Check:
        wanted = self.steps * self.samples_per_step
        good = {
            (j["step"], j["uid"], j["session"])
            for j in self.judgements
            if j["outcome"] == "ok" and j["pod"] in self.pods
        }
        full = all(len({k for k in good if k[0] == step}) == self.samples_per_step for step in range(1, self.steps + 1))
        seen = f"{len(good)} of {wanted} samples got a verdict from an engine pod"
        return Check("every sample of every step was judged", full and len(good) == wanted, seen)

    def _asleep_between_steps(self) -> Iterator[Check]:
        for before, after in pairwise(range(1, self.steps + 1)):
            first, second = self.of_step(before), self.of_step(after)
            if not first or not second:
                yield Check(f"asleep between steps {before} and {after}", False, "a step has no judgements")
                continue
            start, end = max(j["ended"] for j in first), min(j["started"] for j in second)
            asleep = self._pods_seen_asleep(start, end)
            seen = f"{len(asleep)} of {len(self.pods)} engines said so within the {end - start:.1f} s between"
            yield Check(f"asleep between steps {before} and {after}", len(asleep) == len(self.pods), seen)

    def _asleep_after_the_run(self) -> Check:
        last = {s.pod: s.state for s in self.samples if s.at > self.ended_at and s.pod in self.pods}
        asleep = sum(state is EngineState.ASLEEP for state in last.values())
        return Check("asleep after the run", asleep == len(self.pods), f"{asleep} of {len(self.pods)} engines said so")

    def _pods_seen_asleep(self, start: float, end: float) -> set[str]:
        return {
            s.pod for s in self.samples if start < s.at < end and s.state is EngineState.ASLEEP and s.pod in self.pods
        }

    def spans(self) -> list[Span]:
        """The timeline: what each engine said of itself, and on top of it when it was judging."""
        found: list[Span] = []
        for pod in self.pods:
            own = [s for s in self.samples if s.pod == pod]
            for before, after in pairwise(own):
                if found and found[-1].pod == pod and found[-1].what == before.state:
                    found[-1] = Span(pod, found[-1].what, found[-1].start, after.at)
                else:
                    found.append(Span(pod, before.state, before.at, after.at))
        return found + [
            Span(str(j["pod"]), "scoring", j["started"], j["ended"]) for j in self.judgements if j["outcome"] == "ok"
        ]

    def window(self) -> tuple[float, float]:
        """The part of the timeline worth drawing: from shortly before the first wake to the last look."""
        spans = self.spans()
        first, last = min(s.start for s in spans), max(s.end for s in spans)
        woken = min((s.start for s in spans if s.what in ("awake", "scoring")), default=first)
        return max(first, woken - 4.0), last

    def seconds(self, pod: str) -> dict[str, float]:
        """Seconds per state; scoring is the union of a pod's judgements and is part of awake."""
        total: dict[str, float] = {"asleep": 0.0, "awake": 0.0, "scoring": 0.0, "away": 0.0}
        for span in self.spans():
            if span.pod == pod and span.what != "scoring":
                total[span.what] += span.end - span.start
        end = 0.0
        for span in sorted((s for s in self.spans() if s.pod == pod and s.what == "scoring"), key=lambda s: s.start):
            total["scoring"] += max(0.0, span.end - max(span.start, end))
            end = max(end, span.end)
        return total
