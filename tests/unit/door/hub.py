"""A hub on this machine: the one route of huggingface.co by which a branch becomes a commit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILES = {"model-1.safetensors": 4_000_000_000, "model-2.safetensors": 1_000_000_000, "pytorch_model.bin": 7, "a.md": 9}


@dataclass
class Hub:
    """`commits`: what every branch is, one word for each time that somebody asks; the last one stays."""

    url: str
    commits: list[str] = field(default_factory=list)
    status: int = 200
    sizes: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Target and `Authorization` of each request."""

    def answer(self, target: str) -> tuple[int, object]:
        repository, _, asked = target.removeprefix("/api/models/").partition("/revision/")
        revision = asked.removesuffix("?blobs=true")
        if self.status != 200:
            return self.status, {"error": "told to"}
        if len(revision) != 40:
            revision = self.commits.pop(0) if len(self.commits) > 1 else self.commits[0]
        sizes = [{"rfilename": name, **({"size": size} if self.sizes else {})} for name, size in FILES.items()]
        return 200, {"id": repository, "sha": revision, "siblings": sizes}


@contextmanager
def hub(commits: Sequence[str]) -> Iterator[Hub]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                made.asked.append((self.path, self.headers.get("Authorization")))
                status, document = made.answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", f"/elsewhere{self.path}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The test says what it needs to."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Hub(f"http://127.0.0.1:{server.server_address[1]}", list(commits))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(10)
