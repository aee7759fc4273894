"""What we wrap in verl, in whichever process it is imported.

Four things: the timer that surrounds every part of a training step, the validation (verl starts the one before
training outside any timer), the constructor of the reward loop, which every trainer runs before it trains: there
the configuration is at hand, so there the phases are armed, and a run that asks for discovery without having been
translated is stopped. And the agent loop, which alone knows whether a response is one of validation, and whether it
will never come (`agent_loops`). Until armed, all of it does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from genrm_verl import agent_loops
from genrm_verl.import_hooks import after_import

log = logging.getLogger(__name__)

_MARK = "_genrm_wrapped"


class _State:
    """What this process has, once armed (typed loosely: importing it would make every verl process pay)."""

    phases: Any = None
    coordinators: Any = None
    tally: Any = None
    """Kept, both: they end when nobody holds them."""
    stopped: str | None = None


def install() -> None:
    """Arrange for verl's modules to be wrapped as they are imported."""
    for name in ("verl.utils.profiler", "verl.utils.debug"):
        if name in sys.modules or name == "verl.utils.profiler":  # debug copies profiler's names when it is imported
            after_import(name, _wrap_timer)
    after_import("verl.trainer.ppo.v1.trainer_base", partial(_wrap_validation, "PPOTrainer"))
    after_import("verl.trainer.ppo.ray_trainer", partial(_wrap_validation, "RayPPOTrainer"))
    after_import("verl.experimental.reward_loop.reward_loop", _wrap_reward_loop)
    after_import("verl.experimental.agent_loop.agent_loop", agent_loops.wrap)


def arm(config: Any) -> None:
    """Called with the run's configuration in the process that trains.

    Raises:
        ConfigurationError: the run asks for discovery, but our Hydra callback never saw it.
    """
    from genrm_scoring.errors import ConfigurationError
    from omegaconf import OmegaConf

    from genrm_verl.translate import RunSection

    section = RunSection.of(config)
    if section is not None:
        if _State.phases is None:
            _State.phases = _open_phases(config, section)
            _State.tally = _start_tally(section)
            if section.coordinators:
                _State.coordinators = _start_coordinators(section)
    elif OmegaConf.select(config, "reward_model.discovery") is not None:
        raise ConfigurationError(
            "reward_model.discovery",
            "set, but the run was not prepared for it (genrm's Hydra callback did not run: was the configuration "
            "composed by hand?); start with python -m verl.trainer.main_ppo",
        )


def _open_phases(config: Any, section: Any) -> Any:
    from genrm_api.leases import Phase
    from genrm_scoring.fleet_leases import run_phases
    from genrm_scoring.lease_thread import LeaseThread

    from genrm_verl.phases import PhaseLog, PhaseTracker, TrainerPhases
    from genrm_verl.target import Target
    from genrm_verl.translate import scores_all_the_time

    phase_log = PhaseLog(Path(section.judgement_log), section.run) if section.judgement_log else None
    publish: Callable[[Phase], None] = _nobody
    if section.discovery == "k8s" and (target := Target.read(section.target)).has_pods:
        from genrm_scoring.kubernetes import connect

        thread = LeaseThread(
            connect, partial(run_phases, run=section.run, models=target.models, ttl_seconds=section.lease_ttl_s)
        )
        thread.start(timeout=15.0)
        publish = thread.set_phase
        if section.prewake:
            from genrm_verl.ahead import Ahead, RayQuestions

            publish = Ahead(thread.set_phase, RayQuestions(section.run)).publish
    return TrainerPhases(publish, PhaseTracker(always=scores_all_the_time(config)), phase_log)


def _start_coordinators(section: Any) -> Any:
    from genrm_verl.coordinators import RayCoordinators

    coordinators = RayCoordinators(section)
    coordinators.when_stopped(_stop)
    return coordinators


def _start_tally(section: Any) -> Any:
    from genrm_verl.tally import RayTally

    tally = RayTally(section)
    tally.when_stopped(_stop)
    return tally


def _stop(why: str) -> None:
    _State.stopped = why


def _nobody(_: object) -> None:
    """Without a Lease nobody has to know the phase."""


@contextlib.contextmanager
def _span(name: str) -> Iterator[None]:
    phases = _State.phases
    if phases is None:
        yield
        return
    phases.begin(name)
    try:
        yield
    except Exception as e:
        _end_if_stopped(e)  # a step without any scores left fails in verl's own words
        raise
    finally:
        phases.end(name)
        if name == "step":
            _step_ended()
    _end_if_stopped()


def _step_ended() -> None:
    if _State.coordinators is not None:
        _State.coordinators.step_ended()
    if _State.tally is not None and (why := _State.tally.step_ended()) is not None:
        _stop(why)


def _end_if_stopped(failure: Exception | None = None) -> None:
    """
    Args:
        failure: what ends a part of the step anyway.

    Raises:
        RunStopped: the tally or a coordinator has said so; the reward workers' own exceptions only cost samples.
    """
    if _State.stopped is not None:
        from genrm_scoring.errors import RunStopped

        if not isinstance(failure, RunStopped):
            raise RunStopped(_State.stopped)


def _wrap_timer(module: ModuleType) -> None:
    original = getattr(module, "marked_timer", None)
    if original is None or hasattr(original, _MARK):
        return

    @functools.wraps(original)
    @contextlib.contextmanager
    def marked_timer(name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        span = _span(name) if name in ("step", "gen", "testing") else contextlib.nullcontext()
        with span, original(name, *args, **kwargs) as value:
            yield value

    setattr(marked_timer, _MARK, True)
    module.marked_timer = marked_timer  # type: ignore[attr-defined]


def _wrap_validation(class_name: str, module: ModuleType) -> None:
    trainer = getattr(module, class_name, None)
    original = getattr(trainer, "_validate", None)
    if original is None:
        log.warning("verl's %s has no _validate: validation before training will not wake the reward model", class_name)
        return

    @functools.wraps(original)
    def _validate(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _span("testing"):
            return original(self, *args, **kwargs)

    trainer._validate = _validate  # type: ignore[union-attr]


def _wrap_reward_loop(module: ModuleType) -> None:
    manager = module.RewardLoopManager
    original = manager.__init__

    @functools.wraps(original)
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        arm(config)
        original(self, config, *args, **kwargs)

    manager.__init__ = __init__
