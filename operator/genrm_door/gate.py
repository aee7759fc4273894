"""The start gate: a container that must not start its engine before the operator says so.

Where replicas share GPUs, an engine that starts takes memory that another one may still hold. So the launcher listens
on the engine's own port first and answers what an engine without a request could answer: it lives, its door is `gated`.
The operator's `PUT /genrm/door {"state": "closed"}` is the release: the gate says yes, lets go of the port, and the
launcher becomes the engine, whose door starts `closed`, under the same boot id and with the same memory of leaderships.
An engine whose door is told `gated` ends, and its container is back here (`rebirth`).

It stands in the engine's container because init containers do not run again when a container restarts, and the memory
must be asked for again then.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from genrm_door.nvml import DeviceMemory, Meter, device_memory
from genrm_door.record import Record, Refused, State
from genrm_door.routes import ROUTES, Kind
from genrm_door.settings import Settings
from genrm_door.wire import MAX_BODY_BYTES, NOT_FOUND, digest_of, is_one_of, leadership, wanted_state

START_GATE_ENV = "GENRM_START_GATE"
HEADERS = ("authorization", "genrm-boot-id", "genrm-epoch")
"""What the gate reads of a request's headers."""
CLIENT_SECONDS = 5.0
"""How long a client may take over a request: each one holds a thread."""

Said = tuple[int, dict[str, Any]]
UNKNOWN: Said = (404, json.loads(NOT_FOUND))


class Gate:
    """What the gate answers. Requests come in threads, and one at a time gets its answer."""

    def __init__(self, settings: Settings, gpus: Callable[[], DeviceMemory | None] = device_memory) -> None:
        self.settings = settings
        self._gpus = Meter(gpus)
        self.routes = ROUTES[settings.engine]
        self.record = Record(settings.boot_id, settings.engine, settings.revision)
        self.record.take_over(settings.remembered())
        self.record.state = State.GATED
        self._lock = threading.Lock()

    @property
    def released(self) -> bool:
        return self.record.state is not State.GATED

    def answer(self, method: str, target: str, headers: Mapping[str, Sequence[bytes]], body: bytes) -> Said:
        """`headers`: the values of each of `HEADERS`."""
        tokens = headers["authorization"]
        path, _, query = target.partition("?")
        kind = self.routes.table.get((method, path))
        state = self.record.state.value
        if kind is None or len(tokens) > 1:
            return UNKNOWN
        if kind is Kind.HEALTH:
            return 200, {"engine": "not started", "state": state}
        if kind in (Kind.SCORING, Kind.OPEN, Kind.SHOWN):
            return 503, {"error": f"the door is {state}: ask another replica, or again later", "state": state}
        if kind is Kind.TERMINATE and is_one_of(digest_of(tokens), (self.settings.local_sha256,)):
            with self._lock:
                self.record.terminate(admit=query == "admit=1")
            return 200, {"state": state, "inside": 0}
        if kind is Kind.TERMINATE or not is_one_of(digest_of(tokens), (self.settings.token_sha256,)):
            return UNKNOWN
        if kind is not Kind.DOOR:
            return 503, {"error": "the engine is not started: release it first", "state": state}
        try:
            asked = method == "GET" and query == "memory=1"
            found = self._gpus.within(self.settings.word_seconds) if asked else None
            with self._lock:
                if method == "PUT":
                    self._release(headers, body)
                if asked:
                    self.record.measured(None if found is None else found.used, None)
                document = self.record.document(None)
            if asked:
                document["deviceMemory"] = None if found is None else found._asdict()
            return 200, document
        except Refused as refused:
            return 409, {"error": str(refused), "state": state}
        except ValueError as error:
            return 400, {"error": str(error), "state": state}

    def _release(self, headers: Mapping[str, Sequence[bytes]], body: bytes) -> None:
        self.record.meant(headers["genrm-boot-id"])
        self.record.obey(leadership(headers["genrm-epoch"]))
        state = wanted_state(body)
        self.record.check(state)
        if not self.released and state is not State.GATED:
            self.record.state = state
            self.record.note("PUT closed", 200)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection: whoever comes next meets the engine."""

    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SECONDS
    gate: Gate

    def _answer(self) -> None:
        words = self.requestline.split(" ")  # self.path is tidied up, and only the exact bytes count
        headers = {
            name: [value.encode("latin-1", "replace") for value in self.headers.get_all(name, ())] for name in HEADERS
        }
        said, document = self.gate.answer(words[0], words[1], headers, self._body())
        try:
            self._say(said, json.dumps(document, separators=(",", ":")).encode())
        finally:  # also when the operator did not wait for its answer: it was a release
            if self.gate.released:
                self.server.shutdown()

    def _say(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        if status == 503:
            self.send_header("retry-after", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer

    def _body(self) -> bytes:
        """What is read of a body; a judgement that is too long for that is refused without being read to its end."""
        length = self.headers.get("content-length", "0")
        known = length.isascii() and length.isdigit() and len(length) < 10
        return self.rfile.read(min(int(length), MAX_BODY_BYTES + 1)) if known else b""

    def version_string(self) -> str:
        """In the server's own error pages; the versions of Python and its server are nobody's affair."""
        return "genrm"

    def log_message(self, format: str, *args: Any) -> None:
        """Kubelet asks every second: nobody wants to read that."""


def wait(settings: Settings, host: str, port: int) -> str:
    """Answer on the engine's port until the operator releases the engine; what its door is to remember, as JSON.

    SIGTERM ends the process: as number 1 of its container it would otherwise never hear of it.
    """
    gate = Gate(settings)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    server = ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"gate": gate}), bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = _listen(host, port)
    sys.stderr.write(f"genrm: waiting at port {port} for the operator's release\n")
    sys.stderr.flush()
    with server:
        server.serve_forever(poll_interval=0.05)
    signal.signal(signal.SIGTERM, before)
    return json.dumps(gate.record.hand_over())


def _listen(host: str, port: int) -> socket.socket:
    """Where the engine will listen: at `host`, or everywhere."""
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        except OSError:  # a node without IPv6
            pass
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)
