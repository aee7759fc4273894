"""The real servers, started on this host by our launcher, as in a pod, with tiny models of random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from genrm_operator.door_source import ARCHIVE_NAME, door_source

from dev import sglang_cpu
from dev.bootstrap import ensure_env, ensure_layer
from dev.models import Layout
from dev.prepare import models_folder
from tests.e2e.contract.dialects import DIALECTS, MODEL
from tests.e2e.contract.engines import ADMIN, KEY, REVISION, TOKEN, Engine, clients, digest, until
from tests.simulator.client import free_port

START_SECONDS = 300

# Loaded into each server before it serves. Writes down every route that the application has.
PROBE = """
import importlib.abc, importlib.util, json, os, sys

def routes(found):
    for route in found:
        if hasattr(route, "path"):
            yield [route.path, sorted(getattr(route, "methods", None) or ["GET"])]
        else:  # newer FastAPI keeps a router that was included as one entry
            yield from routes(route.original_router.routes)

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "starlette.applications":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            call = module.Starlette.__call__
            async def __call__(app, scope, receive, send):
                if scope["type"] == "lifespan":
                    with open(os.environ["GENRM_TEST_ROUTES"], "w") as out:
                        json.dump(list(routes(app.routes)), out)
                await call(app, scope, receive, send)
            module.Starlette.__call__ = __call__
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Watch())
"""


@dataclass(frozen=True)
class Server:
    """How one real server is started, and which of its processes computes."""

    engine: str
    environment: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    classifier: bool
    computes: str

    def python(self) -> Path:
        given = os.environ.get(f"GENRM_{self.engine.upper()}_PYTHON")
        return Path(given) if given else ensure_env(self.environment) / "bin" / "python"


_VLLM = ("vllm", "engine-cpu", ("--max-model-len", "8192", "--enforce-eager"))
_VLLM_ENVIRON = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # for `long`: a tiny model writes thousands of tokens a second
    # So many that its HTTP server may be late by more than the 5 s after which it closes a connection as idle, with a
    # request on it.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",
}
_SGLANG_ARGUMENTS = (
    *("--enable-memory-saver", "--enable-weights-cpu-backup", "--enable-metrics", "--sleep-on-idle", "--device", "cpu"),
    *("--context-length", "4096"),
    *sglang_cpu.ARGUMENTS,
)

SERVERS: Mapping[str, Server] = {
    "vllm": Server(*_VLLM, _VLLM_ENVIRON, classifier=False, computes="EngineCore"),
    "vllm-pooling": Server(
        *_VLLM[:2],
        (*_VLLM[2], "--runner", "pooling", "--convert", "classify"),
        _VLLM_ENVIRON,
        classifier=True,
        computes="EngineCore",
    ),
    "sglang": Server("sglang", "sglang-cpu", _SGLANG_ARGUMENTS, sglang_cpu.ENVIRONMENT, False, "sglang::scheduler"),
    "sglang-embedding": Server(
        "sglang",
        "sglang-cpu",
        (*_SGLANG_ARGUMENTS, "--is-embedding"),
        sglang_cpu.ENVIRONMENT,
        classifier=True,
        computes="sglang::scheduler",
    ),
}


def tiny_models() -> Layout:
    folder = models_folder()
    if not (folder / "version").exists():
        subprocess.run([ensure_layer("verl-cpu"), "-m", "dev.models", folder], check=True, timeout=300)
    return Layout(folder)


@contextmanager
def running(kind: str, work: Path, *, key: str | None = KEY) -> Iterator[Engine]:
    """One real server, behind the door that its launcher gives it. Without a `key` it answers all who can reach it."""
    server, port = SERVERS[kind], free_port()
    (work / "sitecustomize.py").write_text(PROBE)
    archive = work / ARCHIVE_NAME
    archive.write_bytes(door_source().archive)
    models = tiny_models()
    model = models.classifier if server.classifier else models.judge
    named = ["--model-path" if server.engine == "sglang" else "--model", str(model), "--served-model-name", MODEL]
    arguments = [*named, "--host", "127.0.0.1", "--port", str(port), *server.arguments]
    environment = {
        **os.environ,
        **server.environ,
        "PYTHONPATH": os.pathsep.join([str(work), *filter(None, [server.environ.get("PYTHONPATH")])]),
        "GENRM_TEST_ROUTES": str(work / "routes.json"),
        "GENRM_TOKEN_SHA256": digest(TOKEN),
        **({} if key is None else {"GENRM_CLIENT_KEY_SHA256": digest(key)}),
        "GENRM_REVISION": REVISION,
        "HF_HUB_OFFLINE": "1",
    }
    log = work / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [server.python(), archive, "launcher", "--engine", server.engine, "--", *arguments],
            cwd=work,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with clients(f"http://127.0.0.1:{port}") as (calls, nobody):

            def healthy() -> bool:
                assert process.poll() is None, log.read_text()[-4000:]
                try:
                    if calls.get("/health").status_code == 200:
                        return True
                except httpx.TransportError:
                    pass
                time.sleep(0.2)  # nobody listens yet, or the model loads; `until` holds the deadline
                return False

            began = time.monotonic()
            until(healthy, START_SECONDS)
            print(f"{kind} ready after {time.monotonic() - began:.0f} s")
            rows = json.loads((work / "routes.json").read_text())
            yield Engine(
                DIALECTS[kind],
                calls,
                nobody,
                routes=[(method, path) for path, methods in rows for method in methods],
                born=calls.get("/genrm/door", headers=ADMIN).json(),
                hold=lambda on: None,
                kill=lambda: _kill_what_computes(process.pid, server.computes),
                alone=lambda: not _children(process.pid),
            )
    finally:
        _end(process)


def _kill_what_computes(server: int, name: str) -> None:
    """Engines compute in a child of the process that serves; take it away."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in _children(server)}
    (found,) = [pid for pid, command in names.items() if name in command]
    os.kill(found, signal.SIGKILL)


def _children(server: int) -> list[int]:
    return [int(pid) for tasks in Path(f"/proc/{server}/task").glob("*/children") for pid in tasks.read_text().split()]


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(20)
