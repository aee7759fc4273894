"""Every test of the contract meets every engine twice: simulated, and real. One server is asked at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.e2e.contract import servers
from tests.e2e.contract.dialects import DIALECTS, MODEL
from tests.e2e.contract.engines import ADMIN, KEY, REVISION, TOKEN, Background, Engine, clients, digest
from tests.simulator import client

_ALL = [f"{kind}-{reality}" for kind in DIALECTS for reality in ("simulated", "real")]


@contextmanager
def simulated(kind: str) -> Iterator[Engine]:
    dialect = DIALECTS[kind]
    secrets = ("--token-sha256", digest(TOKEN), "--client-key-sha256", digest(KEY))
    weights = json.dumps({"revision": f"sha256:{'0' * 64}", "bytes": 1})
    arguments = (*secrets, "--revision", REVISION, "--model", MODEL, "--engine", kind, "--weights", weights)
    with client.running(*arguments) as running, clients(f"http://127.0.0.1:{running.port}") as (calls, nobody):

        def faults(**words: object) -> None:
            running.put("127.0.0.1", faults=words)

        engine = Engine(
            dialect,
            calls,
            nobody,
            routes=[],
            born=calls.get("/genrm/door", headers=ADMIN).json(),
            hold=lambda on: faults(hang=[dialect.scores_at] if on else []),
            kill=lambda: faults(status={"/health": 503, "/ping": 503}),
        )
        engine.routes = list(engine.table)
        yield engine


class Ahead:
    """Real servers, each started while the tests of the one before go on: a start keeps one core busy for a minute."""

    def __init__(self, order: Sequence[str], folder: Callable[[str], Path]) -> None:
        self._order = order
        self._folder = folder
        self._pool = ThreadPoolExecutor(1)
        self._started: dict[str, tuple[AbstractContextManager[Engine], Future[Engine]]] = {}

    def _start(self, kind: str) -> tuple[AbstractContextManager[Engine], Future[Engine]]:
        if kind not in self._started:
            server = servers.running(kind, self._folder(kind))
            self._started[kind] = server, self._pool.submit(server.__enter__)
        return self._started[kind]

    @contextmanager
    def running(self, kind: str) -> Iterator[Engine]:
        server, starting = self._start(kind)
        try:
            engine = starting.result()
            for following in self._order[self._order.index(kind) + 1 :][:1]:
                self._start(following)
            yield engine
        finally:
            if starting.exception() is None:
                server.__exit__(None, None, None)
            del self._started[kind]

    def close(self) -> None:
        """What was started and never asked for, because a test before it was the last one wanted."""
        for server, starting in self._started.values():
            if starting.exception() is None:
                server.__exit__(None, None, None)
        self._pool.shutdown()


@pytest.fixture(scope="session")
def ahead(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ahead]:
    items = (item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec"))
    params = dict.fromkeys(str(item.callspec.params["engine"]) for item in items if "engine" in item.callspec.params)
    real = [kind for kind, _, reality in (param.rpartition("-") for param in params) if reality == "real"]
    up = Ahead(real, tmp_path_factory.mktemp)
    yield up
    up.close()


@pytest.fixture(scope="session", params=_ALL)
def engine(request: pytest.FixtureRequest, ahead: Ahead) -> Iterator[Engine]:
    kind, _, reality = request.param.rpartition("-")
    with simulated(kind) if reality == "simulated" else ahead.running(kind) as up:
        yield up


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Attacks are for real engines. They have the same parameters as all here, so that each engine starts once."""
    pointless = [item for item in items if item.path.stem == "test_attacks" and "-simulated" in item.name]
    config.hook.pytest_deselected(items=pointless)
    items[:] = [item for item in items if item not in pointless]


@pytest.fixture
def background() -> Iterator[Background]:
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit
