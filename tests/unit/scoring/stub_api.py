"""An HTTP server with the few paths of the Kubernetes API that our client uses, and faults on demand.

It proves that our client speaks the protocol; what a real API server does with it, the cluster tier shows.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web


class StubApi:
    """`denied` maps a verb to the status that it is answered with. `served` are the API groups that exist."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.denied: dict[str, int] = {}
        self.served = {"", "genrm.dev", "discovery.k8s.io", "coordination.k8s.io", "authentication.k8s.io"}
        self.requests: list[tuple[str, str]] = []
        self.patch_types: set[str] = set()
        self.watched = asyncio.Event()
        self.patched = asyncio.Event()
        self.url = ""
        self._watches: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/apis/{group}/{version}/namespaces/{namespace}/{plural}", self._collection)
        app.router.add_route("*", "/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", self._object)
        app.router.add_get("/api/{version}/namespaces/{namespace}/{plural}/{name}", self._object)
        app.router.add_post("/apis/{group}/v1/selfsubjectreviews", self._who_am_i)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def put(self, plural: str, namespace: str, name: str, **fields: Any) -> None:
        obj = {"metadata": {"name": name, "namespace": namespace, "resourceVersion": "7"}, **fields}
        self.objects[plural, namespace, name] = obj
        self.send({"type": "ADDED", "object": obj})

    def send(self, event: dict[str, Any] | None) -> None:
        """To every open watch; `None` ends them."""
        for watch in self._watches:
            watch.put_nowait(event)

    def kubeconfig(self, path: Path, namespace: str = "rl") -> Path:
        return write_kubeconfig(path, self.url, namespace)

    async def _who_am_i(self, http: web.Request) -> web.StreamResponse:
        if (refused := self._refused(http, "review")) is not None:
            return refused
        return web.json_response({**await http.json(), "status": {"userInfo": {"username": "ada"}}}, status=201)

    async def _collection(self, http: web.Request) -> web.StreamResponse:
        plural, namespace = http.match_info["plural"], http.match_info["namespace"]
        verb = {"GET": "watch" if http.query.get("watch") else "list", "POST": "create"}[http.method]
        if (refused := self._refused(http, verb)) is not None:
            return refused
        if verb == "watch":
            return await self._watch(http)
        if verb == "create":
            obj = await http.json()
            key = (plural, namespace, obj["metadata"]["name"])
            if key in self.objects:
                return _status(409, "already exists")
            self.objects[key] = obj
            return web.json_response(obj, status=201)
        items = [o for (p, ns, _), o in self.objects.items() if (p, ns) == (plural, namespace)]
        return web.json_response({"items": items, "metadata": {"resourceVersion": "7"}})

    async def _object(self, http: web.Request) -> web.StreamResponse:
        key = (http.match_info["plural"], http.match_info["namespace"], http.match_info["name"])
        verb = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}[http.method]
        if (refused := self._refused(http, verb)) is not None:
            return refused
        if key not in self.objects:
            return _status(404, f"{key[0]} {key[2]} not found")
        if verb == "delete":
            return web.json_response(self.objects.pop(key))
        if verb == "patch":
            self.patch_types.add(http.content_type)
            _merge(self.objects[key], await http.json())
            self.patched.set()
        return web.json_response(self.objects[key])

    async def _watch(self, http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._watches.append(queue)
        self.watched.set()
        while (event := await queue.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def _refused(self, http: web.Request, verb: str) -> web.Response | None:
        self.requests.append((verb, http.path))
        if http.match_info.get("group", "") not in self.served:
            return web.Response(status=404, text="404 page not found")
        if verb in self.denied:
            return _status(self.denied[verb], f'User "ada" cannot {verb}')
        return None


def write_kubeconfig(path: Path, server: str, namespace: str = "rl") -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "ada", "namespace": namespace}}],
        "clusters": [{"name": "stub", "cluster": {"server": server}}],
        "users": [{"name": "ada", "user": {"token": "let-me-in"}}],
    }
    path.write_text(json.dumps(config))
    return path


def reward_model(**spec: Any) -> dict[str, Any]:
    """The fields of a RewardModel beside its metadata."""
    return {
        "apiVersion": "genrm.dev/v1alpha1",
        "kind": "RewardModel",
        "spec": {"model": {"uri": "hf://org/judge"}, **spec},
    }


def endpoint_slice(*pods: str, port: int = 8000, ready: bool = True, address: str = "10.0.0.{}") -> dict[str, Any]:
    """The fields of an EndpointSlice beside its metadata; pod `judge-3` is at 10.0.0.3."""
    endpoints = [
        {
            "addresses": [address.format(pod.rpartition("-")[2])],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"},
        }
        for pod in pods
    ]
    return {"addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints}


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value
