"""SGLang's server is wrapped as a whole, and refused where another server would stand beside the door."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from genrm_door.asgi import Receive, Scope, Send
from genrm_door.sglang_server import BESIDE_THE_DOOR, put_door_around, refused

from tests.unit.door.support import Client

STOCK = {"tokenizer_worker_num": 1, "node_rank": 0, "grpc_mode": False, "grpc_port": None, "api_key": None}


class Application:
    """Builds its middleware stack with the first call, as Starlette's applications do."""

    def __init__(self) -> None:
        self.stack: Callable[..., Any] | None = None

    def build_middleware_stack(self) -> Callable[..., Any]:
        async def everything(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        return everything

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.stack is None:
            self.stack = self.build_middleware_stack()
        await self.stack(scope, receive, send)


async def test_the_door_is_outside_of_all_that_the_application_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRM_ENGINE", "sglang")
    app = Application()
    put_door_around(app)
    client = Client(app)
    statuses = {path: (await client.get(path)).status for path in ("/v1/models", "/release_memory_occupation", "/docs")}
    assert statuses == {"/v1/models": 200, "/release_memory_occupation": 404, "/docs": 404}


def test_a_stock_server_is_behind_the_door() -> None:
    assert refused(SimpleNamespace(**STOCK)) is None


@pytest.mark.parametrize("name", BESIDE_THE_DOOR)
def test_whatever_serves_beside_the_door_is_refused_and_no_secret_is_shown(name: str) -> None:
    why = refused(SimpleNamespace(**{**STOCK, name: "4711"}))
    assert why is not None
    assert f"--{name.replace('_', '-')} is " in why
    assert ("4711" in why) is not name.endswith("api_key")
