"""The engine simulator, spoken to over real connections: the addresses of 127.0.0.0/8 are its pods."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.simulator import client
from tests.simulator.client import Simulator

TOKEN = "operator"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
Background = Callable[..., Future[httpx.Response]]
CHAT = "/v1/chat/completions"
_addresses = (f"127.0.{a}.{b}" for a, b in itertools.product(range(1, 100), range(1, 255)))


def judged(question: str = "2+2=4?", **more: Any) -> dict[str, Any]:
    choice = {"structured_outputs": {"choice": ["\\boxed{True}", "\\boxed{False}"]}}
    return {"model": "judge", "messages": [{"role": "user", "content": question}], "max_tokens": 8, **choice, **more}


class Pod:
    """One address of the simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.address = next(_addresses)
        self.http = httpx.Client(
            base_url=f"http://{self.address}:{simulator.port}", timeout=10, trust_env=False, verify=False
        )

    def state(self, state: str) -> httpx.Response:
        return self.http.put("/genrm/door", json={"state": state}, headers=ADMIN)

    def admin(self, path: str) -> httpx.Response:
        return self.http.post(path, headers=ADMIN)

    def put_to_sleep(self) -> None:
        assert self.state("draining").status_code == 200
        assert self.admin("/sleep?level=1").status_code == 200
        assert self.state("asleep").status_code == 200

    def truth(self) -> dict[str, Any]:
        return self.simulator.pod(self.address)

    def faults(self, **faults: Any) -> None:
        self.simulator.put(self.address, faults=faults)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--token-sha256", DIGEST) as simulator:
        yield simulator


@pytest.fixture
def pod(simulator: Simulator) -> Iterator[Pod]:
    pod = Pod(simulator)
    with pod.http:
        assert pod.state("serving").status_code == 200
        yield pod


@pytest.fixture
def background() -> Iterator[Background]:
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"


def test_every_address_is_a_pod_of_its_own(simulator: Simulator, pod: Pod) -> None:
    other = Pod(simulator)
    assert other.http.get("/genrm/door", headers=ADMIN).json()["state"] == "closed"
    assert pod.http.get("/genrm/door", headers=ADMIN).json()["state"] == "serving"
    assert pod.truth()["bootId"] != other.truth()["bootId"]


def test_settings_are_per_pod_and_other_settings_are_another_container(simulator: Simulator) -> None:
    pod = Pod(simulator)
    settings = {"tokenSha256": hashlib.sha256(b"its own").hexdigest(), "revision": "r7", "model": "other"}
    boot = simulator.put(pod.address, settings=settings)["bootId"]
    assert pod.http.get("/genrm/door", headers=ADMIN).status_code == 404
    document = pod.http.get("/genrm/door", headers={"Authorization": "Bearer its own"}).json()
    assert (document["revision"], document["bootId"]) == ("r7", boot)
    assert pod.http.get("/v1/models").json()["data"][0]["id"] == "other"
    assert simulator.put(pod.address, settings=settings)["bootId"] == boot
    assert simulator.put(pod.address, settings={**settings, "revision": "r8"})["bootId"] != boot


def test_a_forgotten_pod_comes_back_as_a_new_boot(simulator: Simulator, pod: Pod) -> None:
    boot = pod.truth()["bootId"]
    simulator.forget(pod.address)
    document = pod.http.get("/genrm/door", headers=ADMIN).json()
    assert document["state"] == "closed"
    assert document["bootId"] != boot


def test_the_same_question_gets_the_same_verdict_everywhere(simulator: Simulator, pod: Pod) -> None:
    other = Pod(simulator)
    other.state("serving")
    verdicts = {}
    for i in range(32):
        said = [
            p.http.post(CHAT, json=judged(f"q{i}")).json()["choices"][0]["message"]["content"] for p in (pod, other)
        ]
        assert said[0] == said[1]
        verdicts[i] = said[0]
    assert set(verdicts.values()) == {"\\boxed{True}", "\\boxed{False}"}


def test_a_stream_says_the_same(pod: Pod) -> None:
    whole = pod.http.post(CHAT, json=judged(structured_outputs=None)).json()["choices"][0]["message"]["content"]
    streamed = pod.http.post(CHAT, json=judged(structured_outputs=None, stream=True)).text
    assert streamed.endswith("data: [DONE]\n\n")
    assert streamed.count('"content"') == len(whole.split()) + 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "x", "messages": []}, 404),
        ({"model": "judge"}, 400),
        ([], 400),
    ],
)
def test_a_bad_request_is_refused_as_vllm_does(pod: Pod, body: object, status: int) -> None:
    answer = pod.http.post(CHAT, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status


def test_sleep_and_wake_show_in_metrics_and_in_the_engines_word(pod: Pod) -> None:
    def awake() -> tuple[str, bool]:
        text = pod.http.get("/metrics").text
        line = next(line for line in text.splitlines() if 'sleep_state="awake"' in line)
        return line, pod.http.get("/is_sleeping", headers=ADMIN).json()["is_sleeping"]

    name = 'vllm:engine_sleep_state{engine="0",model_name="judge",sleep_state="awake"}'
    assert awake() == (f"{name} 1.0", False)
    pod.put_to_sleep()
    assert awake() == (f"{name} 0.0", True)
    assert pod.http.post(CHAT, json=judged()).status_code == 503
    assert pod.admin("/wake_up").json() == {"status": "awake", "tags": None}
    assert awake() == (f"{name} 1.0", False)


def test_waking_some_tags_leaves_it_asleep(pod: Pod) -> None:
    pod.put_to_sleep()
    assert pod.admin("/wake_up?tags=weights").json() == {"status": "sleeping", "tags": ["weights"]}
    assert pod.truth()["asleep"]
    assert pod.admin("/wake_up?tags=kv_cache").json()["status"] == "awake"


def test_a_request_that_reaches_a_sleeping_engine_hangs_until_the_wake_and_is_a_violation(
    pod: Pod, background: Background
) -> None:
    pod.put_to_sleep()
    pod.state("closed")
    hanging = background(pod.http.post, CHAT, json=judged(), headers=ADMIN)
    until(lambda: pod.truth()["inside"] == 1)
    assert not hanging.done()
    pod.admin("/wake_up")
    assert hanging.result(10).status_code == 200
    (violation,) = pod.truth()["violations"]
    assert (violation["path"], violation["asleep"]) == (CHAT, True)
    assert pod.simulator.pods()[pod.address]["violations"] == 1


@pytest.mark.parametrize(("mode", "reason"), [("abort", "abort"), ("wait", "stop"), ("keep", "stop")])
def test_the_modes_of_sleep(pod: Pod, background: Background, mode: str, reason: str) -> None:
    pod.faults(hang=[CHAT])
    four = [background(pod.http.post, CHAT, json=judged(f"q{i}")) for i in range(4)]
    until(lambda: 'vllm:num_requests_running{engine="0",model_name="judge"} 4.0' in pod.http.get("/metrics").text)
    pod.state("draining")
    sleeping = background(pod.admin, f"/sleep?mode={mode}")
    until(lambda: pod.truth()["asleep"])
    if mode == "wait":
        assert not sleeping.done()
    else:
        assert sleeping.result(10).status_code == 200
    pod.faults()
    if mode == "keep":
        assert pod.truth()["inside"] == 4
        pod.admin("/wake_up")
    answers = [task.result(10) for task in four]
    assert [(a.status_code, a.json()["choices"][0]["finish_reason"]) for a in answers] == [(200, reason)] * 4
    assert sleeping.result(10).status_code == 200
    until(lambda: pod.truth()["inside"] == 0)


def test_a_client_that_hangs_up_leaves(pod: Pod) -> None:
    pod.faults(hang=[CHAT])
    with pytest.raises(httpx.TimeoutException):
        pod.http.post(CHAT, json=judged(), timeout=0.2)
    until(lambda: pod.truth()["inside"] == 0)
    assert pod.truth()["served"] == 1


def test_faults_a_route_that_hangs(pod: Pod) -> None:
    pod.faults(hang=["/wake_up"])
    with pytest.raises(httpx.TimeoutException):
        pod.http.post("/wake_up", headers=ADMIN, timeout=0.2)
    assert pod.http.get("/health").status_code == 200
    assert pod.admin("/wake_up").status_code == 409  # the first one is still in there
    pod.faults()
    until(lambda: pod.http.get("/genrm/door", headers=ADMIN).json()["ledger"][-1]["status"] == 200)


def test_faults_a_status_of_the_tests_choice(pod: Pod) -> None:
    pod.faults(status={"/health": 503, CHAT: 500})
    assert pod.http.get("/health").status_code == 503
    assert pod.http.post(CHAT, json=judged()).status_code == 500
    pod.faults()
    assert pod.http.get("/health").status_code == 200


def test_faults_a_lie_about_sleeping(pod: Pod) -> None:
    pod.faults(lie=True)
    assert pod.http.get("/genrm/door", headers=ADMIN).json()["asleep"] is True
    assert not pod.truth()["asleep"]


def test_faults_a_sleep_that_does_nothing(pod: Pod) -> None:
    pod.faults(deaf=["/sleep"])
    pod.state("draining")
    assert pod.admin("/sleep").json() == {"status": "sleeping", "level": 1}
    assert pod.http.get("/is_sleeping", headers=ADMIN).json() == {"is_sleeping": False}


def test_faults_slow_routes(pod: Pod) -> None:
    pod.faults(slow={"/wake_up": 0.3})
    began = time.monotonic()
    assert pod.admin("/wake_up").status_code == 200
    assert time.monotonic() - began >= 0.3


def test_an_engine_has_its_memory_from_the_beginning_of_its_wake(pod: Pod, background: Background) -> None:
    pod.put_to_sleep()
    assert not pod.truth()["up"]
    pod.faults(hang=["/wake_up"])
    woken = background(pod.admin, "/wake_up")
    until(lambda: pod.truth()["up"])
    assert pod.truth()["asleep"]
    pod.faults()
    assert woken.result().status_code == 200
    assert pod.truth()["up"] and not pod.truth()["asleep"]


def test_faults_a_pod_that_is_not_there(pod: Pod) -> None:
    pod.faults(refuse=True)
    for _ in range(2):  # a kept connection, then a new one
        with pytest.raises(httpx.TransportError):
            pod.http.get("/health")
    pod.faults()
    assert pod.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"faults": {"hangs": []}}, "unknown fault hangs"),
        ({"faults": {"slow": {"/sleep": "long"}}}, "could not convert"),
        ({"settings": {"token": "x"}}, "unknown setting token"),
        ({"settings": {"tokenSha256": "x"}}, "64 hexadecimal digits"),
        ({"fault": {}}, "fault"),
        ([], "object"),
    ],
)
def test_control_refuses_what_it_does_not_know(simulator: Simulator, body: object, sentence: str) -> None:
    answer = httpx.put(f"http://{simulator.control}/pods/127.0.0.1", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_control_speaks_of_addresses_only(simulator: Simulator) -> None:
    assert httpx.get(f"http://{simulator.control}/pods/somewhere").status_code == 400
    assert httpx.get(f"http://{simulator.control}/").status_code == 404
    assert httpx.get(f"http://{simulator.control}/pods/203.0.113.9").status_code == 404
