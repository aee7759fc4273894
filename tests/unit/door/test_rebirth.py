"""Back to the start gate in the same container: the engine's processes end, and the container does not."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from genrm_door import Door

from tests.unit.door.stock import ADMIN, CHAT, Pod, launched
from tests.unit.door.support import SETTINGS, TOKEN, Client, Engine, settle
from tests.unit.door.test_state import hangs

WORKER = """
import mmap, os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = os.environ["STOCK_FOLDER"]
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, "-c", os.environ["STOCK_WORKER"], "child"])
else:
    with open("/dev/shm/" + os.environ["STOCK_SHM"], "wb+") as file:
        file.truncate(4096)
        kept = mmap.mmap(file.fileno(), 4096)
        kept[0] = 1
open(os.path.join(folder, str(os.getpid())), "w").close()
time.sleep(600)
"""


def until(holds: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return found


def document(pod: Pod) -> dict[str, Any] | None:
    try:
        answer = pod.http.get("/genrm/door", headers=ADMIN)
    except httpx.TransportError:
        return None
    return dict(answer.json()) if answer.status_code == 200 else None


def back(pod: Pod, before: str) -> dict[str, Any]:
    """The document of the gate, once it answers."""

    def at_the_gate() -> dict[str, Any] | None:
        found = document(pod)
        return found if found and found["bootId"] != before else None

    found: dict[str, Any] = until(at_the_gate, "it is back at the gate")
    return found


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_engine_ends_with_all_its_processes_and_starts_again_at_the_next_release(tmp_path: Path) -> None:
    shared = f"genrm-test-{os.getpid()}"
    workers = tmp_path / "workers"
    workers.mkdir()
    environ = {"STOCK_WORKER": WORKER, "STOCK_FOLDER": str(workers), "STOCK_SHM": shared}
    with launched(tmp_path, environ=environ) as pod:
        assert pod.put("serving", **{"genrm-epoch": "7"}).status_code == 200
        assert pod.http.post(CHAT, json={"seconds": 0}).status_code == 200
        until(lambda: len(list(workers.iterdir())) == 2, "both workers run")
        pids = [int(file.name) for file in workers.iterdir()]
        before = document(pod)
        assert before is not None and pod.alive() is None and (Path("/dev/shm") / shared).exists()

        assert pod.put("gated", **{"genrm-epoch": "7"}).status_code == 409, "not while it serves"
        assert pod.put("draining", **{"genrm-epoch": "7"}).status_code == 200
        left = pod.put("gated", **{"genrm-epoch": "7"})
        assert (left.status_code, left.json()["state"]) == (200, "closed"), (
            "not at its gate before its engine has ended"
        )
        gate = back(pod, before["bootId"])

        assert pod.process.poll() is None and not any(_lives(pid) for pid in pids), "and the container stays"
        assert not (Path("/dev/shm") / shared).exists(), "nor is its shared memory left"
        assert (gate["state"], gate["epoch"], gate["ledger"][-1]["call"]) == ("gated", 7, "PUT gated")
        assert pod.http.get("/health").json() == {"engine": "not started", "state": "gated"} and pod.alive() is None
        assert pod.put("closed", **{"genrm-epoch": "6"}).status_code == 409, "who was deposed before still is"

        assert pod.put("closed", **{"genrm-epoch": "7"}).status_code == 200
        assert pod.until("ready") == f"ready {pod.process.pid}", "the same process"
        again = document(pod)
        assert again is not None and (again["state"], again["bootId"]) == ("closed", gate["bootId"])
        assert pod.put("serving", **{"genrm-epoch": "7"}).status_code == 200
        assert pod.http.post(CHAT, json={"seconds": 0}).headers["genrm-boot-id"] == gate["bootId"]

        assert pod.put("closed", **{"genrm-epoch": "7"}).status_code == 200
        assert pod.put("gated", **{"genrm-epoch": "7"}).status_code == 200
        assert back(pod, gate["bootId"])["state"] == "gated", "and so on"


def test_a_pod_that_ends_does_not_start_its_engine_again(tmp_path: Path) -> None:
    with launched(tmp_path) as pod:
        before = document(pod)
        assert before is not None and pod.hook(seconds=5).wait(20) == 0
        assert pod.put("gated").status_code == 200
        back(pod, before["bootId"])
        refused = pod.put("closed")
        assert (refused.status_code, refused.json()["error"]) == (409, "the pod is being deleted: the door stays gated")
        assert pod.hook(linger=600, seconds=600).wait(20) == 0, "its secret is a new one"


def test_the_probe_waits_for_an_engine_that_was_released_and_for_no_other(tmp_path: Path) -> None:
    with launched(tmp_path, gated=True, environ={"STOCK_DELAY": "1"}) as pod:
        assert pod.alive() is None, "at the gate"
        assert pod.put("closed").status_code == 200
        # In the instant between the gate's port and the engine's process there is neither.
        until(lambda: re.match(r"genrm: released \d+ s ago, and not up", pod.alive(0.0) or ""), "the port is let go")
        assert pod.alive() is None, "it loads, and nothing listens"
        pod.until("ready")
        assert pod.alive(0.0) is None, "it is up"
        pod.http.post("/reset_prefix_cache", headers=ADMIN)
        assert pod.alive() == "genrm: /health answers 503", "and has to stay so"
        pod.process.kill()
        pod.process.wait(10)
        assert pod.alive() == "genrm: /health does not answer"


async def test_it_does_not_leave_with_somebody_inside(engine: Engine) -> None:
    left: list[object] = []
    door = Door(engine, SETTINGS, boot_id="b", restart=left.append)
    client = Client(door)
    engine.paths[CHAT] = hangs
    await client.put_state("serving")
    inside = asyncio.create_task(client.post(CHAT))
    await settle()
    await client.put_state("draining")
    refused = await client.put_state("gated")
    assert (refused.status, refused.json()["error"]) == (
        409, "1 requests are inside: wait until nobody is, or end them first",
    )  # fmt: skip
    inside.cancel()
    assert not left


async def test_who_started_without_a_launcher_has_no_gate_to_go_back_to(client: Client) -> None:
    refused = await client.put_state("gated")
    assert (refused.status, refused.json()["error"]) == (
        409, "no launcher started this engine, so that nobody would start it again: replace the pod",
    )  # fmt: skip


async def test_nothing_is_done_to_an_engine_that_ends(engine: Engine) -> None:
    left: list[object] = []
    client = Client(Door(engine, SETTINGS, boot_id="b", restart=left.append))
    assert (await client.put_state("gated")).json()["state"] == "closed"
    assert (await client.put_state("gated")).status == 200, "told twice"
    for wanted in ("closed", "serving", "asleep"):
        assert (await client.put_state(wanted)).status == 409
    assert (await client.post("/wake_up", token=TOKEN)).status == 409
    assert (await client.post(CHAT)).status == 503
    assert (await client.post(CHAT, token=TOKEN)).status == 503, "nor asks the operator"
    assert engine.calls == [call for call in engine.calls if call == "GET /is_sleeping"]
