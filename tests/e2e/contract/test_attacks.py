"""Attacks on the door of a real engine: every route that the running server has, not every route that we know of.

All tests leave it serving; each proves at its end that nothing was changed by who may change nothing (the ledger, the
boot id), and that the engine still gives the answer that it gave at first.
"""

from __future__ import annotations

import http.client
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest
from genrm_door import Kind
from genrm_door.asgi import NOT_FOUND

from tests.e2e.contract.attacks import EQUALS, SMUGGLING, SPELLINGS
from tests.e2e.contract.engines import ADMIN, CLIENT, SAME, TEXT, Engine, until

WHO: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "wrong": {"Authorization": "Bearer guess"},
    "client": CLIENT,
    "operator": ADMIN,
}
STATES = ("serving", "asleep")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def survives(engine: Engine) -> Iterator[None]:
    """The same server, with the same answer, before and after."""
    engine.serve()
    before, said = engine.document(), engine.weight(TEXT)
    yield
    engine.serve()
    after = engine.document()
    assert (after["bootId"], after["inside"], after["asleep"]) == (before["bootId"], 0, False)
    assert engine.weight(TEXT) == pytest.approx(said, abs=SAME)


def bring(engine: Engine, state: str) -> None:
    engine.serve() if state == "serving" else engine.sleep()


@contextmanager
def nothing_changed(engine: Engine) -> Iterator[None]:
    before = engine.document()
    yield
    until(lambda: engine.document()["inside"] == 0)
    after = engine.document()
    assert {k: after[k] for k in ("state", "asleep", "memory", "ledger", "bootId")} == {
        k: before[k] for k in ("state", "asleep", "memory", "ledger", "bootId")
    }


def concrete(path: str) -> str:
    """A path with something in the place of its parameters."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


def found(engine: Engine) -> list[tuple[str, str]]:
    """Every route of the running application, and the door's own."""
    assert len(engine.routes) > 40, "the server's routes were read from the server"
    return sorted({*engine.routes, *engine.table})


def allowed(engine: Engine, path: str, state: str, who: str, answer: httpx.Response) -> bool:
    kind = engine.table.get((answer.request.method, path))
    hidden = (answer.status_code, answer.content) == (404, NOT_FOUND)
    if kind is None or kind is Kind.TERMINATE:
        return hidden or (answer.request.method == "HEAD" and answer.status_code == 404)
    if kind in (Kind.OPEN, Kind.HEALTH, Kind.SHOWN):
        return answer.status_code == 200
    if kind is Kind.SCORING:
        if who not in ("client", "operator"):
            return answer.status_code == 401
        if state == "asleep":
            return answer.status_code == 503
        expected = 200 if path == engine.dialect.scores_at else engine.dialect.empty.get(path, 404)
        return answer.status_code == expected and "genrm-boot-id" in answer.headers
    if who != "operator":
        return hidden
    if kind is Kind.ADMIN_SHUT and state == "serving":
        return answer.status_code == 409
    # SGLang's orders need a body; what has none is refused, with its reason, before it can do harm.
    return answer.status_code == 200 or (answer.status_code == 409 and engine.dialect.door != "vllm")


@pytest.mark.parametrize("state", STATES)
def test_every_route_by_who_asks(engine: Engine, state: str) -> None:
    seen: dict[tuple[str, str], list[str]] = {}
    wrong: list[str] = []
    for method, path in found(engine):
        bodies = {"/genrm/door": {"state": state}, engine.dialect.scores_at: engine.dialect.ask("x")}
        for who, headers in WHO.items():
            bring(engine, state)
            answer = engine.nobody.request(
                method, concrete(path), json=None if method == "GET" else bodies.get(path, {}), headers=headers
            )
            seen.setdefault((method, path), []).append(str(answer.status_code))
            if not allowed(engine, path, state, who, answer):
                wrong.append(f"{state} {who} {method} {path}: {answer.status_code} {answer.text[:80]}")
    print(f"\n{state:<46} {'kind':<12} {' '.join(WHO)}")
    for (method, path), statuses in seen.items():
        kind = engine.table.get((method, path))
        print(f"{method + ' ' + path:<46} {kind.value if kind else 'unlisted':<12} {' '.join(statuses)}")
    assert wrong == []


@pytest.mark.parametrize("state", STATES)
def test_no_other_spelling_of_any_route_is_a_route(engine: Engine, state: str) -> None:
    bring(engine, state)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    with nothing_changed(engine):
        for method, path in found(engine):
            for name, spell in SPELLINGS.items():
                target = spell(concrete(path))
                if (method, target) in engine.table:
                    continue
                for who, headers in WHO.items():
                    status, body = send(engine, method, target, headers)
                    seen[str(status)] += 1
                    # A request line that is none is refused by the server itself, before any application.
                    if status != 400 and (status, body) != (404, b"" if method == "HEAD" else NOT_FOUND):
                        wrong.append(f"{who} {name}: {method} {target}: {status} {body[:80]!r}")
    print(f"\n{state}: {sum(seen.values())} requests: {dict(seen)}")
    assert wrong == []


@pytest.mark.parametrize("state", STATES)
def test_two_authorizations_are_nobodys_on_every_route(engine: Engine, state: str) -> None:
    bring(engine, state)
    operator, guess = ADMIN["Authorization"], "Bearer guess"
    with nothing_changed(engine):
        for method, path in found(engine):
            for both in (
                (operator, operator),
                (operator, guess),
                (guess, operator),
                (CLIENT["Authorization"], operator),
            ):
                headers = httpx.Headers([("Authorization", one) for one in both])
                answer = engine.nobody.request(method, concrete(path), headers=headers)
                assert answer.status_code == 404, f"{method} {path}"
            # Nor are two in one header, in whatever way they are joined.
            for joined in (f"{operator}, {operator}", f"{operator},{guess}", f"{guess} {operator}", f"{operator};"):
                if engine.table.get((method, path)) in (Kind.DOOR, Kind.ADMIN, Kind.ADMIN_READ, Kind.ADMIN_SHUT):
                    answer = engine.nobody.request(method, path, headers={"Authorization": joined})
                    assert (answer.status_code, answer.content) == (404, NOT_FOUND), f"{method} {path}"


@pytest.mark.parametrize("state", STATES)
def test_what_the_server_takes_for_a_path_is_judged_like_the_path(engine: Engine, state: str) -> None:
    """It takes host, scheme and fragment away before the door sees the path, so these must not open more than it."""
    bring(engine, state)
    with nothing_changed(engine):
        for method, path in found(engine):
            kind = engine.table.get((method, path))
            for name, write in EQUALS.items():
                for who in ("none", "wrong", "client"):
                    if kind is Kind.SCORING and who == "client":
                        continue
                    status, _ = send(engine, method, write(concrete(path)), WHO[who])
                    read = 200 if kind in (Kind.OPEN, Kind.HEALTH, Kind.SHOWN) else 401 if kind is Kind.SCORING else 404
                    assert status in (read, 400, 404), f"{state} {who} {name}: {method} {path}: {status}"


@pytest.mark.parametrize("state", STATES)
def test_a_websocket_is_closed_on_every_route_to_everybody(engine: Engine, state: str) -> None:
    bring(engine, state)
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    seen: Counter[int] = Counter()
    with nothing_changed(engine):
        for path in sorted({concrete(path) for _, path in found(engine)}):
            for who, headers in WHO.items():
                status, _ = send(engine, "GET", path, {**upgrade, **headers})
                seen[status] += 1
                if status != 403:  # this server speaks no WebSockets: to it, the request is a GET like any other
                    assert status == send(engine, "GET", path, headers)[0], f"{who} {path}"
    print(f"\n{state}: {dict(seen)}")
    assert set(seen) in ({403}, {200, 404})


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SMUGGLING)
def test_nothing_is_smuggled_past_the_door(engine: Engine, name: str, state: str) -> None:
    bring(engine, state)
    orders = engine.dialect.sleep if state == "serving" else engine.dialect.wake
    words = {
        "shut": orders[0][0],
        "score": engine.dialect.scores_at,
        "open": "/health",
        "token": f"Authorization: {ADMIN['Authorization']}",
        "query": f"authorization={ADMIN['Authorization'].replace(' ', '%20')}",
        "key": f"Authorization: {CLIENT['Authorization']}",
    }
    with nothing_changed(engine):
        said = raw(engine, (SMUGGLING[name] % words).encode("latin-1"))
        statuses = re.findall(r"HTTP/1\.1 (\d{3}) ", said.decode("latin-1"))
        print(f"{name}, {state}: {' '.join(statuses) or 'closed without a word'}")
        # The open route and the operator's own look are answered; whatever hid behind was told off, or not heard.
        expected = {"a pipeline": ["200", "404"], "the token of the request before": ["200", "404"]}
        assert statuses == expected.get(name, statuses)
        assert set(statuses) <= {"200", "400", "401", "404", "413", "414", "431", "503"}


def send(engine: Engine, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Send a request line as it is written here; httpx would tidy it up. 400 where no such line can be written."""
    url = engine.nobody.base_url
    connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=20)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.InvalidURL:
        return 400, b""
    finally:
        connection.close()


def raw(engine: Engine, request: bytes) -> bytes:
    """Send these bytes; what was said until the server hung up, or had no more to say."""
    url = engine.nobody.base_url
    said = b""
    with socket.create_connection((url.host, url.port or 80), timeout=2) as connection:
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                said += part
                connection.settimeout(0.5)
        except OSError:  # it waits for more, or it hung up first
            pass
    return said
