"""What the agent loop knows reaches the reward worker; a rollout that fails reaches its siblings."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from genrm_verl import agent_loops, coordinators
from genrm_verl.agent_loops import VALIDATE
from omegaconf import OmegaConf


def verl_like() -> ModuleType:
    """The shape of verl's agent loop: the new trainer's worker inherits and overrides the middle."""
    module = ModuleType("agent_loop")
    source = """
class AgentLoopWorker:
    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **kwargs):
        if agent_name == "broken":
            raise ValueError("the tool is away")
        return await self._agent_loop_postprocess("output", trajectory["validate"], **kwargs)

    async def _agent_loop_postprocess(self, output, validate, **kwargs):
        return await self._compute_score([output], kwargs=kwargs)

    async def _compute_score(self, outputs, kwargs):
        if kwargs["uid"] == "unscored":
            raise ValueError("the judge is away")
        return kwargs

class AgentLoopWorkerTQ(AgentLoopWorker):
    async def _agent_loop_postprocess(self, output, validate, **kwargs):
        return {"stored": kwargs, "scored": await self._compute_score([output], kwargs=kwargs)}
"""
    exec(source, module.__dict__)  # noqa: S102  (the text above)
    for kind in (module.AgentLoopWorker, module.AgentLoopWorkerTQ):
        kind.__module__ = module.__name__
    return module


class Lost:
    told: list[tuple[str, int]]

    def __init__(self, section: Any) -> None:
        pass

    async def lost(self, key: str, size: int) -> None:
        Lost.told.append((key, size))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = verl_like()
    agent_loops.wrap(module)
    agent_loops.wrap(module)
    Lost.told = []
    monkeypatch.setattr(coordinators, "RayGroups", Lost)
    made = module.AgentLoopWorkerTQ()
    section = {"run": "r", "discovery": "static", "endpoints": [], "rules": [], "coordinators": 1}
    rollout = {"n": 4, "val_kwargs": {"n": 2}}
    made.config = OmegaConf.create({"genrm": section, "actor_rollout_ref": {"rollout": rollout}})
    return made


@pytest.mark.parametrize("validate", [True, False])
async def test_the_reward_worker_hears_of_validation_and_nobody_else_does(worker: Any, validate: bool) -> None:
    found = await worker._run_agent_loop({}, {"validate": validate}, agent_name="single", uid="u")
    assert found == {"stored": {"uid": "u"}, "scored": {"uid": "u", VALIDATE: validate}}


async def test_training_and_validation_at_the_same_time_are_told_apart(worker: Any) -> None:
    asked = [worker._run_agent_loop({}, {"validate": v}, agent_name="a", uid=str(v)) for v in (True, False) * 5]
    for found in await asyncio.gather(*asked):
        assert str(found["scored"][VALIDATE]) == found["scored"]["uid"]


@pytest.mark.parametrize(("validate", "size"), [(True, 2), (False, 4)])
async def test_siblings_hear_that_a_response_will_never_come(worker: Any, validate: bool, size: int) -> None:
    with pytest.raises(ValueError, match="the tool is away"):
        await worker._run_agent_loop({}, {"validate": validate}, agent_name="broken", uid="u")
    assert Lost.told == [("u", size)]


async def test_a_response_that_came_and_has_no_score_is_not_lost(worker: Any) -> None:
    with pytest.raises(ValueError, match="the judge is away"):
        await worker._run_agent_loop({}, {"validate": False}, agent_name="single", uid="unscored")
    assert Lost.told == []


async def test_a_run_without_coordinators_tells_nobody(worker: Any) -> None:
    worker.config.genrm.coordinators = 0
    with pytest.raises(ValueError, match="the tool is away"):
        await worker._run_agent_loop({}, {"validate": False}, agent_name="broken", uid="u")
    assert Lost.told == []


def test_a_verl_without_these_methods_is_left_alone() -> None:
    module = ModuleType("other")
    module.Thing = SimpleNamespace  # type: ignore[attr-defined]
    agent_loops.wrap(module)
    assert "other" not in sys.modules
