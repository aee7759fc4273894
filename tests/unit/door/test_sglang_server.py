"""SGLang's server is wrapped as a whole, and refused where another server would stand beside the door."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import genrm_door
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


STOCK_MODULES = {
    "sglang/srt/plugins.py": "def load_plugins(): pass",
    "sglang/srt/server_args.py": "from types import SimpleNamespace\n"
    "def prepare_server_args(argv): return SimpleNamespace(tokenizer_worker_num=int(argv[0]), end=argv[1])",
    "sglang/srt/utils.py": "def kill_process_tree(pid, include_parent): print('workers ended')",
    "sglang/srt/entrypoints/http_server.py": """
import sys
class app:
    def build_middleware_stack(): return "everything"
def launch_server(arguments):
    print(type(app.build_middleware_stack()).__name__)
    if arguments.end != "well": sys.exit(int(arguments.end))
""",
}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["1", "well"], 0, ["Door", "workers ended"]),
        (["1", "0"], 1, ["Door", "workers ended"]),  # what SGLang does in a container when a worker died
        (["1", "3"], 3, ["Door", "workers ended"]),
        (["2", "well"], 1, []),
    ],
)
def test_a_server_that_ends_itself_does_not_say_that_all_is_well(
    tmp_path: Path, arguments: list[str], status: int, said: list[str]
) -> None:
    for name, text in STOCK_MODULES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    root = Path(genrm_door.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "genrm_door.sglang_server", *arguments],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}", "GENRM_ENGINE": "sglang"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (status, said), done.stderr
