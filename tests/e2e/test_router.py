"""sglang-router in front of the engines: it knows who serves, and nobody but the operator changes that."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name

from dev.bootstrap import ROOT, ensure_env
from dev.stack import Stack
from tests.e2e.conftest import MODEL, NAMESPACE, wait_for
from tests.simulator.client import Simulator, free_port, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TOKEN = "operator"
QUESTION = {"model": "judge", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 4}


@dataclass(frozen=True)
class RouterProcess:
    router: str
    warden: str
    simulator: Simulator

    def put(self, *workers: str, epoch: int = 1, token: str = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "genrm-epoch": str(epoch)}
        return ask("PUT", f"{self.warden}/genrm/router", json={"workers": list(workers)}, headers=headers)

    def score(self) -> httpx.Response:
        return ask("POST", f"{self.router}/v1/chat/completions", json=QUESTION)

    def engine(self, address: str) -> str:
        """A simulated engine that serves, by its url."""
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        self.simulator.put(address, settings={"tokenSha256": digest})
        url = f"http://{address}:{self.simulator.port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert ask("PUT", f"{url}/genrm/door", json={"state": "serving"}, headers=headers).status_code == 200
        return url

    def served(self, address: str) -> int:
        return int(self.simulator.pod(address)["served"])


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    return httpx.request(method, url, timeout=30, trust_env=False, **options)


@pytest.fixture(scope="module")
def environment() -> Path:
    """Where sglang-router is installed."""
    return ensure_env("router")


@pytest.fixture(scope="module")
def process(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    ports = [free_port() for _ in range(3)]
    command = [
        environment / "bin" / "python",
        ROOT / "operator/genrm_door/router.py",
        "--port",
        str(ports[0]),
        "--warden-port",
    ]
    command += [str(ports[1]), "--", "--prometheus-port", str(ports[2]), "--worker-startup-check-interval", "1"]
    variables = {**os.environ, "GENRM_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    log = tmp_path_factory.mktemp("router") / "log"
    with running() as simulator, log.open("wb") as out:
        child = subprocess.Popen([str(word) for word in command], env=variables, stdout=out, stderr=out)
        made = RouterProcess(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", simulator)
        try:
            wait_for("the router lives", lambda: healthy(made.warden), timeout=60)
            yield made
        finally:
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=30) == 0, log.read_text()[-2000:]


def healthy(warden: str) -> bool:
    try:
        return ask("GET", f"{warden}/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_routers_workers_are_the_list_that_the_operator_last_said(process: RouterProcess) -> None:
    first, second = process.engine("127.0.3.1"), process.engine("127.0.3.2")
    assert process.put(first).json()["workers"] == [first]
    assert process.score().status_code == 200
    assert process.put(first, second).json()["workers"] == [first, second]
    assert process.put(second).json()["workers"] == [second]
    before = process.served("127.0.3.1")
    assert [process.score().status_code for _ in range(8)] == [200] * 8
    assert process.served("127.0.3.1") == before and process.served("127.0.3.2") >= 8
    assert process.put().json()["workers"] == []
    assert process.score().status_code == 503


def test_an_engine_that_is_not_there_is_told_and_the_others_serve(process: RouterProcess) -> None:
    good = process.engine("127.0.3.3")
    assert process.put(good, "http://127.0.3.9:1").json()["workers"] == [good]
    assert process.score().status_code == 200


def test_nobody_but_the_leading_operator_changes_them(process: RouterProcess) -> None:
    url = process.engine("127.0.3.4")
    assert process.put(url, epoch=7).status_code == 200
    assert process.put(epoch=6).status_code == 409
    assert process.put(epoch=8, token="guess").status_code == 404
    for method, path in (("GET", "/workers"), ("POST", "/workers"), ("POST", "/flush_cache"), ("GET", "/get_loads")):
        answer = ask(method, process.router + path, json={"url": "http://127.0.3.5:1"})
        assert answer.status_code == 401, path
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert ask("GET", f"{process.warden}/genrm/router", headers=headers).json()["workers"] == [url]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"workers": "x"}', b'{"workers": [1]}', b'{"workers": ["ftp://x"]}']
)
def test_a_list_that_is_none_is_refused_and_changes_nothing(process: RouterProcess, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    before = ask("GET", f"{process.warden}/genrm/router", headers=headers).json()
    assert ask("PUT", f"{process.warden}/genrm/router", content=body, headers=headers).status_code == 400
    assert ask("GET", f"{process.warden}/genrm/router", headers=headers).json() == before


class Listener(http.server.ThreadingHTTPServer):
    """A worker that writes down what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Listening)
        self.heard: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Listening(http.server.BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, json.loads(body)))
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def listener(process: RouterProcess) -> Iterator[Listener]:
    """The router's only worker."""
    with Listener() as worker:
        threading.Thread(target=worker.serve_forever, daemon=True).start()
        assert process.put(worker.url, epoch=99).json()["workers"] == [worker.url]
        yield worker
        worker.shutdown()


TEXT = {"model": "judge", "text": "x", "input": "x", "prompt": "x"}
PASSES = ("/v1/chat/completions", "/v1/completions", "/generate", "/v1/embeddings", "/v1/classify")
LACKS = ("/classify", "/encode", "/pooling", "/score", "/v1/score", "/tokenize", "/v1/messages")


def test_the_router_has_the_routes_that_our_page_names(process: RouterProcess, listener: Listener) -> None:
    """Which is why a classifier on vLLM may have no router."""
    for path in PASSES:
        assert ask("POST", process.router + path, json=TEXT | QUESTION).status_code == 200, path
    for path in LACKS:
        assert ask("POST", process.router + path, json=TEXT | QUESTION).status_code == 404, path
    assert tuple(path for path, _ in listener.heard) == PASSES


def test_of_a_chat_it_passes_on_the_keys_that_it_knows(process: RouterProcess, listener: Listener) -> None:
    verdict = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": {"enum": ["True", "False"]}}}
    known = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "logprobs": True, "chat_template_kwargs": {"a": 1}}
    unknown = {"structured_outputs": {"choice": ["a", "b"]}, "priority": 1, "cache_salt": "x"}
    for constraint in ({"regex": "(a|b)"}, {"response_format": verdict}):
        body = QUESTION | known | unknown | constraint
        assert ask("POST", f"{process.router}/v1/chat/completions", json=body).status_code == 200
        _, heard = listener.heard[-1]
        assert heard.pop("max_completion_tokens") == body.pop("max_tokens"), "by its newer name"
        assert {key: heard.get(key) for key in body} == body | dict.fromkeys(unknown)


@pytest.fixture
def routed(asleep: Stack, environment: Path) -> Iterator[Stack]:
    asleep.cluster.ensure_router(environment)
    asleep.kubectl(
        "-n", NAMESPACE, "patch", "rm", MODEL, "--type=merge", "-p", '{"spec":{"routing":{"mode":"Router"}}}'
    )
    yield asleep
    asleep.kubectl(
        "-n", NAMESPACE, "patch", "rm", MODEL, "--type=merge", "-p", '{"spec":{"routing":{"mode":"Direct"}}}'
    )
    wait_for("the router is removed", lambda: not router_children(asleep), timeout=60)


def router_children(stack: Stack) -> list[str]:
    kinds = ("deployments", "services", "networkpolicies", "pods")
    found = (f"{kind}/{o['metadata']['name']}" for kind in kinds for o in stack.items(kind))
    return [name for name in found if f"/{MODEL}-router" in name]


def test_engines_behind_a_router_answer_while_awake_and_are_left_alone_while_asleep(routed: Stack, work: Path) -> None:
    stack = routed

    def router_address() -> str | None:
        pods = stack.items("pods", f"genrm.dev/reward-model={MODEL},genrm.dev/component=router")
        return next((str(p["status"]["podIP"]) for p in pods if is_ready(p)), None)

    address = wait_for("the router is ready", router_address, timeout=90)
    question = QUESTION | {"model": MODEL}
    for turn in range(3):
        assert ask("POST", f"http://{address}:8000/v1/chat/completions", json=question).status_code == 503
        stack.apply(lease_manifest(f"r{turn}", MODEL, NAMESPACE, Phase.SCORING, datetime.now(UTC), ttl_seconds=120))
        stack.wait_for_phase(MODEL, "Serving", timeout=60)
        answers = [ask("POST", f"http://{address}:8000/v1/chat/completions", json=question) for _ in range(4)]
        assert {a.status_code for a in answers} == {200} and all(a.json()["choices"] for a in answers)
        stack.kubectl("-n", NAMESPACE, "delete", "lease", lease_name(f"r{turn}", MODEL))
        stack.wait_for_phase(MODEL, "Asleep", timeout=60)
    assert ask("GET", f"http://{address}:8000/workers").status_code == 401


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])
