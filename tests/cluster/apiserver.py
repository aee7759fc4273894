"""The API server as one operator reaches it: a proxy that can hold a call, cut watches, and be away.

It stands before the real one with that one's certificate and takes any kubeconfig's credentials on. The tests and
everything else in the cluster go past it. What it can do to whoever goes through it:

* `hold` one write, before the API server hears of it or before its answer comes back (`tests.simulator.holds`), and
  deliver it later whether its sender still lives or not;
* `cut` every watch, or be `deaf` for so long that nobody remembers what was missed (410 Gone, as after a restart);
* be `away`: refuse connections, answer nothing, or answer 503.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import yaml
from aiohttp import web
from genrm_api.names import ANNOTATION_RELEASED, CONDITION_VERIFIED, LABEL_SERVING

from dev.cluster import Cluster
from tests.simulator.client import free_port
from tests.simulator.holds import Hold, When

T = TypeVar("T")
_PASSED_ON: Final = ("Authorization", "Content-Type", "Accept")


class Away(enum.StrEnum):
    """How an API server is away."""

    REFUSES = "refuses"
    HANGS = "hangs"
    FAILS = "fails"


@dataclass(frozen=True)
class Write:
    """A call that changes something: in which namespace, of which object, and its name in words (`_words`)."""

    namespace: str
    name: str
    call: str

    def is_of(self, model: str) -> bool:
        """Whether it is about the RewardModel or something named after it: no model's name may begin another's."""
        name = self.name.removeprefix("genrm-")
        return name == model or name.startswith((f"{model}-", f"{model}."))

    @classmethod
    def of(cls, method: str, path: str, body: bytes) -> Write | None:
        found = re.fullmatch(r"/apis?/.+/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?(?:/([^/]+))?", path)
        if method == "GET" or found is None:
            return None
        namespace, plural, name, sub = found.groups()
        document = _read(body)
        meta = document.get("metadata") or {}
        name = name or (document.get("involvedObject") or {}).get("name") or meta.get("name") or ""
        return cls(namespace, name, _words(method, plural, sub, document))


def _read(body: bytes) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError):
        document = yaml.safe_load(body) if body[:1] not in (b"{", b"") else json.loads(body or b"{}")
        return document if isinstance(document, dict) else {}
    return {}


def _words(method: str, plural: str, sub: str | None, document: Mapping[str, Any]) -> str:
    """What a write means: of the operator's patches of a pod each has a word of its own."""
    if plural == "pods" and method == "PATCH":
        meta = document.get("metadata") or {}
        conditions = (document.get("status") or {}).get("conditions") or []
        if any(c["type"] == CONDITION_VERIFIED for c in conditions):
            words = {"Gated": "pod gated", "Joined": "pod joins"}
            return next((words[c["reason"]] for c in conditions if c["reason"] in words), "pod verified")
        if LABEL_SERVING in (meta.get("labels") or {}):
            return "pod stops serving" if meta["labels"][LABEL_SERVING] is None else "pod serves"
        if ANNOTATION_RELEASED in (meta.get("annotations") or {}):
            return "pod let in"
    return f"{method} {plural}{'/' if sub else ''}{sub or ''}"


class ApiProxy:
    """Its methods may be called from any thread; it has one of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._port = free_port()
        self._loop = asyncio.new_event_loop()
        self._holds: list[tuple[str, str, Hold]] = []
        self._watches: dict[asyncio.Task[Any], str] = {}
        self._gone: set[str] = set()
        """Watches that are told that nobody remembers what they missed."""
        self._away: Away | None = None
        self._back = asyncio.Event()
        self._hears = asyncio.Event()
        self._hears.set()
        self.writes: list[Write] = []

    def __enter__(self) -> ApiProxy:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)

    def kubeconfig(self, like: Path, path: Path) -> Path:
        """Write one that is like another, and leads here."""
        config = yaml.safe_load(like.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        path.write_text(json.dumps(config))
        return path

    # -- what can be done to whoever goes through it

    def hold(self, namespace: str, model: str, call: str, when: When) -> Hold:
        """Hold the first write of this name that is about a RewardModel."""
        hold = Hold(call, when)
        self._holds.append((namespace, model, hold))
        return hold

    def let_go(self, hold: Hold) -> None:
        self._loop.call_soon_threadsafe(hold.let_go)

    def cut(self) -> int:
        """Break every watch off; return how many there were."""
        return int(self._call(self._cut()))

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Break every watch off, and let none begin; whoever comes back then has missed too much, and has to list."""
        self._hears.clear()
        try:
            self._gone |= set(self._watches.values())
            self.cut()
            yield
        finally:
            self._loop.call_soon_threadsafe(self._hears.set)

    def watches(self) -> int:
        """How many are open."""
        return len(self._watches)

    @contextlib.contextmanager
    def away(self, how: Away) -> Iterator[None]:
        self._call(self._go(how))
        try:
            yield
        finally:
            self._call(self._return())

    # -- how

    def _call(self, doing: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(timeout=30)

    async def _start(self) -> None:
        admin = yaml.safe_load(self._cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = base64.b64decode(admin["certificate-authority-data"]).decode()
        trust = ssl.create_default_context(cadata=authority)
        self._server = admin["server"]
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        pki = self._cluster.settings.pki
        identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        identity.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=identity, reuse_address=True)
        await self._site.start()

    async def _stop(self) -> None:
        for *_, hold in self._holds:
            hold.let_go()
        self._back.set()
        await self._runner.cleanup()
        await self._http.close()

    async def _go(self, how: Away) -> None:
        self._away = how
        self._back.clear()
        if how is Away.REFUSES:
            await self._site.stop()
        await self._cut()
        self._break_connections()

    async def _return(self) -> None:
        if self._away is Away.REFUSES:
            await self._listen()
        self._away = None
        self._back.set()

    def _break_connections(self) -> None:
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _cut(self) -> int:
        cut = list(self._watches)
        for task in cut:
            task.cancel()
        return len(cut)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._away is Away.FAILS:
            return web.json_response({"kind": "Status", "message": "shutting down", "code": 503}, status=503)
        if self._away is Away.HANGS:
            await self._back.wait()
        if request.query.get("watch") == "true":
            return await self._watch(request)
        body = await request.read()
        write = Write.of(request.method, request.path, body)
        if write is None:
            return await self._deliver(request, body)
        for namespace, model, hold in self._holds:
            if write.namespace == namespace and write.is_of(model) and hold.takes(write.call):
                # A task of its own: whoever sent it may be gone before it is delivered.
                carried = self._loop.create_task(self._held(hold, request, body, write))
                return await asyncio.shield(carried)
        self.writes.append(write)
        return await self._deliver(request, body)

    async def _held(self, hold: Hold, request: web.Request, body: bytes, write: Write) -> web.StreamResponse:
        async def deliver() -> web.StreamResponse:
            self.writes.append(write)
            answer = await self._deliver(request, body)
            hold.status = answer.status
            return answer

        return await hold.carry(deliver)

    async def _deliver(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._ask(request, body) as answer:
            return web.Response(status=answer.status, body=await answer.read(), headers=_kind(answer))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        await self._hears.wait()
        told = web.StreamResponse(headers={"Content-Type": "application/json"})
        if request.path in self._gone and request.query.get("resourceVersion"):
            self._gone.discard(request.path)
            await told.prepare(request)
            status = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}
            await told.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return told
        self._watches[task] = request.path
        try:
            async with self._ask(request, b"") as answer:
                told.set_status(answer.status)
                await told.prepare(request)
                async for piece in answer.content.iter_any():
                    await told.write(piece)
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            del self._watches[task]
        return told

    def _ask(self, request: web.Request, body: bytes) -> Any:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers["Accept-Encoding"] = "identity"
        return self._http.request(
            request.method, self._server + str(request.rel_url), data=body or None, headers=headers
        )


def _kind(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Content-Type": answer.headers.get("Content-Type", "application/json")}
