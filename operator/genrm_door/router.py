"""The command of a router pod: start sglang-router, and keep its workers as the operator says.

    python3 /genrm/door/genrm_door.pyz router --port 8000 --warden-port 8001 -- <the router's own arguments>

The router's own discovery (0.3.2) neither sees a label go nor a pod deleted, so it would send to engines that sleep. So
the operator, which knows who serves, tells this *warden* the whole list, and the warden makes the router's list equal:
level-triggered, safe to repeat. Scoring goes to the router itself. Its control plane (`/workers` and the like) opens
only to a key that is made here, at each start, and never leaves the pod.

| warden route | who | answer |
|---|---|---|
| `GET /health` | everybody | 200 while the router lives, else 503 |
| `GET /genrm/router` | the operator's token | the document |
| `PUT /genrm/router` `{"workers": [url, ...]}` | the same, under the highest epoch so far | the document, afterwards |

The document: `{"version": 1, "bootId": str, "workers": [url, ...]}`, workers as the router has them. Everything else is
404. The standard library only, like the door; this file runs as a script.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

PATH = "/genrm/router"
MAX_PUT_BYTES = 1 << 20
SETTLE_SECONDS = 4.0
"""How long the router may take to have taken in or let go of workers before the warden answers with what there is."""
POLL_SECONDS = 0.02


class RouterError(Exception):
    """The router did not answer, or not as it should."""


class Router:
    """The router's control plane, over loopback."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key

    def lives(self) -> bool:
        try:
            return self._call("GET", "/liveness")[0] == 200
        except RouterError:
            return False

    def workers(self) -> dict[str, str]:
        """url → the id that the router knows it by."""
        status, document = self._call("GET", "/workers")
        if status != 200:
            raise RouterError(f"GET /workers: {status}")
        return {worker["url"]: worker["id"] for worker in document["workers"]}

    def settle(self, wanted: Iterable[str]) -> list[str]:
        """Make the router's list equal to `wanted` and return it; after `SETTLE_SECONDS` as far as it has come."""
        wanted = set(wanted)
        there = self.workers()
        for url in sorted(wanted - set(there)):
            self._accepted("POST", "/workers", {"url": url})
        for url in sorted(set(there) - wanted):
            self._accepted("DELETE", f"/workers/{there[url]}")
        deadline = time.monotonic() + SETTLE_SECONDS
        while set(there := self.workers()) != wanted and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return sorted(there)

    def _accepted(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        status, document = self._call(method, path, body)
        # 404 for one that has gone by itself, 409 for one that is on its way: the next look tells
        if status >= 300 and status not in (404, 409):
            raise RouterError(f"{method} {path}: {status} {document}")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2.0)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise RouterError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")


class Warden(http.server.ThreadingHTTPServer):
    """`token_sha256`: hex digest of the operator's token; empty: nobody is the operator."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], router: Router, token_sha256: str) -> None:
        super().__init__(address, _Handler)
        self.router, self.token_sha256 = router, token_sha256
        self.boot_id = secrets.token_hex(8)
        self.epoch: int | None = None
        self.turn = threading.Lock()

    def is_operator(self, headers: Sequence[str]) -> bool:
        if len(headers) != 1 or not headers[0].startswith("Bearer ") or not self.token_sha256:
            return False
        digest = hashlib.sha256(headers[0].removeprefix("Bearer ").encode()).hexdigest()
        return hmac.compare_digest(digest, self.token_sha256)

    def obeys(self, epoch: str | None) -> bool:
        """Whether an order of this leadership is followed: of the highest so far; of none only before the first."""
        if epoch is None:
            return self.epoch is None
        if not (epoch.isascii() and epoch.isdigit()) or (self.epoch is not None and int(epoch) < self.epoch):
            return False
        self.epoch = int(epoch)
        return True

    def document(self, workers: Iterable[str]) -> dict[str, Any]:
        return {"version": 1, "bootId": self.boot_id, "workers": sorted(workers)}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Warden
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if self.path == "/health":
            lives = self.server.router.lives()
            self._answer(200 if lives else 503, {"router": "alive" if lives else "says nothing"})
        elif self._for_operator():
            self._with_router(lambda: self.server.document(self.server.router.workers()))

    def do_PUT(self) -> None:
        if not self._for_operator():
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= MAX_PUT_BYTES:
                raise ValueError(f"{length} bytes")
            workers = json.loads(self.rfile.read(length))["workers"]
            if not isinstance(workers, list) or not all(
                isinstance(w, str) and w.startswith("http://") for w in workers
            ):
                raise ValueError("workers")
        except (ValueError, KeyError, TypeError) as error:
            self.close_connection = True
            self._answer(400, {"error": f'write {{"workers": ["http://address:port", ...]}} ({error!r})'})
            return
        with self.server.turn:
            if not self.server.obeys(self.headers.get("genrm-epoch")):
                self._answer(409, {"error": f"leadership {self.server.epoch} has spoken: this order is older"})
                return
            self._with_router(lambda: self.server.document(self.server.router.settle(workers)))

    def _for_operator(self) -> bool:
        if self.path == PATH and self.server.is_operator(self.headers.get_all("Authorization") or []):
            return True
        self.close_connection = True
        self._answer(404, {"error": "not found"})
        return False

    def _with_router(self, make: Any) -> None:
        try:
            self._answer(200, make())
        except (RouterError, KeyError, TypeError) as error:
            self._answer(502, {"error": f"the router: {error}"})

    def _answer(self, status: int, document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every second: nobody wants a line for each."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="router.py", description="Start sglang-router and keep its workers.")
    parser.add_argument("--port", type=int, required=True, help="where the router listens")
    parser.add_argument("--warden-port", type=int, required=True, help="where the operator and the kubelet ask")
    own, separator, rest = argv, "", []
    if "--" in argv:
        at = list(argv).index("--")
        own, separator, rest = argv[:at], "--", list(argv[at + 1 :])
    options = parser.parse_args(own)
    if not separator:
        parser.error("put the router's arguments behind --")
    key = secrets.token_urlsafe(32)
    command = [sys.executable, "-m", "sglang_router.launch_router", "--host", "0.0.0.0", "--port", str(options.port)]
    sys.stderr.write(f"genrm: starting {' '.join([*command[1:], *rest])}\n")
    child = subprocess.Popen([*command, *rest, "--control-plane-api-keys", f"genrm:genrm:admin:{key}"])

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    digest = os.environ.get("GENRM_TOKEN_SHA256", "").strip().lower()
    warden = Warden(("", options.warden_port), Router(options.port, key), digest)
    threading.Thread(target=warden.serve_forever, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status  # as a shell says that a signal ended it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
