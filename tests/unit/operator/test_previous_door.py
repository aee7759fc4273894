"""Upgrading the operator restarts no engine, so it speaks to doors of the version before: real servers of both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_operator import transitions
from genrm_operator.doors import Doors
from genrm_operator.engines import adapter_for
from genrm_operator.errors import Deposed, EngineError
from genrm_operator.observed import DoorState, Pod

from tests.unit.door.support import TOKEN
from tests.unit.operator.test_lifecycle import make_pod

ROOT = Path(__file__).parents[3]
ADDRESS = "127.9.8.6"  # a loopback address of this test's own, because doors listen on a fixed port
DOORS = {1: ROOT / "tests" / "fixtures" / "door_v1", 2: ROOT / "operator"}

SERVER = """
import asyncio, json, socket, sys, uvicorn
from genrm_door import Door
from tests.unit.door.support import SETTINGS, Engine, answer

async def models(scope, receive, send):
    await answer(send, 200, json.dumps({"data": [{"id": "judge"}]}).encode())

async def version(scope, receive, send):
    await answer(send, 200, json.dumps({"version": "0.32.0"}).encode())

engine = Engine(paths={"/v1/models": models, "/version": version})
sock = socket.create_server((sys.argv[1], 8000))
print("ready", flush=True)
asyncio.run(uvicorn.Server(uvicorn.Config(Door(engine, SETTINGS), lifespan="off", log_level="warning")).serve([sock]))
"""


@pytest.fixture(params=DOORS, ids="version {}".format)
def version(request: pytest.FixtureRequest) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, ADDRESS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(DOORS[request.param])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield int(request.param)
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def target() -> transitions.Target:
    rm = RewardModel.model_validate(
        {"metadata": {"name": "judge", "namespace": "rl", "uid": "u"}, "spec": {"model": {"uri": "hf://a/b"}}}
    )
    pod: Pod = make_pod(ip=ADDRESS)
    return transitions.Target(rm, pod, adapter_for(rm.spec.engine.name), TOKEN)


async def test_todays_operator_verifies_wakes_and_sleeps_an_engine_behind_it(
    version: int, target: transitions.Target
) -> None:
    pod = target.pod
    async with Doors(epoch=lambda: 7) as doors, httpx.AsyncClient(base_url=f"http://{ADDRESS}:8000") as http:
        document = (await http.get("/genrm/door", headers={"Authorization": f"Bearer {TOKEN}"})).json()
        assert document["version"] == version, "the fixture is what it says, and so is the door of today"
        born = await doors.look(pod, TOKEN)
        assert (born.state, born.inside, born.engine_asleep) == (DoorState.CLOSED, 0, False)
        await transitions.verify(target, doors)
        for _ in range(2):  # from closed, and from asleep
            await transitions.wake(target, doors)
            assert (await http.post("/v1/chat/completions")).status_code == 200
            await transitions.sleep(target, doors)
            asleep = await doors.look(pod, TOKEN)
            assert (asleep.state, asleep.engine_asleep, asleep.boot_id) == (DoorState.ASLEEP, True, born.boot_id)
            assert (await http.post("/v1/chat/completions")).status_code == 503


async def test_its_refusals_are_understood(version: int, target: transitions.Target) -> None:
    async with Doors(epoch=lambda: 7) as doors:
        await transitions.wake(target, doors)
        with pytest.raises(EngineError, match=r"409.*serving and cannot become asleep"):
            await doors.set_state(target.pod, TOKEN, DoorState.ASLEEP)


async def test_a_deposed_leader_is_refused_by_todays_door_and_unknown_to_the_one_before(
    version: int, target: transitions.Target
) -> None:
    async with Doors(epoch=lambda: 7) as leader, Doors(epoch=lambda: 6) as deposed:
        await leader.set_state(target.pod, TOKEN, DoorState.SERVING)
        if version == 1:
            assert (await deposed.set_state(target.pod, TOKEN, DoorState.DRAINING)).state is DoorState.DRAINING
        else:
            with pytest.raises(Deposed, match="takes orders of epoch 7, and this one was 6"):
                await deposed.set_state(target.pod, TOKEN, DoorState.DRAINING)


async def test_a_door_hears_of_a_new_leader_by_its_first_look_and_stays_as_it_is(
    version: int, target: transitions.Target
) -> None:
    async with Doors(epoch=lambda: 6) as before, Doors(epoch=lambda: 7) as leader:
        await transitions.wake(target, before)
        for _ in range(2):
            assert (await leader.take_charge(target.pod, TOKEN)).state is DoorState.SERVING
        if version == 1:
            assert (await leader.look(target.pod, TOKEN)).epoch is None
        else:
            assert (await leader.look(target.pod, TOKEN)).epoch == 7
            with pytest.raises(Deposed, match="takes orders of epoch 7, and this one was 6"):
                await before.set_state(target.pod, TOKEN, DoorState.DRAINING)
        assert (await leader.look(target.pod, TOKEN)).state is DoorState.SERVING
