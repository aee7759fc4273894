"""The demo's verdict about itself: each thing that it claims can also be seen to be missing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dev.demo.evidence import EngineState, Evidence, Sample
from dev.grpo import Training

AWAKE, ASLEEP = EngineState.AWAKE, EngineState.ASLEEP


def judgement(step: int, session: int, pod: str, at: float, **changes: Any) -> dict[str, Any]:
    line = {
        "step": step, "uid": "u", "session": session, "pod": pod, "outcome": "ok", "attempts": 1, "failures": [],
        "started": at, "ended": at + 1.0, "seconds": 1.0,
    }  # fmt: skip
    return line | changes


GOOD = Evidence(
    steps=2,
    samples_per_step=2,
    training=Training(rewards=(0.5, 1.0), gradients=(0.3, 0.2), pushes=(1.0, 2.0, 3.0)),
    judgements=[judgement(step, session, f"p{session}", 10.0 * step) for step in (1, 2) for session in (0, 1)],
    samples=[
        Sample(at, pod, state)
        for pod in ("p0", "p1")
        for at, state in ((9.0, AWAKE), (11.5, AWAKE), (15.0, ASLEEP), (19.0, AWAKE), (21.5, AWAKE), (25.0, ASLEEP))
    ],
    engine="vllm 0.32.0",
    pods=["p0", "p1"],
    ended_at=24.0,
)


def failed(evidence: Evidence) -> list[str]:
    return [check.name for check in evidence.checks() if not check.ok]


def test_a_run_that_showed_everything_passes() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"judgements": GOOD.judgements[1:]}, "every sample of every step was judged"),
        ({"judgements": [judgement(1, 0, "p0", 10.0, outcome="timeout"), *GOOD.judgements[1:]]},
         "every sample of every step was judged"),
        ({"judgements": [judgement(1, 0, "stranger", 10.0), *GOOD.judgements[1:]]},
         "every sample of every step was judged"),
        ({"judgements": [GOOD.judgements[1], *GOOD.judgements[1:]]}, "every sample of every step was judged"),
        ({"engine": "custom"}, "the judges are vLLM"),
        ({"training": Training((0.5, 1.0), (0.3, 0.0), (1.0, 2.0, 3.0))},
         "gradients are not zero and weights changed in every step"),
        ({"training": Training((0.5, 1.0), (0.3, 0.2), (1.0, 2.0, 2.0))},
         "gradients are not zero and weights changed in every step"),
        ({"samples": [s for s in GOOD.samples if (s.pod, s.at) != ("p1", 15.0)]}, "asleep between steps 1 and 2"),
        ({"samples": [s for s in GOOD.samples if s.at < 24.0]}, "asleep after the run"),
    ],
)  # fmt: skip
def test_what_was_not_seen_fails_by_its_name(changes: dict[str, Any], name: str) -> None:
    assert failed(dataclasses.replace(GOOD, **changes)) == [name]


def test_the_last_word_of_an_engine_counts_after_the_run() -> None:
    awake_again = [*GOOD.samples, Sample(26.0, "p0", AWAKE)]
    assert failed(dataclasses.replace(GOOD, samples=awake_again)) == ["asleep after the run"]


def test_seconds_add_up_and_overlapping_judgements_count_once() -> None:
    lines = [*GOOD.judgements, judgement(2, 2, "p0", 20.5)]
    seconds = dataclasses.replace(GOOD, judgements=lines).seconds("p0")
    assert seconds["scoring"] == pytest.approx(2.5)
    assert seconds["awake"] + seconds["asleep"] + seconds["away"] == pytest.approx(16.0)


def test_the_window_starts_shortly_before_the_first_wake() -> None:
    early = [Sample(-100.0, "p0", ASLEEP), *GOOD.samples]
    start, end = dataclasses.replace(GOOD, samples=early).window()
    assert start == pytest.approx(5.0) and end == 25.0
