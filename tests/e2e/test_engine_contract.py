"""One contract, two engines: the simulator of the cluster tier, and real vLLM on CPU, both behind the real door.

The same calls must get the same answers from both; what the simulator imitates is stated here and nowhere else. Real
vLLM is started on this host by our launcher, as in a pod, with a tiny model of random weights.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import genrm_door
import httpx
import pytest
from genrm_door import ROUTES, Kind
from genrm_door.asgi import NOT_FOUND

from dev.bootstrap import ensure_env, ensure_layer
from tests.simulator import client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOKEN = "the operator's token"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
REVISION = "contract-1"
CHAT = "/v1/chat/completions"
TABLE = ROUTES["vllm"].table
START_SECONDS = 300
MODEL = "judge"

# Sample names with their label names, as an engine publishes them that has slept, woken and scored.
METRICS = {
    ("vllm:engine_sleep_state", ("engine", "model_name", "sleep_state")),
    ("vllm:num_requests_running", ("engine", "model_name")),
    ("vllm:num_requests_waiting", ("engine", "model_name")),
    ("vllm:request_success_total", ("engine", "finished_reason", "model_name")),
    ("vllm:sleep_mode_operation_duration_seconds_count", ("operation",)),
    ("vllm:sleep_mode_operation_duration_seconds_sum", ("operation",)),
}

# What a generative engine says to an empty request, or to a task that its model cannot do.
OWN_AFFAIR = {
    "/v1/chat/completions": 200,  # these two are asked properly
    "/v1/completions": 200,
    "/tokenize": 400,
    "/detokenize": 400,
}

HOSTILE = [
    "//sleep",
    "/%73leep",
    "/sleep/",
    "/Sleep",
    "/v1/../sleep",
    "/v1/%2e%2e/sleep",
    "/sleep.",
    "/sleep%00",
    "/sleep;a=b",
    "/metrics/../sleep",
    "/metrics/x",
    "/genrm%2fdoor",
    "/docs",
    "/openapi.json",
    "/collective_rpc",
    "*",
    "sleep",
]

# Loaded into the real server beside the door, further in. Writes down every route that the server has.
PROBE = """
import json, os

class Probe:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            rows = [[r.path, sorted(getattr(r, "methods", None) or ["GET"])] for r in scope["app"].routes]
            with open(os.environ["GENRM_TEST_ROUTES"], "w") as out:
                json.dump(rows, out)
        await self.app(scope, receive, send)
"""


@dataclass
class Engine:
    """One of the two, and what a test must know to treat them alike."""

    http: httpx.Client
    routes: list[tuple[str, str]]
    born: dict[str, Any]
    hold: Callable[[bool], None]
    """Keep requests inside until told otherwise; a real engine is kept busy by `long` instead."""
    kill: Callable[[], None]

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get("/genrm/door", headers=ADMIN).json()
        return document

    def put(self, state: str) -> httpx.Response:
        return self.http.put("/genrm/door", json={"state": state}, headers=ADMIN)

    def admin(self, path: str) -> httpx.Response:
        return self.http.post(path, headers=ADMIN)

    def serve(self) -> None:
        """Awake and serving, whatever was before."""
        assert self.put("closed").status_code == 200
        assert self.admin("/wake_up").json()["status"] == "awake"
        answer = self.put("serving")
        assert answer.status_code == 200, answer.text

    def sleep(self) -> None:
        assert self.put("closed").status_code == 200
        assert self.admin("/sleep?level=1").json() == {"status": "sleeping", "level": 1}
        answer = self.put("asleep")
        assert answer.status_code == 200, answer.text

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        samples = []
        for line in self.http.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                head, _, value = line.rpartition(" ")
                name, _, labels = head.partition("{")
                pairs = (pair.split("=", 1) for pair in labels.rstrip("}").split(",") if "=" in pair)
                samples.append((name, {k: v.strip('"') for k, v in pairs}, float(value)))
        return samples

    def sleep_state(self) -> dict[str, float]:
        return {
            labels["sleep_state"]: value for name, labels, value in self.metrics() if name == "vllm:engine_sleep_state"
        }


def question(text: str = "Is 2+2=4?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}


def verdict(text: str = "Is 2+2=4?") -> dict[str, Any]:
    return question(text, structured_outputs={"choice": ["True", "False"]})


def long(text: str) -> dict[str, Any]:
    """A request that a real engine is busy with for seconds."""
    return question(text, max_tokens=5000) | {"ignore_eos": True}


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"


@pytest.fixture(scope="module")
def engine_python() -> Path:
    given = os.environ.get("GENRM_VLLM_PYTHON")
    return Path(given) if given else ensure_env("engine-cpu") / "bin" / "python"


@pytest.fixture(scope="module")
def tiny_judge() -> Path:
    if given := os.environ.get("GENRM_TINY_JUDGE"):
        return Path(given)
    from dev.models import Layout
    from dev.prepare import models_folder

    folder = models_folder()
    if not (folder / "version").exists():
        subprocess.run([ensure_layer("verl-cpu"), "-m", "dev.models", folder], check=True, timeout=300)
    return Layout(folder).judge


@pytest.fixture(scope="module")
def simulator() -> Iterator[Engine]:
    arguments = ("--token-sha256", DIGEST, "--revision", REVISION, "--model", MODEL)
    with client.running(*arguments) as running, http_client(f"http://127.0.0.1:{running.port}") as calls:
        yield Engine(
            calls,
            routes=list(TABLE),
            born=calls.get("/genrm/door", headers=ADMIN).json(),
            hold=lambda on: void(running.put("127.0.0.1", faults={"hang": [CHAT]} if on else {})),
            kill=lambda: void(running.put("127.0.0.1", faults={"status": {"/health": 503}})),
        )


@pytest.fixture(scope="module")
def vllm(engine_python: Path, tiny_judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    work = tmp_path_factory.mktemp("vllm")
    (work / "genrm_test_probe.py").write_text(PROBE)
    port = client.free_port()
    launcher = Path(genrm_door.__file__).with_name("launcher.py")
    arguments = ["--model", str(tiny_judge), "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--max-model-len", "8192", "--enforce-eager", "--middleware", "genrm_test_probe.Probe"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(work),
        "GENRM_TEST_ROUTES": str(work / "routes.json"),
        "GENRM_TOKEN_SHA256": DIGEST,
        "GENRM_REVISION": REVISION,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # for `long`: a tiny model writes thousands of tokens a second
    }
    with (work / "vllm.log").open("wb") as log:
        process = subprocess.Popen(
            [engine_python, launcher, "--engine", "vllm", "--", *arguments],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with http_client(f"http://127.0.0.1:{port}") as calls:

            def healthy() -> bool:
                assert process.poll() is None, (work / "vllm.log").read_text()[-4000:]
                try:
                    return calls.get("/health").status_code == 200
                except httpx.TransportError:
                    time.sleep(0.2)  # nobody listens yet; `until` holds the deadline
                    return False

            began = time.monotonic()
            until(healthy, START_SECONDS)
            print(f"vLLM ready after {time.monotonic() - began:.0f} s")
            rows = json.loads((work / "routes.json").read_text())
            yield Engine(
                calls,
                routes=[(method, path) for path, methods in rows for method in methods],
                born=calls.get("/genrm/door", headers=ADMIN).json(),
                hold=lambda on: None,
                kill=lambda: kill_engine_core(process.pid),
            )
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(20)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait(20)


@pytest.fixture(scope="module", params=["simulator", "vllm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def background() -> Iterator[Callable[..., Future[httpx.Response]]]:
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


def http_client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=180, trust_env=False, verify=False)


def void(_: object) -> None:
    """For callbacks that return something nobody wants."""


def kill_engine_core(server: int) -> None:
    """vLLM computes in a child of the API server; take it away."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in children}
    (core,) = [pid for pid, name in names.items() if "EngineCore" in name]
    os.kill(core, signal.SIGKILL)


def test_it_is_born_closed(engine: Engine) -> None:
    born = engine.born
    assert born.pop("bootId") and born.pop("startedAt")
    assert born == {
        "version": 1,
        "state": "closed",
        "inside": 0,
        "engine": "vllm",
        "revision": REVISION,
        "asleep": False,
        "lastRequestAt": None,
        "served": 0,
        "ledger": [],
    }


def test_a_night_and_a_morning(engine: Engine) -> None:
    """The whole cycle as the operator drives it: every status, every state, the engine's word, the metrics."""
    chat: Callable[[], httpx.Response] = lambda: engine.http.post(CHAT, json=verdict())  # noqa: E731
    awake, asleep = (
        {"awake": 1.0, "weights_offloaded": 0.0, "discard_all": 0.0},
        {"awake": 0.0, "weights_offloaded": 1.0, "discard_all": 0.0},
    )
    engine.serve()
    steps: list[tuple[str, Callable[[], httpx.Response], int, str, bool, dict[str, float]]] = [
        ("score", chat, 200, "serving", False, awake),
        ("sleep while serving", lambda: engine.admin("/sleep?level=1"), 409, "serving", False, awake),
        ("asleep while serving", lambda: engine.put("asleep"), 409, "serving", False, awake),
        ("drain", lambda: engine.put("draining"), 200, "draining", False, awake),
        ("score while draining", chat, 503, "draining", False, awake),
        ("sleep at no known level", lambda: engine.admin("/sleep?level=7"), 400, "draining", False, awake),
        ("sleep in no known mode", lambda: engine.admin("/sleep?mode=x"), 400, "draining", False, awake),
        ("sleep", lambda: engine.admin("/sleep?level=1"), 200, "draining", True, asleep),
        ("asleep", lambda: engine.put("asleep"), 200, "asleep", True, asleep),
        ("score while asleep", chat, 503, "asleep", True, asleep),
        ("sleep again", lambda: engine.admin("/sleep?level=1"), 200, "asleep", True, asleep),
        ("serve a sleeper", lambda: engine.put("serving"), 409, "asleep", True, asleep),
        ("health", lambda: engine.http.get("/health"), 200, "asleep", True, asleep),
        ("models", lambda: engine.http.get("/v1/models"), 200, "asleep", True, asleep),
        ("version", lambda: engine.http.get("/version"), 200, "asleep", True, asleep),
        ("reset prefix cache", lambda: engine.admin("/reset_prefix_cache"), 200, "asleep", True, asleep),
        ("wake", lambda: engine.admin("/wake_up"), 200, "asleep", False, awake),
        ("score before the door opens", chat, 503, "asleep", False, awake),
        ("wake again", lambda: engine.admin("/wake_up"), 200, "asleep", False, awake),
        ("serve", lambda: engine.put("serving"), 200, "serving", False, awake),
        ("score again", chat, 200, "serving", False, awake),
    ]
    for name, act, status, state, word, metrics in steps:
        began = time.monotonic()
        answer = act()
        seconds = time.monotonic() - began
        document = engine.document()
        seen = (answer.status_code, document["state"], document["asleep"], engine.sleep_state())
        assert seen == (status, state, word, metrics), f"{name}: {answer.text}"
        if status == 503:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["state"] == state
            assert seconds < 1, "refused at once, not after the engine was asked"
        if name.startswith("score") and status == 200:
            assert answer.headers["genrm-revision"] == REVISION
            assert answer.headers["genrm-boot-id"] == document["bootId"]
            assert answer.json()["choices"][0]["message"]["content"] in ("True", "False")
            assert answer.json()["choices"][0]["finish_reason"] == "stop"


def test_the_shapes_of_answers_and_errors(engine: Engine) -> None:
    engine.serve()
    assert engine.http.get("/v1/models").json()["data"][0]["id"] == MODEL
    assert set(engine.http.get("/version").json()) == {"version"}
    assert engine.http.get("/is_sleeping", headers=ADMIN).json() == {"is_sleeping": False}
    assert engine.admin("/wake_up").json() == {"status": "awake", "tags": None}
    answer = engine.http.post(CHAT, json=question()).json()
    assert answer["object"] == "chat.completion"
    assert set(answer["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    bad = {
        404: engine.http.post(CHAT, json=question() | {"model": "nobody"}),
        400: engine.http.post(CHAT, json={"model": MODEL}),
    }
    for status, refused in bad.items():
        assert refused.status_code == status
        assert refused.json()["error"]["code"] == status
    tokens = engine.http.post("/tokenize", json={"model": MODEL, "prompt": "judge"})
    assert tokens.json()["count"] == len(tokens.json()["tokens"])


def test_a_stream_comes_through(engine: Engine) -> None:
    engine.serve()
    with engine.http.stream("POST", CHAT, json=question(stream=True)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["genrm-boot-id"] == engine.document()["bootId"]
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) >= 3


def test_metric_names_and_labels(engine: Engine) -> None:
    engine.serve()
    engine.http.post(CHAT, json=verdict())
    engine.sleep()
    engine.serve()
    seen = {(name, tuple(sorted(labels))) for name, labels, _ in engine.metrics()}
    assert seen >= METRICS


def test_draining_lets_four_finish_and_turns_the_fifth_away(
    engine: Engine, background: Callable[..., Future[httpx.Response]]
) -> None:
    engine.serve()
    engine.hold(True)
    four = [background(engine.http.post, CHAT, json=long(f"drain {i}")) for i in range(4)]
    until(lambda: engine.document()["inside"] == 4)
    assert engine.put("draining").json()["inside"] == 4
    assert engine.http.post(CHAT, json=verdict()).status_code == 503
    engine.hold(False)
    assert [f.result(180).json()["choices"][0]["finish_reason"] for f in four] == ["length"] * 4
    until(lambda: engine.document()["inside"] == 0)
    engine.sleep()
    assert engine.http.post(CHAT, json=verdict()).status_code == 503
    engine.serve()
    assert engine.http.post(CHAT, json=verdict()).status_code == 200


def test_an_aborting_sleep_answers_those_inside_with_200_and_the_reason_abort(
    engine: Engine, background: Callable[..., Future[httpx.Response]]
) -> None:
    """The trap for clients: status 200 with text cut off anywhere. Only the finish reason tells."""
    engine.serve()
    engine.hold(True)
    two = [background(engine.http.post, CHAT, json=long(f"abort {i}")) for i in range(2)]
    until(lambda: engine.document()["inside"] == 2)
    engine.put("draining")
    assert engine.admin("/sleep?level=1&mode=abort").status_code == 200
    assert [(f.result(20).status_code, f.result().json()["choices"][0]["finish_reason"]) for f in two] == [
        (200, "abort")
    ] * 2
    until(lambda: engine.document()["inside"] == 0)
    engine.hold(False)
    engine.serve()


def test_a_waiting_sleep_lets_those_inside_finish(
    engine: Engine, background: Callable[..., Future[httpx.Response]]
) -> None:
    engine.serve()
    engine.hold(True)
    two = [background(engine.http.post, CHAT, json=long(f"wait {i}")) for i in range(2)]
    until(lambda: engine.document()["inside"] == 2)
    engine.put("draining")
    sleeping = background(engine.admin, "/sleep?level=1&mode=wait")
    until(lambda: "POST /sleep?level=1&mode=wait" in [e["call"] for e in engine.document()["ledger"]])
    engine.hold(False)
    assert [f.result(180).json()["choices"][0]["finish_reason"] for f in two] == ["length"] * 2
    assert sleeping.result(20).json() == {"status": "sleeping", "level": 1}
    engine.serve()


def test_a_request_that_reaches_a_sleeping_engine_hangs_until_it_wakes(
    engine: Engine, background: Callable[..., Future[httpx.Response]]
) -> None:
    """Why the door exists. Only the operator can do this to himself, through the closed door."""
    engine.serve()
    engine.put("closed")
    assert engine.admin("/sleep?level=1").status_code == 200
    assert engine.http.post(CHAT, json=verdict()).status_code == 503
    hanging = background(engine.http.post, CHAT, json=verdict(), headers=ADMIN)
    until(lambda: engine.document()["inside"] == 1)
    with pytest.raises(httpx.ReadTimeout):
        engine.http.post(CHAT, json=verdict(), headers=ADMIN, timeout=2)
    assert not hanging.done()
    assert engine.http.get("/health").status_code == 200
    assert engine.admin("/wake_up").status_code == 200
    assert hanging.result(20).json()["choices"][0]["finish_reason"] == "stop"
    until(lambda: engine.document()["inside"] == 0)


def test_the_operator_scores_through_the_closed_door_and_nobody_else(engine: Engine) -> None:
    engine.serve()
    engine.put("closed")
    before = engine.document()
    assert engine.http.post(CHAT, json=verdict()).status_code == 503
    assert engine.http.post(CHAT, json=verdict(), headers={"Authorization": "Bearer x"}).status_code == 503
    assert engine.http.post(CHAT, json=verdict(), headers=ADMIN).status_code == 200
    after = engine.document()
    assert (after["served"], after["lastRequestAt"]) == (before["served"], before["lastRequestAt"])


def test_a_client_that_hangs_up_is_counted_out(
    engine: Engine, background: Callable[..., Future[httpx.Response]]
) -> None:
    engine.serve()
    engine.hold(True)
    served = engine.document()["served"]
    with pytest.raises(httpx.ReadTimeout):
        engine.http.post(CHAT, json=long("hang up"), timeout=1)
    until(lambda: engine.document()["inside"] == 0)
    engine.hold(False)
    assert engine.document()["served"] == served + 1


def test_every_route_of_the_running_server_by_token_and_state(engine: Engine) -> None:
    """Attack what is there, not what we think is there: the routes come from the running application."""
    bodies = {CHAT: verdict(), "/v1/completions": {"model": MODEL, "prompt": "x", "max_tokens": 2}}
    tokens = {"none": {}, "wrong": {"Authorization": "Bearer guess"}, "operator": ADMIN}
    seen: dict[tuple[str, str], list[str]] = {}
    wrong: list[str] = []
    for state, bring in (("serving", engine.serve), ("asleep", engine.sleep)):
        for method, path in sorted({*engine.routes, *TABLE}):
            kind = TABLE.get((method, path))
            for who, headers in tokens.items():
                bring()
                concrete = path.replace("{response_id}", "x")
                body = {"state": state} if path == "/genrm/door" else bodies.get(path, {})
                answer = engine.http.request(method, concrete, json=None if method == "GET" else body, headers=headers)
                seen.setdefault((method, path), []).append(str(answer.status_code))
                if not _allowed(kind, path, state, who, answer):
                    wrong.append(f"{state} {who} {method} {path}: {answer.status_code} {answer.text[:80]}")
    print(f"\n{'route':<46} {'kind':<12} serving: none wrong operator | asleep: none wrong operator")
    for (method, path), statuses in seen.items():
        kind = TABLE.get((method, path))
        print(f"{method + ' ' + path:<46} {kind.value if kind else 'unlisted':<12} {' '.join(statuses)}")
    assert wrong == []
    engine.serve()
    assert engine.http.post(CHAT, json=verdict()).status_code == 200


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_spellings_find_nothing(engine: Engine, target: str) -> None:
    for headers in ({}, {"Authorization": "Bearer guess"}, ADMIN):
        for method in ("GET", "POST"):
            status, body = raw(engine, method, target, headers)
            # A request line that is none is refused by the server itself, before any application.
            assert (status, body) == (404, NOT_FOUND) or status == 400


def test_hostile_requests_find_nothing(engine: Engine) -> None:
    host = f"{engine.http.base_url.host}:{engine.http.base_url.port}"
    assert raw(engine, "POST", f"http://{host}/sleep", {}) == (404, NOT_FOUND)
    twice = httpx.Headers([("Authorization", ADMIN["Authorization"])] * 2)
    answer = engine.http.get("/is_sleeping", headers=twice)
    assert (answer.status_code, answer.content) == (404, NOT_FOUND)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", **ADMIN}
    status, _ = raw(engine, "GET", "/v1/realtime", {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert status in (403, 404)
    assert not engine.document()["asleep"]


def raw(engine: Engine, method: str, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a request line as it is written here; httpx would tidy it up."""
    url = engine.http.base_url
    connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=20)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _allowed(kind: Kind | None, path: str, state: str, who: str, answer: httpx.Response) -> bool:
    hidden = (answer.status_code, answer.content) == (404, NOT_FOUND)
    if kind is None:
        return hidden or (answer.request.method == "HEAD" and answer.status_code == 404)
    if kind in (Kind.OPEN, Kind.HEALTH):
        return answer.status_code == 200
    if kind is Kind.SCORING:
        if state == "asleep":
            return answer.status_code == 503
        return "genrm-boot-id" in answer.headers and answer.status_code == OWN_AFFAIR.get(path, 404)
    if who != "operator":
        return hidden
    return answer.status_code == (409 if kind is Kind.ADMIN_SHUT and state == "serving" else 200)


def test_a_dead_engine_is_unhealthy(engine: Engine) -> None:
    """Last, because it is final: the engine's process is killed, and the probe that kubelet asks turns."""
    engine.serve()
    engine.kill()

    began = time.monotonic()

    def unhealthy() -> bool:
        try:
            answer = engine.http.get("/health")
        except httpx.TransportError as error:  # the server took itself down
            print(f"after {time.monotonic() - began:.2f} s: {error!r}")
            return True
        if answer.status_code == 503:
            print(f"after {time.monotonic() - began:.2f} s: {answer.text}")
        return answer.status_code == 503

    until(unhealthy, 30)
