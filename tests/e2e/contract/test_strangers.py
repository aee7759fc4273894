"""Who has no token finds nothing, in no spelling, on no route of the running server, awake or asleep."""

from __future__ import annotations

import httpx
import pytest
from genrm_door import Kind
from genrm_door.asgi import NOT_FOUND

from tests.e2e.contract.engines import ADMIN, Engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HOSTILE = [
    "//{0}",
    "/%{1:02x}{2}",
    "/{0}/",
    "/{3}",
    "/v1/../{0}",
    "/v1/%2e%2e/{0}",
    "/{0}.",
    "/{0}%00",
    "/{0};a=b",
    "/metrics/../{0}",
    "/metrics/x",
    "/genrm%2fdoor",
    "/docs",
    "/openapi.json",
    "/collective_rpc",
    "/get_server_info",
    "*",
    "{0}",
]


def test_every_route_of_the_running_server_by_token_and_state(engine: Engine) -> None:
    """Attack what is there, not what we think is there: the routes come from the running application."""
    tokens = {"none": {}, "wrong": {"Authorization": "Bearer guess"}, "operator": ADMIN}
    seen: dict[tuple[str, str], list[str]] = {}
    wrong: list[str] = []
    for state, bring in (("serving", engine.serve), ("asleep", engine.sleep)):
        for method, path in sorted({*engine.routes, *engine.table}):
            kind = engine.table.get((method, path))
            for who, headers in tokens.items():
                bring()
                concrete = path.replace("{response_id}", "x")
                body = {"state": state} if path == "/genrm/door" else {}
                if path == engine.dialect.scores_at:
                    body = dict(engine.dialect.ask("x"))
                answer = engine.http.request(method, concrete, json=None if method == "GET" else body, headers=headers)
                seen.setdefault((method, path), []).append(str(answer.status_code))
                if not _allowed(engine, kind, path, state, who, answer):
                    wrong.append(f"{state} {who} {method} {path}: {answer.status_code} {answer.text[:80]}")
    print(f"\n{'route':<46} {'kind':<12} serving: none wrong operator | asleep: none wrong operator")
    for (method, path), statuses in seen.items():
        kind = engine.table.get((method, path))
        print(f"{method + ' ' + path:<46} {kind.value if kind else 'unlisted':<12} {' '.join(statuses)}")
    assert wrong == []
    engine.serve()
    engine.verdict()


@pytest.mark.parametrize("spelling", HOSTILE)
def test_hostile_spellings_find_nothing(engine: Engine, spelling: str) -> None:
    order = engine.dialect.sleep[-1][0].split("?")[0].strip("/")
    target = spelling.format(order, ord(order[0]), order[1:], order.capitalize())
    for headers in ({}, {"Authorization": "Bearer guess"}, ADMIN):
        for method in ("GET", "POST"):
            status, body = engine.raw(method, target, headers)
            # A request line that is none is refused by the server itself, before any application.
            assert (status, body) == (404, NOT_FOUND) or status == 400


def test_hostile_requests_find_nothing(engine: Engine) -> None:
    engine.serve()
    host = f"{engine.http.base_url.host}:{engine.http.base_url.port}"
    order = engine.dialect.sleep[-1][0].split("?")[0]
    assert engine.raw("POST", f"http://{host}{order}", {}) == (404, NOT_FOUND)
    twice = httpx.Headers([("Authorization", ADMIN["Authorization"])] * 2)
    answer = engine.http.get("/genrm/door", headers=twice)
    assert (answer.status_code, answer.content) == (404, NOT_FOUND)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", **ADMIN}
    status, _ = engine.raw("GET", "/v1/realtime", {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert status in (403, 404)
    assert not engine.document()["asleep"]


def _allowed(engine: Engine, kind: Kind | None, path: str, state: str, who: str, answer: httpx.Response) -> bool:
    hidden = (answer.status_code, answer.content) == (404, NOT_FOUND)
    if kind is None or kind is Kind.TERMINATE:
        return hidden or (answer.request.method == "HEAD" and answer.status_code == 404)
    if kind in (Kind.OPEN, Kind.HEALTH, Kind.SHOWN):
        return answer.status_code == 200
    if kind is Kind.SCORING:
        if state == "asleep":
            return answer.status_code == 503
        expected = 200 if path == engine.dialect.scores_at else engine.dialect.empty.get(path, 404)
        return "genrm-boot-id" in answer.headers and answer.status_code == expected
    if who != "operator":
        return hidden
    if kind is Kind.ADMIN_SHUT and state == "serving":
        return answer.status_code == 409
    # SGLang's orders need a body; what has none is refused before it can do harm.
    return answer.status_code == 200 or (answer.status_code == 409 and engine.dialect.door != "vllm")
