"""`/healthz` and `/metrics`, asked over real HTTP; watches, followed by a real session against a stub API server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web
from genrm_api.names import API_VERSION, REWARD_MODELS
from genrm_operator import health
from genrm_operator.errors import ConfigurationError
from genrm_operator.handlers import configure, register
from genrm_operator.informers import INFORMED
from genrm_operator.kube import Kube
from genrm_operator.metrics import Key, Metrics
from genrm_operator.settings import Settings
from genrm_operator.watches import ATTEMPT_SECONDS, STALE_SECONDS, Watches
from genrm_operator.workqueue import WorkQueue
from kubernetes.aio import client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def serving(*checks: health.Check) -> AsyncIterator[int]:
    port = free_port()
    runner = await health.serve(port, Metrics(), checks, "127.0.0.1")
    try:
        yield port
    finally:
        await runner.cleanup()


async def until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 (what is waited for is in other people's code)
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {seconds:g} s: {what}")


# ---------------------------------------------------------------------- the server


@pytest.mark.parametrize(
    ("problems", "status", "text"),
    [((), 200, "ok\n"), (("a is broken",), 503, "a is broken\n"), (("a", "b"), 503, "a\nb\n")],
)
async def test_healthz_is_red_with_a_sentence_for_each_problem(
    problems: tuple[str, ...], status: int, text: str
) -> None:
    async with serving(lambda: problems) as port:
        assert await get(port, "/healthz") == (status, text)


async def test_metrics_are_served_beside_it() -> None:
    async with serving() as port:
        status, text = await get(port, "/metrics")
        assert status == 200 and "# TYPE genrm_reconcile_seconds histogram" in text
        assert (await get(port, "/"))[0] == 404


async def test_a_port_that_is_taken_is_named() -> None:
    async with serving() as port:
        with pytest.raises(ConfigurationError, match=f"GENRM_METRICS_PORT={port}"):
            await health.serve(port, Metrics(), (), "127.0.0.1")


# ---------------------------------------------------------------------- what is checked


async def test_a_reconciler_that_ended_is_red_and_says_why() -> None:
    async def fail() -> None:
        raise RuntimeError("no more")

    assert not list(health.reconciler_lives(lambda: None)()), "it has not begun"
    for work, expected in ((asyncio.sleep(60), []), (fail(), ["the reconciler has ended: RuntimeError('no more')"])):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        assert list(health.reconciler_lives(lambda of=task: of)()) == expected
        task.cancel()


async def test_a_look_that_never_ends_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STUCK_LOOK_SECONDS", 0.05)
    queue: WorkQueue[Key] = WorkQueue()
    check = health.queue_moves(queue)
    queue.add(("rl", "judge"))
    await queue.get()
    assert not list(check())
    await asyncio.sleep(0.06)
    assert list(check()) == ["a look at reward model rl/judge has taken 0 s so far"]
    queue.done(("rl", "judge"))
    assert not list(check())


async def test_a_queue_that_nobody_drains_is_red_only_if_somebody_could(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STUCK_QUEUE_SECONDS", 0.05)
    queue: WorkQueue[Key] = WorkQueue()
    queue._ready_since["rl", "judge"] = asyncio.get_running_loop().time() - 1
    check = health.queue_moves(queue)
    assert not list(check()), "nobody works here: a candidate that stands by"
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert "rl/judge has waited 1 s for a look while a worker was idle" in next(iter(check()))
    worker.cancel()


# ---------------------------------------------------------------------- watches


FOLLOWED = {REWARD_MODELS, *(what.plural for what in INFORMED)}
DISCOVERED = (
    (API_VERSION, REWARD_MODELS),
    ("v1", "namespaces"),  # these two Kopf wants to see, though it is told not to watch them
    ("apiextensions.k8s.io/v1", "customresourcedefinitions"),
)


@dataclass
class StubApi:
    """Answers discovery, empty lists, and watches that say what the test lets them say."""

    status: int = 200
    opened: list[str] = field(default_factory=list)
    selected: dict[str, str | None] = field(default_factory=dict)
    say: asyncio.Event = field(default_factory=asyncio.Event)
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"kind": "Status", "code": self.status, "message": "no"}, status=self.status)
        if request.query.get("watch") != "true":
            return web.json_response(self._document(request.path))
        response = web.StreamResponse()
        await response.prepare(request)
        self.opened.append(request.path)
        self.selected[request.path.rpartition("/")[2]] = request.query.get("labelSelector")
        while not self.hang_up.is_set():
            if self.say.is_set():
                self.say.clear()
                bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
                await response.write(json.dumps(bookmark).encode() + b"\n")
            await asyncio.sleep(0.01)
        return response

    @staticmethod
    def _document(path: str) -> dict[str, object]:
        verbs = ["list", "watch", "patch"]
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            versions = {group for group, _ in DISCOVERED if "/" in group}
            return {
                "groups": [
                    {"name": group, "preferredVersion": {"version": version}, "versions": [{"version": version}]}
                    for group, version in (v.split("/") for v in versions)
                ]
            }
        if path.count("/") == 2 + path.startswith("/apis"):
            group = path.removeprefix("/apis/").removeprefix("/api/")
            return {
                "resources": [
                    {"name": plural, "singularName": "", "kind": plural.title(), "namespaced": True, "verbs": verbs}
                    for of, plural in DISCOVERED
                    if of == group
                ]
            }
        return {"metadata": {"resourceVersion": "1"}, "items": []}


@pytest.fixture
async def api() -> AsyncIterator[StubApi]:
    stub, port = StubApi(), free_port()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    stub.url = f"http://127.0.0.1:{port}"
    yield stub
    stub.hang_up.set()
    await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Ear:
    """A watch through the session that Kopf would get."""

    watches: Watches
    clock: Clock
    session: aiohttp.ClientSession

    async def open(self, url: str) -> aiohttp.ClientResponse:
        return await self.session.get(url)

    def silence(self, resource: str, namespace: str = "") -> float:
        return self.watches.silences()[resource, namespace]


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    clock = Clock()
    watches = Watches(clock)
    session = watches.session(kopf.ConnectionInfo(server="http://unused")).aiohttp_session
    async with session:
        yield Ear(watches, clock, session)


async def test_a_watch_is_heard_by_opening_and_by_every_byte(api: StubApi, ear: Ear) -> None:
    ear.watches.expect(["pods"], [])
    ear.clock.now += 100
    assert ear.silence("pods") == 100, "its silence counts from when it was expected"
    answer = await ear.open(f"{api.url}/api/v1/pods?watch=true")
    assert ear.silence("pods") == 0
    ear.clock.now += 60
    assert ear.silence("pods") == 60, "an open connection alone is no sign of life"
    api.say.set()
    await until(lambda: ear.silence("pods") == 0, "the bookmark is noticed")
    ear.clock.now += 60
    assert ear.silence("pods") == 60
    answer.close()


async def test_watches_of_namespaces_and_groups_are_kept_apart(api: StubApi, ear: Ear) -> None:
    ear.watches.expect(["pods", "rewardmodels"], ["a", "b"])
    ear.clock.now += 10
    one = await ear.open(f"{api.url}/api/v1/namespaces/a/pods?watch=true")
    two = await ear.open(f"{api.url}/apis/genrm.dev/v1alpha1/namespaces/b/rewardmodels?watch=true&labelSelector=x")
    expected = {("pods", "a"): 0, ("pods", "b"): 10, ("rewardmodels", "a"): 10, ("rewardmodels", "b"): 0}
    assert ear.watches.silences() == expected
    one.close()
    two.close()


async def test_a_list_is_no_watch(api: StubApi, ear: Ear) -> None:
    ear.watches.expect(["pods"], [])
    ear.clock.now += 10
    (await ear.open(f"{api.url}/api/v1/pods")).close()
    assert ear.silence("pods") == 10


async def test_a_list_is_told_of_where_a_watch_did_not_go_on(api: StubApi, ear: Ear) -> None:
    ear.watches.expect(["pods", "leases"], [])
    (await ear.open(f"{api.url}/api/v1/pods?limit=100")).close()
    assert ear.watches.listed_again.empty(), "each watch begins with one"
    (await ear.open(f"{api.url}/api/v1/pods?watch=true")).close()
    api.status = 503
    (await ear.open(f"{api.url}/api/v1/pods?limit=100")).close()
    assert ear.watches.listed_again.empty(), "it was refused"
    api.status = 200
    for page in ("limit=100", "limit=100&continue=x", "limit=100&continue=y"):
        (await ear.open(f"{api.url}/api/v1/pods?{page}")).close()
    assert ear.watches.listed_again.get_nowait() == ("pods", "") and ear.watches.listed_again.empty(), "once"


def test_an_informer_says_itself_what_it_hears() -> None:
    watches = Watches(clock := Clock())
    watches.expect(["pods"], ["a"])
    clock.now += STALE_SECONDS + 1
    assert watches.problems(), "not even opened"
    watches.failed(("pods", "a"), "HTTP 403")
    assert not watches.problems(), "it is tried again"
    clock.now += ATTEMPT_SECONDS
    assert "in a has told nothing" in watches.problems()[0] and "HTTP 403" in watches.problems()[0]
    watches.heard(("pods", "a"))
    assert not watches.problems() and watches.silences() == {("pods", "a"): 0}


async def test_a_deaf_watch_is_red_unless_somebody_tries_to_open_it(api: StubApi, ear: Ear) -> None:
    answer = await ear.open(f"{api.url}/apis/coordination.k8s.io/v1/leases?watch=true")
    ear.clock.now += STALE_SECONDS
    assert not ear.watches.problems()
    ear.clock.now += 1
    (sentence,) = ear.watches.problems()
    assert sentence == f"the watch of leases in all namespaces has told nothing for {STALE_SECONDS + 1:.0f} s"
    api.status = 503
    (await ear.open(f"{api.url}/apis/coordination.k8s.io/v1/leases?watch=true")).close()
    assert not ear.watches.problems(), "a restart does not cure an API server that is away"
    assert ear.silence("leases") == STALE_SECONDS + 1, "the metric says all the same that we are deaf"
    ear.clock.now += ATTEMPT_SECONDS
    assert "the last attempt ended with HTTP 503" in ear.watches.problems()[0], "Kopf has given up"
    with pytest.raises(aiohttp.ClientConnectionError):
        await ear.open(f"http://127.0.0.1:{free_port()}/apis/coordination.k8s.io/v1/leases?watch=true")
    assert not ear.watches.problems()
    answer.close()


def test_kopf_takes_two_sessions_of_one_login_for_the_same_credentials() -> None:
    """Else a login that the API server refuses would be tried again without end."""

    async def sessions() -> Iterable[tuple[kopf.AiohttpSession, kopf.AiohttpSession]]:
        watches = Watches(Clock())
        logins = [kopf.ConnectionInfo(server="http://x", token=token) for token in ("a", "a", "b")]
        made = [watches.session(login) for login in logins]
        for one in made:
            await one.aiohttp_session.close()
        return [(made[0], made[1]), (made[1], made[2])]

    same, different = asyncio.run(sessions())  # type: ignore[misc]
    assert same[0] == same[1] and different[0] != different[1]


# ---------------------------------------------------------------------- all of it, in Kopf


def test_kopf_asks_again_for_as_long_as_an_api_server_is_away_and_soon_when_it_is_back() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    pauses = settings.networking.error_backoffs
    assert isinstance(pauses, Iterable)
    for _ in range(2):  # each request begins with short ones
        first, *others = itertools.islice(pauses, 1000)
        assert first < 0.5 and len(others) == 999 and max(others) <= 5


async def test_the_operator_watches_through_our_session_and_serves_its_health(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": api.url}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(config))  # Kopf's login reads it; the other client has done so when imported

    async def connect(metrics: Metrics) -> Kube:
        return Kube(client.ApiClient(client.Configuration(host=api.url)), metrics=metrics)

    monkeypatch.setattr(Kube, "connect", connect)
    registry, port, stop = kopf.OperatorRegistry(), free_port(), asyncio.Event()
    register(registry, Settings(master_key=b"k" * 32, metrics_port=port))
    operator = asyncio.create_task(
        kopf.operator(registry=registry, standalone=True, clusterwide=True, stop_flag=stop, ready_flag=asyncio.Event())
    )
    try:
        await until(lambda: len(set(api.opened)) == len(FOLLOWED), "every watch is open")
        assert api.selected.pop("rewardmodels") is None
        assert set(api.selected.values()) == {"genrm.dev/reward-model"}, "not every pod and Lease of the cluster"
        assert await get(port, "/healthz") == (200, "ok\n")
        _, text = await get(port, "/metrics")
        for plural in FOLLOWED:
            assert f'genrm_watch_silence_seconds{{namespace="",resource="{plural}"}} 0.' in text
        assert "genrm_leader 1.0" in text and "genrm_queue_depth 0.0" in text
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await operator
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(port, "/healthz")
