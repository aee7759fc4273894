"""Who gets through the door: routes, tokens and states."""

from __future__ import annotations

import hashlib
import json
import string
from dataclasses import replace
from urllib.parse import unquote

import pytest
from genrm_door import ROUTES, Door, Kind, Settings
from genrm_door.asgi import NOT_FOUND, Message
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.door.support import SETTINGS, TOKEN, Client, Engine

VLLM = ROUTES["vllm"]


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


WAY = {
    "closed": ["closed"],
    "serving": ["serving"],
    "draining": ["serving", "draining"],
    "asleep": ["asleep"],
}


async def bring(client: Client, state: str) -> None:
    for step in WAY[state]:
        assert (await client.put_state(step)).status == 200


def expected(kind: Kind, state: str, token: str | None) -> int:
    operator = token == TOKEN
    if kind in (Kind.OPEN, Kind.HEALTH):
        return 200
    if kind is Kind.SCORING:
        return 200 if state == "serving" or (operator and state == "closed") else 503
    if not operator or kind is Kind.TERMINATE:
        return 404
    return 409 if kind is Kind.ADMIN_SHUT and state == "serving" else 200


@pytest.mark.parametrize("token", [None, "wrong", "", TOKEN], ids=["none", "wrong", "empty", "operator"])
@pytest.mark.parametrize("state", list(WAY))
@pytest.mark.parametrize(("route", "kind"), VLLM.table.items(), ids=lambda v: " ".join(v) if type(v) is tuple else "")
async def test_every_route_by_state_and_token(
    client: Client, engine: Engine, route: tuple[str, str], kind: Kind, state: str, token: str | None
) -> None:
    await bring(client, state)
    engine.calls.clear()
    method, path = route
    body = json.dumps({"state": state}).encode() if method == "PUT" else b""
    answer = await client(method, path, token=token, body=body)
    assert answer.status == expected(kind, state, token)
    passed = answer.status == 200 and kind not in (Kind.HEALTH, Kind.DOOR)
    if kind is not Kind.HEALTH and kind is not Kind.DOOR:
        assert (f"{method} {path}" in engine.calls) == passed
    if passed:
        assert answer.header("genrm-revision") == "abc123"
        assert answer.header("genrm-boot-id") == "boot-1"
        assert answer.header("x-engine") == "yes"
    if answer.status == 404:
        assert answer.body == NOT_FOUND
        assert answer.header("genrm-boot-id") is None
    if answer.status == 503:
        assert answer.header("retry-after") == "1"
        assert answer.json()["state"] == state


@pytest.mark.parametrize("state", list(WAY))
@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("//sleep", None),
        ("/sleep/", None),
        ("/sleep.", None),
        ("/Sleep", None),
        ("/SLEEP", None),
        ("/sleep", b"/%73leep"),
        ("/v1/../sleep", None),
        ("/v1/../sleep", b"/v1/%2e%2e/sleep"),
        ("/./sleep", None),
        ("/sleep;x", None),
        ("/sleep\x00", b"/sleep%00"),
        ("/sleep ", b"/sleep%20"),
        ("/sleep\n", b"/sleep%0a"),
        ("http://pod/sleep", None),
        ("sleep", None),
        ("*", None),
        ("", b""),
        ("/", None),
        ("/v1/models", b"/v1%2fmodels"),
        ("/v1/models", b"/%761/models"),
        ("/v1/models/", None),
        ("/v1//models", None),
        ("/health/", None),
        ("//health", None),
        ("/metrics/", None),
        ("/metrics/../sleep", None),
        ("/metricsx", None),
        ("/genrm/door/", None),
        ("/genrm/Door", None),
        ("/genrm/door", b"/genrm%2fdoor"),
        ("/genrm", None),
        ("/collective_rpc", None),
        ("/update_weights", None),
        ("/server_info", None),
        ("/openapi.json", None),
        ("/docs", None),
        ("/invocations", None),
        ("/ping", None),
        ("/v1/load_lora_adapter", None),
        ("/ſleep", "/ſleep".encode()),
    ],
)
async def test_other_spellings_and_unlisted_routes_do_not_exist_for_anybody(
    client: Client, engine: Engine, path: str, raw: bytes | None, state: str
) -> None:
    await bring(client, state)
    engine.calls.clear()
    for token in (None, "wrong", TOKEN):
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            answer = await client(method, path, token=token, raw_path=raw)
            assert (answer.status, answer.body) == (404, NOT_FOUND)
    assert engine.calls == []


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get", "TRACE"]),
    raw=st.one_of(
        st.text("/.%25abcdefABCDEF0123456789sleephtv1mod_", max_size=30).map(lambda t: t.encode()),
        st.builds(
            lambda path, at, junk: (path[: at % (len(path) + 1)] + junk + path[at % (len(path) + 1) :]).encode(),
            st.sampled_from(sorted({path for _, path in VLLM.table})),
            st.integers(0, 40),
            st.sampled_from(
                ["", "/", "//", ".", "..", "%2e", "%2f", "/../", "%00", ";", "?", "#", "\\", *string.ascii_uppercase]
            ),
        ),
    ),
)
async def test_only_the_exact_bytes_of_a_listed_path_reach_the_engine(method: str, raw: bytes) -> None:
    engine = Engine()
    client = Client(Door(engine, SETTINGS))
    await client.put_state("serving")
    engine.calls.clear()
    path = unquote(raw.decode())
    answer = await client(method, path, token=TOKEN, raw_path=raw)
    listed = (method, raw.decode()) in VLLM.table
    assert (answer.status != 404) == listed
    if not listed:
        assert engine.calls == []


async def test_two_authorizations_are_nobodys(client: Client, engine: Engine) -> None:
    await bring(client, "serving")
    engine.calls.clear()
    twice = ((b"authorization", f"Bearer {TOKEN}".encode()),)
    for method, path in VLLM.table:
        answer = await client(method, path, token=TOKEN, headers=twice)
        assert (answer.status, answer.body) == (404, NOT_FOUND)
    assert engine.calls == []


@pytest.mark.parametrize(
    "header", [TOKEN, f"bearer {TOKEN}", f"Basic {TOKEN}", f"Bearer  {TOKEN}", f"Bearer {TOKEN} ", f"Bearer {TOKEN}x"]
)
async def test_the_token_is_taken_in_one_spelling(client: Client, header: str) -> None:
    assert (await client.get("/genrm/door", headers=((b"authorization", header.encode()),))).status == 404


async def test_without_a_digest_nobody_is_the_operator(engine: Engine) -> None:
    client = Client(Door(engine, Settings()))
    for token in (None, "", TOKEN, hashlib.sha256(b"").hexdigest()):
        assert (await client.get("/genrm/door", token=token)).status == 404
        assert (await client.post("/sleep", token=token)).status == 404
    assert engine.calls == []


async def test_the_digest_itself_is_no_token(client: Client) -> None:
    assert (await client.get("/genrm/door", token=SETTINGS.token_sha256)).status == 404


@pytest.mark.parametrize("state", list(WAY))
@pytest.mark.parametrize("keys", [(), ("a client's key",)], ids=["open", "keyed"])
async def test_the_operators_token_ends_at_the_door_on_every_route(
    engine: Engine, state: str, keys: tuple[str, ...]
) -> None:
    client = Client(Door(engine, replace(SETTINGS, client_key_sha256=tuple(map(sha256, keys)))))
    await bring(client, state)
    engine.scopes.clear()
    for method, path in VLLM.table:
        await client(method, path, token=TOKEN)
    assert len(engine.scopes) > 5
    assert all(b"authorization" not in dict(scope["headers"]) for scope in engine.scopes)


async def test_a_clients_own_authorization_reaches_an_engine_whose_door_knows_no_keys(
    client: Client, engine: Engine
) -> None:
    await bring(client, "serving")
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
        await client(method, path, token="the engine's affair")
        assert dict(engine.scopes[-1]["headers"])[b"authorization"] == b"Bearer the engine's affair"


async def test_the_operators_judgements_are_nobodys_demand_also_while_the_door_serves(
    client: Client, door: Door
) -> None:
    await bring(client, "serving")
    await client.post("/v1/chat/completions", token=TOKEN)
    assert (door.record.served, door.record.last_request_at) == (0, None)


async def test_an_engine_that_cannot_say_that_it_sleeps_is_not_tried_while_the_record_says_so(engine: Engine) -> None:
    """On SGLang a request to a released server is its end, the operator's as anybody's."""
    client = Client(Door(engine, replace(SETTINGS, engine="sglang")))
    for path, body in (
        ("/pause_generation", b'{"mode": "abort"}'),
        ("/release_memory_occupation", b'{"tags": ["weights"]}'),
    ):
        assert (await client.post("/generate", token=TOKEN)).status == (503 if "release" in path else 200)
        assert (await client.post(path, token=TOKEN, body=body)).status == 200
    engine.calls.clear()
    assert (await client.post("/generate", token=TOKEN)).status == 503
    assert engine.calls == []
    assert (await client.post("/resume_memory_occupation", token=TOKEN, body=body)).status == 200
    assert (await client.post("/continue_generation", token=TOKEN, body=b"{}")).status == 200
    assert (await client.post("/generate", token=TOKEN)).status == 200


# -- clients' keys


@pytest.mark.parametrize("state", list(WAY))
@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("", 401), ("wrong", 401), ("old key", 200), ("new key", 200), (TOKEN, 200)],
)
async def test_where_keys_are_set_scoring_needs_one_of_them_and_nothing_else_does(
    engine: Engine, state: str, token: str | None, status: int
) -> None:
    keyed = replace(SETTINGS, client_key_sha256=(sha256("old key"), sha256("new key")))
    client = Client(Door(engine, keyed, boot_id="boot-1"))
    await bring(client, state)
    engine.calls.clear()
    engine.scopes.clear()
    for (method, path), kind in VLLM.table.items():
        if kind is Kind.SCORING:
            answer = await client(method, path, token=token)
            assert answer.status == (401 if status == 401 else expected(kind, state, token)), path
            if answer.status == 401:
                assert answer.header("www-authenticate") == "Bearer"
                assert "state" not in answer.json(), "a stranger is told nothing"
        elif token != TOKEN and kind is not Kind.DOOR:
            answer = await client(method, path, token=token)
            assert answer.status == expected(kind, state, token), path
    if status == 401:
        assert not [call for call in engine.calls if call.startswith("POST")]
    else:
        assert all(b"authorization" not in dict(scope["headers"]) for scope in engine.scopes)


@pytest.mark.parametrize("state", list(WAY))
async def test_a_websocket_is_closed(client: Client, door: Door, engine: Engine, state: str) -> None:
    await bring(client, state)
    engine.calls.clear()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("it is not read")

    await door({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert engine.calls == []


async def test_the_lifespan_is_the_engines_own(door: Door, engine: Engine) -> None:
    async def nothing(*_: object) -> Message:
        raise AssertionError("not used")

    await door({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]
    assert engine.calls == ["lifespan"]


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"GENRM_ENGINE": "custom"}, "the door knows vllm"),
        ({"GENRM_TOKEN_SHA256": "secret"}, "64 hexadecimal digits"),
        ({"GENRM_CLIENT_KEY_SHA256": f"{'a' * 64},a client's key"}, "GENRM_CLIENT_KEY_SHA256 is no SHA-256"),
    ],
)
def test_a_door_told_nonsense_does_not_open_at_all(engine: Engine, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Door(engine, Settings.from_env(environ))


def test_settings_come_from_the_pods_environment() -> None:
    digest, key = sha256("x"), sha256("k")
    environ = {"GENRM_TOKEN_SHA256": f" {digest.upper()}\n", "GENRM_ENGINE": "vllm", "GENRM_REVISION": "r"}
    environ |= {"GENRM_CLIENT_KEY_SHA256": f" {key.upper()} ,{digest},\n"}
    assert Settings.from_env(environ) == Settings(
        token_sha256=digest, client_key_sha256=(key, digest), engine="vllm", revision="r"
    )
    assert Settings.from_env({}) == Settings()
