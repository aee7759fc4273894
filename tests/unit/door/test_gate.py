"""The start gate, as a process of its own: what listens on the engine's port before there is an engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from genrm_door import ROUTES, Kind
from genrm_door.launcher import listens

from tests.unit.door.stock import ADMIN, CHAT, Pod, launched

NOT_FOUND = (404, b'{"error":"not found"}')


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """For tests that leave it gated."""
    with launched(tmp_path_factory.mktemp("gated"), gated=True) as pod:
        yield pod


def raw(pod: Pod, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", pod.port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_it_lives_and_says_that_it_is_gated(gated: Pod) -> None:
    assert (gated.http.get("/health").status_code, gated.http.get("/health").json()["state"]) == (200, "gated")
    document = gated.http.get("/genrm/door", headers=ADMIN).json()
    assert document.pop("bootId") and document.pop("startedAt") and document.pop("idleSeconds") >= 0
    assert document == {
        "version": 2,
        "state": "gated",
        "inside": 0,
        "engine": "vllm",
        "revision": "rev-1",
        "weights": None,
        "device": None,
        "asleep": None,
        "memory": None,
        "night": None,
        "epoch": None,
        "terminating": False,
        "lastRequestAt": None,
        "served": 0,
        "ledger": [],
    }


@pytest.mark.parametrize("who", ["nobody", "wrong", "operator"])
def test_every_route_of_the_engine_waits_and_admin_routes_do_not_exist_for_others(gated: Pod, who: str) -> None:
    headers = {"nobody": {}, "wrong": {"Authorization": "Bearer guess"}, "operator": ADMIN}[who]
    for (method, path), kind in ROUTES["vllm"].table.items():
        answer = gated.http.request(method, path, headers=headers)
        if kind is Kind.HEALTH:
            assert answer.status_code == 200
        elif kind in (Kind.SCORING, Kind.OPEN):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        elif who != "operator" or kind is Kind.TERMINATE:
            assert (answer.status_code, answer.content) == NOT_FOUND
        elif kind is Kind.DOOR:
            assert answer.status_code == (200 if method == "GET" else 400)
        else:
            assert answer.status_code == 503


@pytest.mark.parametrize(
    "line",
    ["GET //health", "GET /Health", "GET /health/", "GET /%68ealth", "POST /health", "PATCH /genrm/door", "GET /docs",
     "GET http://pod/genrm/door", "GET /genrm/./door", "GET *", "OPTIONS *", "DELETE /genrm/door"],
)  # fmt: skip
def test_other_spellings_do_not_exist(gated: Pod, line: str) -> None:
    token = f"Authorization: {ADMIN['Authorization']}\r\n"
    answer = raw(gated, f"{line} HTTP/1.1\r\nHost: pod\r\n{token}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ") and answer.endswith(NOT_FOUND[1])


@pytest.mark.parametrize(
    "request_",
    [
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\n%b\r\nContent-Length: 18\r\n\r\n{\"state\":\"closed\"}",
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"12\r\n{\"state\":\"closed\"}\r\n0\r\n\r\n",
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nContent-Length: 99999999\r\n\r\n" + b" " * 5000,
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nContent-Length: \xb2\r\n\r\n{\"state\":\"closed\"}",
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nContent-Length: -1\r\n\r\n{\"state\":\"closed\"}",
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nContent-Length: 19\r\n\r\n{\"state\":\"serving\"}",
        b"PUT /genrm/door HTTP/1.1\r\n%b\r\nGenrm-Epoch: x\r\nContent-Length: 18\r\n\r\n{\"state\":\"closed\"}",
        b"BREW /genrm/door HTTP/1.1\r\n%b\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["two tokens", "chunked", "huge", "no digits", "negative", "serving", "epoch", "method", "noise",
         "http/2"],
)  # fmt: skip
def test_a_hostile_or_mistaken_request_releases_nothing(gated: Pod, request_: bytes) -> None:
    token = f"Authorization: {ADMIN['Authorization']}".encode()
    answer = raw(gated, request_.replace(b"%b", token))
    assert b" 200 " not in answer.split(b"\r\n")[0] and b"Python" not in answer
    assert gated.http.get("/health").json()["state"] == "gated"


def test_its_release_starts_the_engine_behind_a_door_of_the_same_boot(tmp_path: Path) -> None:
    with launched(tmp_path, gated=True) as pod:
        before = pod.http.get("/genrm/door", headers=ADMIN).json()
        released = pod.put("closed", **{"genrm-epoch": "7"})
        assert (released.status_code, released.json()["state"], released.json()["epoch"]) == (200, "closed", 7)
        assert pod.until("ready") == f"ready {pod.process.pid}", "the same process"
        assert pod.put("closed", **{"genrm-epoch": "7"}).status_code == 200, "the release may be repeated"
        document = pod.http.get("/genrm/door", headers=ADMIN).json()
        assert (document["state"], document["bootId"]) == ("closed", before["bootId"])
        assert [entry["call"] for entry in document["ledger"]] == ["PUT closed"]
        assert pod.put("serving", **{"genrm-epoch": "6"}).status_code == 409, "deposed at the gate, deposed behind it"
        assert pod.put("serving", **{"genrm-epoch": "7"}).status_code == 200
        answer = pod.http.post(CHAT, json={"seconds": 0})
        assert (answer.status_code, answer.headers["genrm-boot-id"]) == (200, before["bootId"])


def test_a_container_that_starts_again_is_gated_again_under_another_boot_id(tmp_path: Path) -> None:
    boots = set()
    for _ in range(2):
        with launched(tmp_path, gated=True) as pod:
            boots.add(pod.http.get("/genrm/door", headers=ADMIN).json()["bootId"])
    assert len(boots) == 2


def test_a_gated_pod_ends_at_once_and_is_not_released_any_more(tmp_path: Path) -> None:
    with launched(tmp_path, gated=True) as pod:
        assert pod.hook(linger=600, seconds=600).wait(20) == 0
        refused = pod.put("closed")
        assert (refused.status_code, refused.json()["error"]) == (409, "the pod is being deleted: the door stays gated")
        pod.process.terminate()
        assert pod.process.wait(10) == 143


@pytest.mark.parametrize(
    "held", [b"", b"GET /health HTTP/1.1\r\n", b"PUT /genrm/door HTTP/1.1\r\nContent-Length: 5\r\n\r\n"]
)
def test_who_never_finishes_a_request_holds_nobody_up(gated: Pod, held: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gated.port), timeout=20) as slow:
        slow.sendall(held)
        assert gated.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("engine", "args", "where"),
    [
        ("vllm", [], ("", 8000)),
        ("sglang", ["--host", "0.0.0.0"], ("", 30000)),
        ("vllm", ["--port", "9", "--port=10", "--host=127.0.0.1"], ("127.0.0.1", 10)),
        ("sglang", ["--host", "::1", "--port", "7"], ("::1", 7)),
    ],
)
def test_it_listens_where_the_engine_will(engine: str, args: list[str], where: tuple[str, int]) -> None:
    assert listens(engine, args) == where
