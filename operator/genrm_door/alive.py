"""The pod's liveness probe: whether the engine lives, or may still take its time to start.

    python3 /genrm/door/genrm_door.pyz alive --port 8000 --startup-seconds 600

The kubelet's startup probe knows one start of a container. An engine that waited at the gate starts after that probe
has succeeded, and nothing listens while it loads: for so long (`--startup-seconds`, from its release) it lives, though
it does not say so. From its first answer on it has to answer.

It runs as a script and uses nothing but the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUN_DIR_ENV = "GENRM_RUN_DIR"
ANSWER_SECONDS = 8.0
LOADING = "loading"
"""A file in the run folder: an engine was released and has not answered yet. When that was, in monotonic seconds."""


def begin_to_load(folder: str | None) -> None:
    """Note that the engine was released."""
    if folder:
        (Path(folder) / LOADING).write_text(str(time.monotonic()))


def forget(folder: str | None) -> None:
    """There is no engine that could be loading, or it has answered."""
    if folder:
        (Path(folder) / LOADING).unlink(missing_ok=True)


def why_dead(port: int, folder: str | None, startup_seconds: float) -> str | None:
    """None while it lives."""
    status, said = _health(port)
    if status == 200:
        if said.get("engine") != "not started":  # the gate's word
            forget(folder)
        return None
    since = None
    with contextlib.suppress(OSError, ValueError):
        since = float((Path(folder or "") / LOADING).read_text())
    if since is None:
        return f"/health answers {status}" if status else "/health does not answer"
    took = time.monotonic() - since
    return None if took < startup_seconds else f"released {took:.0f} s ago, and not up within {startup_seconds:g} s"


def _health(port: int) -> tuple[int, dict[str, Any]]:
    """The status, 0 if there is none; and the document."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        document = json.loads(answer.read() or b"{}")
        return answer.status, document if isinstance(document, dict) else {}
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        connection.close()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="alive.py", description="Say whether this pod's engine lives.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--startup-seconds", type=float, required=True)
    options = parser.parse_args(argv)
    why = why_dead(options.port, os.environ.get(RUN_DIR_ENV), options.startup_seconds)
    if why is not None:
        sys.stderr.write(f"genrm: {why}\n")
    return 0 if why is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
