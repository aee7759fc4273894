"""A stand-in for an engine's stock image, started by the real launcher: a real process, a real server, the real door.

It takes what the launcher puts on its command line as vLLM would. Its engine takes as long over a judgement as the
request says, and on SIGTERM it is gone at once, with everybody who is still inside.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from genrm_door import launcher

from tests.simulator.client import free_port

TOKEN = "the operator's token"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
CHAT = "/v1/chat/completions"
FOLDER = Path(launcher.__file__).parent

API_SERVER = """
import argparse, asyncio, contextlib, importlib, json, os, signal, socket, subprocess, sys, time, uvicorn

parser = argparse.ArgumentParser()
for flag in ("--host", "--port", "--model", "--revision", "--middleware", "--api-server-count"):
    parser.add_argument(flag)
given = parser.parse_args()
if "STOCK_WORKER" in os.environ:  # as an engine's workers: children of children, some in a session of their own
    subprocess.Popen([sys.executable, "-c", os.environ["STOCK_WORKER"]], start_new_session=True)
state = {"asleep": False, "dead": False}

async def engine(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    path, status = scope["path"], 200
    said = {"authorization": dict(scope["headers"]).get(b"authorization", b"").decode()}
    if path == "/v1/chat/completions":
        await asyncio.sleep(json.loads(body)["seconds"])
    elif path in ("/sleep", "/wake_up"):
        state["asleep"] = path == "/sleep"
    elif path == "/v1/models":
        said = {"args": [given.model, f"--revision={given.revision}"]}
    elif path == "/is_sleeping":
        said = {"is_sleeping": state["asleep"]}
    elif path == "/reset_prefix_cache":
        state["dead"] = True  # this engine's own way to be told to die
    elif path == "/health" and state["dead"]:
        status = 503
    said = json.dumps(said).encode()
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": said})

class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield

module, _, name = given.middleware.rpartition(".")
time.sleep(float(os.environ.get("STOCK_DELAY", 0)))
door = getattr(importlib.import_module(module), name)(engine)
sock = socket.create_server((given.host, int(given.port)))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("ready", os.getpid(), flush=True)
config = uvicorn.Config(door, lifespan="off", log_level="warning", access_log=False)
asyncio.run(Server(config).serve(sockets=[sock]))
"""


@dataclass
class Pod:
    """One running container."""

    process: subprocess.Popen[str]
    port: int
    http: httpx.Client
    environ: Mapping[str, str]

    def until(self, word: str) -> str:
        """The next line of the container's log that begins with `word`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.strip()
        raise AssertionError(f"the process ended with {self.process.wait(10)} before it said {word!r}")

    def put(self, state: str, **headers: str) -> httpx.Response:
        return self.http.put("/genrm/door", json={"state": state}, headers={**ADMIN, **headers})

    def hook(self, *, linger: float = 0.0, seconds: float = 20.0) -> subprocess.Popen[str]:
        """What the kubelet runs before it stops the container."""
        words = ["--port", str(self.port), "--linger", str(linger), "--seconds", str(seconds)]
        command = [sys.executable, str(FOLDER / "terminate.py"), *words]
        return subprocess.Popen(command, env=dict(self.environ), stderr=subprocess.PIPE, text=True)

    def alive(self, startup_seconds: float = 600.0) -> str | None:
        """What the kubelet's liveness probe is told; None is well."""
        words = ["--port", str(self.port), "--startup-seconds", str(startup_seconds)]
        done = subprocess.run(
            [sys.executable, str(FOLDER / "alive.py"), *words], env=dict(self.environ), capture_output=True, text=True
        )
        return None if done.returncode == 0 else done.stderr.strip()

    def secret(self) -> str:
        return (Path(self.environ["GENRM_RUN_DIR"]) / "secret").read_text()


@contextmanager
def launched(
    folder: Path,
    *,
    gated: bool = False,
    environ: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    model: str = "",
) -> Iterator[Pod]:
    """A container for the time of a `with` block; gated, it has not started its engine when the block begins."""
    package = folder / "stock" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True, exist_ok=True)
    (package / "api_server.py").write_text(API_SERVER)
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    port = port or free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "stock"),
        "GENRM_RUN_DIR": str(run_dir),
        "GENRM_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "GENRM_REVISION": "rev-1",
        **({"GENRM_START_GATE": "1"} if gated else {}),
        **(environ or {}),
    }
    arguments = ["--host", host, "--port", str(port), *(("--model", model) if model else ())]
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "launcher.py"), "--engine", "vllm", "--", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=20, trust_env=False, verify=False) as http:
            pod = Pod(process, port, http, environment)
            pod.until("genrm: waiting" if gated else "ready")
            yield pod
    finally:
        process.kill()
        process.wait(10)
