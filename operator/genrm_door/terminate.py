"""The pod's preStop hook: close the door, and wait until nobody is inside.

    python3 /genrm/door/genrm_door.pyz terminate --port 8000 --linger 2 --seconds 60

Kubernetes takes a pod that is being deleted out of its Services while this runs, and clients learn of it a moment
later. For that moment (`--linger`) the door still lets them in, and tells each to close its connection. Then it drains:
who comes is sent elsewhere at once, who is inside has `--seconds` to finish. Only after that the engine gets SIGTERM.

An engine that is dead, or does not answer, has nobody inside who could still be answered: it is not waited for.

It runs as a script and uses nothing but the standard library.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
ANSWER_SECONDS = 3.0
"""A busy engine answers late; its own health check has 2 s."""
DEAD_AFTER = 5
"""Looks in a row at which the engine did not answer, or was dead."""


class Gone(Exception):
    """Nobody listens: there is no engine, or not yet."""


class Pod:
    """The door of this pod, over loopback."""

    def __init__(self, port: int, secret: str) -> None:
        self.port = port
        self.secret = secret

    def terminate(self, *, admit: bool = False) -> Mapping[str, Any] | None:
        """Tell the door, and hear its state and who is inside; None if it says nothing of use."""
        status, body = self._ask("POST", "/genrm/terminate?admit=1" if admit else "/genrm/terminate")
        document = json.loads(body) if status == 200 else None
        return document if isinstance(document, dict) else None

    def lives(self) -> bool:
        return self._ask("GET", "/health")[0] == 200

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {self.secret}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError as error:
            raise Gone from error
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def run(pod: Pod, linger: float, seconds: float) -> str | None:
    """Wait for those inside; None if all have left, else a sentence about those who have not."""
    first = pod.terminate(admit=True)
    if first is not None and first["state"] == "serving":
        time.sleep(linger)
    dead, document = 0, pod.terminate()
    end = time.monotonic() + seconds
    looked = time.monotonic()
    while document is None or document["inside"]:
        if time.monotonic() >= end:
            return f"{document['inside'] if document else 'unknown'} requests were still inside after {seconds:g} s"
        if time.monotonic() - looked >= 1.0:
            looked = time.monotonic()
            dead = 0 if document is not None and pod.lives() else dead + 1
            if dead == DEAD_AFTER:
                return "the engine is dead: whoever was inside is not waited for"
        time.sleep(POLL_SECONDS)
        document = pod.terminate()
    return None


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="terminate.py", description="Drain this pod before its engine is stopped.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--linger", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(argv)
    try:
        secret = (Path(os.environ["GENRM_RUN_DIR"]) / "secret").read_text()
        trouble = run(Pod(options.port, secret), options.linger, options.seconds)
    except (Gone, FileNotFoundError):
        return 0
    if trouble is not None:
        sys.stderr.write(f"genrm: {trouble}\n")
    return 0 if trouble is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
