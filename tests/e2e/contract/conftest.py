"""Every test of the contract meets every engine twice: simulated, and real. One server is up at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.contract import servers
from tests.e2e.contract.dialects import DIALECTS, MODEL
from tests.e2e.contract.engines import ADMIN, KEY, REVISION, TOKEN, Background, Engine, clients, digest
from tests.simulator import client

_SECOND = {"vllm-pooling", "sglang-embedding"}
"""The same servers with another runner: real in pods in `make test` (`test_engines`), and here in `make proof`."""
_ALL = [
    pytest.param(f"{kind}-{reality}", marks=[pytest.mark.proof] if kind in _SECOND and reality == "real" else [])
    for kind in DIALECTS
    for reality in ("simulated", "real")
]


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
            alone=lambda: not running.pod("127.0.0.1")["up"],
        )
        engine.routes = list(engine.table)
        yield engine


@pytest.fixture(scope="session", params=_ALL)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kind, _, reality = request.param.rpartition("-")
    work: Path = tmp_path_factory.mktemp(request.param)
    with simulated(kind) if reality == "simulated" else servers.running(kind, work) as up:
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
