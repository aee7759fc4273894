"""The operator's calls to the API server: plain JSON in and out, a deadline on each, errors by meaning.

`kubernetes.aio` brings configuration, authentication and the connection pool; its generated models are left out,
because children are manifests and projections are read from JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.request import getproxies

import aiohttp
from genrm_api.names import FIELD_MANAGER, GROUP, REWARD_FLEETS, REWARD_MODELS, VERSION
from kubernetes.aio import client, config

from genrm_operator.errors import ApiError, Conflict, Expired, Forbidden, KindAbsent, NotFound, Terminating
from genrm_operator.metrics import Metrics

TIMEOUT_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 3.0
PAGE: Final = 500
"""Objects in one page of a list."""

_PATHS: Final[Mapping[str, str]] = {
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "Event": "/api/v1/namespaces/{ns}/events",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases",
    "LeaderWorkerSet": "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{ns}/leaderworkersets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies",
    "Pod": "/api/v1/namespaces/{ns}/pods",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets",
    "RewardFleet": f"/apis/{GROUP}/{VERSION}/namespaces/{{ns}}/{REWARD_FLEETS}",
    "RewardModel": f"/apis/{GROUP}/{VERSION}/namespaces/{{ns}}/{REWARD_MODELS}",
    "Service": "/api/v1/namespaces/{ns}/services",
}
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_ONLY: Final = f"{_METADATA},application/json"
"""What a watch, or who reads one object, accepts where nobody reads more."""
_METADATA_LIST: Final = _METADATA.replace("PartialObjectMetadata", "PartialObjectMetadataList")
KINDS: Final[Mapping[str, str]] = {path.rsplit("/", 1)[1]: kind for kind, path in _PATHS.items()}
"""By plural."""


class Kube:
    """One connection pool to the API server."""

    def __init__(
        self,
        api: client.ApiClient,
        may_write: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._api = api
        self._may_write = may_write
        self._metrics = metrics or Metrics()

    @classmethod
    async def connect(cls, metrics: Metrics | None = None) -> Kube:
        """In-cluster credentials if there are any, else KUBECONFIG."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        # The client lets aiohttp ask the environment for a proxy and ~/.netrc for a password, in a thread each, for
        # every call. Where no proxy is set, neither can be of use.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        configuration.connection_pool_maxsize = 0  # as many as are needed: each watch has one for itself
        return cls(client.ApiClient(configuration), metrics=metrics)

    async def close(self) -> None:
        await self._api.close()

    def guarded(self, may_write: Callable[[], None]) -> Kube:
        """The same connections, for somebody whose every write has to be allowed: `may_write` raises if it is not."""
        return Kube(self._api, may_write, self._metrics)

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        return await self._call("GET", _path(kind, namespace, name), {})

    async def list(self, kind: str, namespace: str, selector: str, *, name: str | None = None) -> list[dict[str, Any]]:
        """The metadata of those that a label selector selects, in one namespace or, if that is empty, in all.

        Args:
            name: of the only one that is meant. Who may list may not get, and need not.

        Raises:
            KindAbsent: the cluster has no such resource.
        """
        accept = f"{_METADATA_LIST},application/json"
        query = {"labelSelector": selector, **({} if name is None else {"fieldSelector": f"metadata.name={name}"})}
        answer = await self._call("GET", _folder(kind, namespace), query, accept=accept)
        return [dict(item) for item in answer["items"] or ()]  # of metadata alone, no items are null

    async def unended_pods(self, namespace: str) -> set[str]:
        """The names of a namespace's pods, without those of which every container has ended and none is begun anew.

        A kubelet calls a pod `Succeeded` or `Failed` only then, and nobody else does as long as its node is there.
        """
        query = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        answer = await self._call("GET", _folder("Pod", namespace), query, accept=f"{_METADATA_LIST},application/json")
        return {str(item["metadata"]["name"]) for item in answer["items"] or ()}

    async def list_to_watch(
        self, kind: str, namespace: str, selector: str, *, whole: bool
    ) -> tuple[Sequence[dict[str, Any]], str]:
        """What there is, in one namespace or, if that is empty, in all; and the version from which a watch goes on.

        Args:
            whole: all of each object, not only its metadata.
        """
        try:
            return await self._list_pages(kind, namespace, selector, whole=whole, limit=PAGE)
        except Expired:  # while we read: who has so much to tell may say it in one piece
            return await self._list_pages(kind, namespace, selector, whole=whole, limit=0)

    async def _list_pages(
        self, kind: str, namespace: str, selector: str, *, whole: bool, limit: int
    ) -> tuple[Sequence[dict[str, Any]], str]:
        found: list[dict[str, Any]] = []
        query = {"labelSelector": selector, **({"limit": str(limit)} if limit else {})}
        accept = "application/json" if whole else f"{_METADATA_LIST},application/json"
        more: dict[str, str] = {}
        while True:
            page = await self._call("GET", _folder(kind, namespace), {**query, **more}, accept=accept)
            found += page.get("items") or ()  # of metadata alone, none are null
            if not (token := page["metadata"].get("continue")):
                return found, str(page["metadata"]["resourceVersion"])
            more = {"continue": token}

    @asynccontextmanager
    async def watch(
        self, kind: str, namespace: str, selector: str, version: str, *, whole: bool, seconds: int, silence: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """A watch from a version on: lines of JSON, until the API server ends it after `seconds`.

        Args:
            silence: seconds without a byte after which reading ends with a TimeoutError.

        Raises:
            ApiError: it cannot be opened.
        """
        path = _folder(kind, namespace)
        query = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        headers = {"Accept": "application/json" if whole else METADATA_ONLY}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence)
        call = f"GET {path}?watch"
        try:
            verb, url, headers, _, form = await self._api.param_serialize(
                "GET", path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
            )
            response = await self._api.call_api(verb, url, headers, None, form, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(call, 0, f"{type(error).__name__}: {error}") from error
        try:
            if response.status != 200:
                raise _error(call, response.status, await response.read())
            yield response.response.content
        finally:
            response.response.close()

    async def list_whole(self, kind: str, namespace: str) -> Sequence[dict[str, Any]]:
        """All of a kind, with all that they have, in one namespace or, if that is empty, in all.

        Raises:
            KindAbsent: the cluster has no such resource.
        """
        answer = await self._call("GET", _folder(kind, namespace), {})
        return [dict(item) for item in answer["items"]]

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The answer has metadata at least.

        Raises:
            Conflict: it exists.
        """
        kind = manifest["kind"]
        path = _PATHS[kind].format(ns=manifest["metadata"]["namespace"])
        return await self._call("POST", path, {"fieldManager": FIELD_MANAGER}, manifest, accept=_accept(kind))

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply under our field manager; conflicts are ours to win. The answer has metadata at least.

        What is immutable is created instead, if it is not there: the API server reads an apply as YAML, and a door is
        tens of kilobytes.
        """
        if manifest.get("immutable"):
            try:
                return await self.create(manifest)
            except Conflict:
                pass  # it is there, and not as our watch wants to see it
        return await self._apply(manifest, "", _accept(manifest["kind"]))

    async def apply_status(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self._apply(manifest, "/status")

    async def _apply(
        self, manifest: Mapping[str, Any], subresource: str, accept: str = "application/json"
    ) -> dict[str, Any]:
        path = _path(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]) + subresource
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, manifest, "application/apply-patch+yaml", accept)

    async def merge_patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        path = _path(kind, namespace, name)
        return await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, "application/merge-patch+json")

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete the object that has this uid, and what it owns after it; one that came after it under its name stays.

        Raises:
            NotFound: it is gone.
            Conflict: another one has its name.
        """
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._call("DELETE", _path(kind, namespace, name), {}, body)

    async def set_pod_condition(self, namespace: str, name: str, condition: Mapping[str, Any]) -> dict[str, Any]:
        """Set one condition in a pod's status; those of others stay (a strategic merge goes by their type)."""
        path, patch = f"{_path('Pod', namespace, name)}/status", {"status": {"conditions": [dict(condition)]}}
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", path, query, patch, "application/strategic-merge-patch+json")

    async def create_event(
        self, regarding: Mapping[str, Any], reason: str, note: str, *, warning: bool = False
    ) -> None:
        """Record a Kubernetes Event on an object; `note` is cut at the API's 1 kB.

        A core/v1 Event: `kubectl describe` sorts by `lastTimestamp`, which events.k8s.io/v1 does not let one set.
        Named by its time, as client-go does, so that those of one second are listed in order too.
        """
        now = datetime.now(UTC)
        namespace, name = regarding["namespace"], regarding["name"]
        seconds = now.isoformat(timespec="seconds").replace("+00:00", "Z")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{time.time_ns():x}", "namespace": namespace},
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "count": 1,
            "source": {"component": f"{GROUP}/operator"},
            "reason": reason,
            "message": note[:1000],
            "type": "Warning" if warning else "Normal",
            "involvedObject": dict(regarding),
        }
        await self._call("POST", _PATHS["Event"].format(ns=namespace), {}, body)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        if method != "GET":
            self._may_write()
        headers = {"Accept": accept, "Content-Type": content_type}
        call = f"{method} {path}"
        status, began = 0, time.monotonic()
        try:
            verb, url, headers, _, form = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                auth_settings=["BearerToken"],
            )
            # The body is plain already: the client would walk through all of it to make sure.
            response = await self._api.call_api(verb, url, headers, body, form, _request_timeout=TIMEOUT_SECONDS)
            data, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(call, 0, f"{type(error).__name__}: {error}") from error
        finally:
            self._metrics.called(*_verb_and_kind(method, path), status, time.monotonic() - began)
        if 200 <= response.status < 300:
            return dict(json.loads(data))
        raise _error(call, response.status, data)


def _folder(kind: str, namespace: str) -> str:
    return _PATHS[kind].format(ns=namespace) if namespace else _PATHS[kind].replace("/namespaces/{ns}", "")


def _path(kind: str, namespace: str, name: str) -> str:
    return f"{_PATHS[kind].format(ns=namespace)}/{name}"


def _accept(kind: str) -> str:
    """The form of an answer: of most children nobody reads more than the metadata, and a door is long."""
    return "application/json" if kind in ("Deployment", "Lease") else METADATA_ONLY


def _verb_and_kind(method: str, path: str) -> tuple[str, str]:
    """What a call is to RBAC, for the metrics: `("patch", "RewardModel/status")`."""
    plural, *name = path.partition("/namespaces/")[2].split("/")[1:] or path.split("/")[-1:]
    verb = "list" if method == "GET" and not name else {"POST": "create"}.get(method, method.lower())
    return verb, "/".join((KINDS[plural], *name[1:]))


def _error(call: str, status: int, data: bytes) -> ApiError:
    try:
        document = json.loads(data)
        message = str(document["message"])
        causes = [cause.get("reason") for cause in (document.get("details") or {}).get("causes") or []]
    except (ValueError, KeyError, TypeError):
        message, causes = data[:300].decode(errors="replace"), []
        if status == 404:  # of an object that is not there the API server says so in a document
            return KindAbsent(call, status, "the cluster has no such resource")
    if "NamespaceTerminating" in causes:
        return Terminating(call, status, message)
    kind = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired}.get(status, ApiError)
    return kind(call, status, message)
