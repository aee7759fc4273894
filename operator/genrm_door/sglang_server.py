"""SGLang's own HTTP server with the door around its application: `python -m genrm_door.sglang_server <its arguments>`.

SGLang has no option for a middleware, so this is its `launch_server` with one line more. The door goes around the
finished middleware stack, because SGLang adds middlewares of its own until the moment it serves. Whatever would serve
the engine through another process or protocol is refused: it would stand beside the door.

The engine's worker processes import this file too, under another name; SGLang itself is imported in `main` only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from genrm_door.asgi import Door

BESIDE_THE_DOOR: Mapping[str, Any] = {
    "smg_grpc_mode": False,
    "grpc_mode": False,
    "grpc_port": None,
    "encoder_only": False,
    "use_ray": False,
    "enable_http2": False,
    "tokenizer_worker_num": 1,
    "node_rank": 0,
    # The door is what keeps strangers out; SGLang's own keys lie open in /server_info and on the command line.
    "api_key": None,
    "admin_api_key": None,
}
"""Arguments of SGLang's server, and the one value each of them may have."""


def refused(arguments: Any) -> str | None:
    """Why a server with these arguments would not be behind the door; None if it is."""
    for name, only in BESIDE_THE_DOOR.items():
        if (found := getattr(arguments, name, only)) != only:
            shown = "is set" if name.endswith("api_key") else f"is {found!r}"
            return f"--{name.replace('_', '-')} {shown}: such a server is not behind the door; remove it"
    return None


def put_door_around(app: Any) -> None:
    """Make `app`, a Starlette application that has not served yet, build its middleware stack inside a door."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Door(build())


def main(argv: list[str]) -> None:
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    arguments = prepare_server_args(argv)
    if (why := refused(arguments)) is not None:
        sys.exit(f"genrm: {why}")
    from sglang.srt.entrypoints import http_server

    put_door_around(http_server.app)
    try:
        http_server.launch_server(arguments)
    except SystemExit as end:
        # When a worker dies SGLang kills itself. The first process of a container cannot, and would leave with 0.
        sys.exit(end.code or 1)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main(sys.argv[1:])
