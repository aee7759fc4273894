"""From verl's timers to phases."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from genrm_api.leases import Phase
from genrm_scoring.errors import ConfigurationError, RunStopped
from genrm_verl import hooks
from genrm_verl.phases import PhaseLog, PhaseTracker, TrainerPhases
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

SYNC_STEP = ["begin step", "begin gen", "end gen", "end step"]


def play(events: list[str], always: bool = False) -> list[Phase]:
    published: list[Phase] = []
    phases = TrainerPhases(published.append, PhaseTracker(always), None)
    for event in events:
        verb, span = event.split()
        getattr(phases, verb)(span)
    return published


@pytest.mark.parametrize(
    ("events", "phases"),
    [
        ([], ["idle"]),
        (SYNC_STEP, ["idle", "scoring", "idle"]),
        (SYNC_STEP * 2, ["idle", "scoring", "idle", "scoring", "idle"]),
        (["begin step", "begin gen", "end gen"], ["idle", "scoring", "idle"]),
        (["begin step", "end step"], ["idle", "scoring", "idle"]),  # a step that failed before it rolled out
        (["begin testing", "end testing"], ["idle", "scoring"]),  # the run ends here, and its Lease with it
        (["begin testing", "end testing", *SYNC_STEP], ["idle", "scoring", "idle"]),
        (
            [*SYNC_STEP, "begin testing", "begin testing", "end testing", "end testing", *SYNC_STEP],
            ["idle", "scoring", "idle", "scoring", "idle"],
        ),
    ],
)
def test_the_reward_model_is_needed_from_step_or_validation_begin_to_gen_end(
    events: list[str], phases: list[str]
) -> None:
    assert play(events) == phases


def test_the_end_of_a_step_is_not_published_again() -> None:
    assert play(["begin step", "begin gen", "end gen", "end step"]).count(Phase.IDLE) == 2


def test_in_asynchronous_modes_it_is_needed_all_the_time() -> None:
    assert play(SYNC_STEP * 3, always=True) == ["scoring"]


@given(st.lists(st.sampled_from(["step", "gen"]), max_size=20))
def test_when_every_span_of_training_has_ended_nothing_is_needed(spans: list[str]) -> None:
    published: list[Phase] = []
    phases = TrainerPhases(published.append, PhaseTracker(), None)
    for span in spans:
        phases.begin(span)
    for span in reversed(spans):
        phases.end(span)
    assert published[-1] is Phase.IDLE


def test_every_boundary_is_logged_with_its_time(tmp_path: Path) -> None:
    phases = TrainerPhases(lambda _: None, PhaseTracker(), PhaseLog(tmp_path, "run-1"))
    phases.begin("step")
    phases.end("gen")
    phases.end("step")
    lines = [json.loads(line) for line in next(tmp_path.glob("phases-*.jsonl")).read_text().splitlines()]
    assert [(line["event"], line["phase"]) for line in lines] == [
        ("start", "idle"),
        ("begin step", "scoring"),
        ("end step", "idle"),
    ]


class TestHooks:
    """What is wrapped in verl."""

    @pytest.fixture(autouse=True)
    def armed(self, monkeypatch: pytest.MonkeyPatch) -> list[Phase]:
        self.published: list[Phase] = []
        monkeypatch.setattr(hooks._State, "phases", TrainerPhases(self.published.append, PhaseTracker(), None))
        return self.published

    def profiler(self) -> Any:
        module: Any = ModuleType("verl.utils.profiler")

        @contextlib.contextmanager
        def marked_timer(name: str, timing: dict[str, float], color: str | None = None) -> Iterator[None]:
            timing[name] = 1.0
            yield

        module.marked_timer = marked_timer
        return module

    def test_timers_of_interest_become_spans_and_all_still_measure(self) -> None:
        module = self.profiler()
        hooks._wrap_timer(module)
        hooks._wrap_timer(module)
        timing: dict[str, float] = {}
        with module.marked_timer("step", timing), module.marked_timer("gen", timing, color="red"):
            assert self.published == ["idle", "scoring"]
        with module.marked_timer("adv", timing):
            pass
        assert self.published == ["idle", "scoring", "idle"]
        assert set(timing) == {"step", "gen", "adv"}

    def test_a_step_that_raises_ends_its_spans(self) -> None:
        module = self.profiler()
        hooks._wrap_timer(module)
        with pytest.raises(RuntimeError), module.marked_timer("step", {}):
            raise RuntimeError
        assert self.published[-1] is Phase.IDLE

    def test_a_step_ends_with_its_numbers_and_with_the_run_if_they_say_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ends: list[str | None] = [None, "7 of 8 failed"]
        monkeypatch.setattr(hooks._State, "tally", SimpleNamespace(step_ended=lambda: ends.pop(0)))
        monkeypatch.setattr(hooks._State, "stopped", None)
        module = self.profiler()
        hooks._wrap_timer(module)
        for _ in range(2):
            with module.marked_timer("gen", {}):
                pass
        assert len(ends) == 2, "only whole steps are counted"
        with module.marked_timer("step", {}):
            pass
        with pytest.raises(RunStopped, match="7 of 8 failed"), module.marked_timer("step", {}):
            pass

    def test_what_fails_for_want_of_scores_ends_with_why_there_were_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hooks._State, "stopped", None)
        module = self.profiler()
        hooks._wrap_timer(module)

        def train() -> None:
            with module.marked_timer("step", {}), module.marked_timer("gen", {}):
                hooks._stop("7 of 8 failed")
                raise RuntimeError("no samples")

        with pytest.raises(RunStopped, match="7 of 8 failed") as stopped:
            train()
        assert isinstance(stopped.value.__context__, RuntimeError), "said once, and not again at each span's end"
        assert self.published[-1] is Phase.IDLE

    def test_validation_before_training_needs_the_reward_model_too(self) -> None:
        published = self.published

        class PPOTrainer:
            def _validate(self, merged: bool = False) -> tuple[bool, Phase]:
                return merged, published[-1]

        module: Any = SimpleNamespace(PPOTrainer=PPOTrainer)
        hooks._wrap_validation("PPOTrainer", module)
        assert PPOTrainer()._validate(merged=True) == (True, Phase.SCORING)
        assert published == ["idle", "scoring"]

    def test_a_run_that_was_not_translated_is_stopped(self) -> None:
        class RewardLoopManager:
            def __init__(self, config: Any) -> None:
                raise AssertionError("must not be reached")

        module: Any = SimpleNamespace(RewardLoopManager=RewardLoopManager)
        hooks._wrap_reward_loop(module)
        with pytest.raises(ConfigurationError, match="not prepared"):
            module.RewardLoopManager(OmegaConf.create({"reward_model": {"discovery": "k8s"}}))

    def test_a_run_without_discovery_is_left_alone(self) -> None:
        hooks.arm(OmegaConf.create({"reward_model": {"discovery": None}}))
        hooks.arm(OmegaConf.create({}))
