"""A pod that is being deleted loses nobody's request: real containers' processes, the real hook, clients that hurry."""

from __future__ import annotations

import http.client
import json
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.unit.door.stock import ADMIN, CHAT, Pod, launched


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with launched(tmp_path) as running:
        assert running.put("serving").status_code == 200
        yield running


@pytest.fixture
def background() -> Iterator[Callable[..., Future[httpx.Response]]]:
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"


def judge(pod: Pod, seconds: float) -> httpx.Response:
    return pod.http.post(CHAT, json={"seconds": seconds})


def inside(pod: Pod) -> int:
    return int(pod.http.get("/genrm/door", headers=ADMIN).json()["inside"])


class Client(threading.Thread):
    """Scores without a pause over one kept connection, to whom the Service names when it opens one."""

    def __init__(self, service: list[Pod], stop: threading.Event, seen: Counter[str]) -> None:
        super().__init__()
        self.service, self.stop, self.seen = service, stop, seen

    def run(self) -> None:
        dice = random.Random(self.name)
        connection: http.client.HTTPConnection | None = None
        while not self.stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", dice.choice(self.service).port, timeout=20)
                connection.request("POST", CHAT, json.dumps({"seconds": dice.random() / 20}))
                answer = connection.getresponse()
                answer.read()
                self.seen[str(answer.status)] += 1
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.seen[repr(error)] += 1
                connection = None


def test_clients_of_a_service_see_nothing_of_a_pod_that_is_deleted(tmp_path: Path) -> None:
    """As the cluster does it: the hook runs, the pod leaves the Service a moment later, then SIGTERM, at once final."""
    with launched(tmp_path / "a") as leaving, launched(tmp_path / "b") as staying:
        for pod in (leaving, staying):
            assert pod.put("serving").status_code == 200
        service, stop, seen = [leaving, staying], threading.Event(), Counter[str]()
        clients = [Client(service, stop, seen) for _ in range(8)]
        for client in clients:
            client.start()
        try:
            until(lambda: seen["200"] > 50)
            hook = leaving.hook(linger=2.0)
            until(lambda: bool(leaving.http.get("/genrm/door", headers=ADMIN).json()["terminating"]))
            service.remove(leaving)
            assert hook.wait(20) == 0
            leaving.process.terminate()
            assert leaving.process.wait(10) == 0
            after = seen["200"]
            until(lambda: seen["200"] > after + 50)
        finally:
            stop.set()
            for client in clients:
                client.join(20)
    assert set(seen) == {"200"}


def test_who_is_inside_finishes_and_who_comes_late_is_sent_elsewhere_over_another_connection(
    pod: Pod, background: Callable[..., Future[httpx.Response]]
) -> None:
    long = [background(judge, pod, 1.5) for _ in range(3)]
    until(lambda: inside(pod) == 3)
    hook = pod.hook()
    until(lambda: pod.http.get("/genrm/door", headers=ADMIN).json()["state"] == "draining")
    late = judge(pod, 0)
    assert (late.status_code, late.headers["connection"], late.json()["state"]) == (503, "close", "draining")
    assert hook.poll() is None
    assert [answer.result(20).status_code for answer in long] == [200] * 3
    assert hook.wait(20) == 0


def test_who_is_refused_while_still_sending_gets_the_answer_and_no_reset(
    pod: Pod, background: Callable[..., Future[httpx.Response]]
) -> None:
    long = background(judge, pod, 1.5)
    until(lambda: inside(pod) == 1)
    hook = pod.hook()
    until(lambda: pod.http.get("/genrm/door", headers=ADMIN).json()["state"] == "draining")
    connection, body = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=20), b'{"seconds": 0}'
    connection.putrequest("POST", CHAT)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    assert not select.select([connection.sock], [], [], 0.2)[0], "it waits for the rest"
    connection.send(body)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (503, "close")
    assert long.result(20).status_code == 200 and hook.wait(20) == 0


def test_a_pod_that_ends_never_serves_again_whatever_the_operator_orders(pod: Pod) -> None:
    assert pod.hook().wait(20) == 0
    refused = pod.put("serving")
    assert (refused.status_code, refused.json()["error"]) == (
        409,
        "the pod is being deleted: the door stays draining",
    )
    assert pod.put("closed").status_code == 200
    assert pod.put("serving").status_code == 409
    calls = [entry["call"] for entry in pod.http.get("/genrm/door", headers=ADMIN).json()["ledger"]]
    assert calls == ["PUT serving", "terminate", "terminate: draining", "PUT closed"]


def test_the_hook_gives_up_at_its_deadline_and_says_who_is_left(
    pod: Pod, background: Callable[..., Future[httpx.Response]]
) -> None:
    answer = background(judge, pod, 2.0)
    until(lambda: inside(pod) == 1)
    hook = pod.hook(seconds=0.3)
    assert hook.wait(20) == 1
    assert hook.stderr is not None
    assert hook.stderr.read() == "genrm: 1 requests were still inside after 0.3 s\n"
    assert answer.result(20).status_code == 200


def test_a_dead_engine_is_not_waited_for(pod: Pod, background: Callable[..., Future[httpx.Response]]) -> None:
    """Its clients will not be answered, and the kubelet is about to start it anew."""
    answer = background(judge, pod, 600.0)
    until(lambda: inside(pod) == 1)
    assert pod.http.post("/reset_prefix_cache", headers=ADMIN).status_code == 200  # kills this engine
    assert pod.http.get("/health").status_code == 503
    hook = pod.hook(seconds=600)
    assert hook.wait(30) == 1
    assert hook.stderr is not None
    assert "the engine is dead" in hook.stderr.read()
    pod.process.kill()
    assert isinstance(answer.exception(20), httpx.TransportError)


@pytest.mark.parametrize("state", ["closed", "draining", "asleep"])
def test_a_pod_that_does_not_serve_does_not_linger(pod: Pod, state: str) -> None:
    assert pod.put("draining").status_code == 200
    assert pod.put(state).status_code == 200
    assert pod.hook(linger=600).wait(20) == 0


def test_a_container_without_an_engine_is_let_go_at_once(pod: Pod) -> None:
    pod.process.kill()
    pod.process.wait(10)
    assert pod.hook(linger=600).wait(20) == 0


def test_nobody_but_the_pods_own_hook_ends_it(pod: Pod) -> None:
    """Loopback proves nothing: a sidecar and every pod with `hostNetwork` have it too."""
    secret = pod.secret()
    for authorization in (None, "Bearer guess", ADMIN["Authorization"], secret, f"bearer {secret}", f"Basic {secret}"):
        headers = {} if authorization is None else {"Authorization": authorization}
        for path in ("/genrm/terminate", "/genrm/terminate?admit=1", "/genrm/terminate/"):
            answer = pod.http.post(path, headers=headers)
            assert (answer.status_code, answer.content) == (404, b'{"error":"not found"}')
    assert pod.http.get("/genrm/door", headers=ADMIN).json()["terminating"] is False
    # Nor is the secret good for anything else.
    own = {"Authorization": f"Bearer {secret}"}
    for method, path in (("GET", "/genrm/door"), ("PUT", "/genrm/door"), ("POST", "/sleep"), ("GET", "/is_sleeping")):
        assert pod.http.request(method, path, headers=own, json={"state": "closed"}).status_code == 404


def test_the_secret_is_new_with_every_start_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    secrets = set()
    for _ in range(2):
        with launched(tmp_path) as pod:
            secrets.add(pod.secret())
            assert [file.name for file in (tmp_path / "run").iterdir()] == ["secret"]
            assert (tmp_path / "run" / "secret").stat().st_mode & 0o777 == 0o600
            assert Path(f"/proc/{pod.process.pid}/environ").read_text().find(pod.secret()) == -1
    assert len(secrets) == 2
