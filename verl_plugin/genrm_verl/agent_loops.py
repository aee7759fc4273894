"""What only verl's agent loop knows of a response, passed on to the reward workers.

Whether it is one of validation (where a prompt may have another number of responses), and that it will never come
because its rollout failed, so that its siblings need not wait. verl gives the reward worker neither.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

log = logging.getLogger(__name__)

VALIDATE: Final = "genrm_validate"
"""The field of a sample in which reward workers read it."""
_MARK: Final = "_genrm_wrapped"
_validating: ContextVar[bool | None] = ContextVar("genrm_validating", default=None)
_scored: ContextVar[list[bool] | None] = ContextVar("genrm_scored", default=None)
"""Set by the agent loop around one response; holds True once its score was asked for."""


def wrap(module: ModuleType) -> None:
    """Wrap two methods of its agent loop workers, whatever they are called in this verl.

    Both are of the base class alone: what trainers make of it is a Ray actor, whose class travels as a copy that no
    wrapper reaches.
    """
    wrappers = {"_run_agent_loop": _run_agent_loop, "_compute_score": _compute_score}
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            for name, wrapper in wrappers.items():
                original = vars(kind).get(name)
                if original is not None and not hasattr(original, _MARK):
                    wrapped = wrapper(original)
                    setattr(wrapped, _MARK, True)
                    setattr(kind, name, wrapped)


def _run_agent_loop(original: Any) -> Any:
    @functools.wraps(original)
    async def run(self: Any, sampling_params: Any, trajectory: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        scored, validating = [False], trajectory.get("validate")
        tokens = _scored.set(scored), _validating.set(None if validating is None else bool(validating))
        try:
            return await original(self, sampling_params, trajectory, *args, **kwargs)
        except Exception:
            if not scored[0]:
                await _lost(self, kwargs, validating)
            raise
        finally:
            _scored.reset(tokens[0])
            _validating.reset(tokens[1])

    return run


def _compute_score(original: Any) -> Any:
    @functools.wraps(original)
    async def compute_score(self: Any, outputs: Any, kwargs: dict[str, Any], *args: Any, **more: Any) -> Any:
        if (scored := _scored.get()) is not None:
            scored[0] = True
        if (validating := _validating.get()) is not None:
            kwargs = {**kwargs, VALIDATE: validating}
        return await original(self, outputs, kwargs, *args, **more)

    return compute_score


async def _lost(worker: Any, fields: Mapping[str, Any], validate: bool | None) -> None:
    """Tell the group's coordinator, if the run has any. Never hides the failure itself."""
    try:
        from genrm_verl.samples import group_of
        from genrm_verl.translate import RunSection, group_size

        section = RunSection.of(worker.config)
        if section is None or not section.coordinators:
            return
        from genrm_verl.coordinators import RayGroups

        await RayGroups(section).lost(group_of(fields), group_size(worker.config, validate))
    except Exception as e:
        log.warning("its siblings are not told that a response will never come: %s", e)
