"""The operator's calls to the API server: plain JSON in and out, a deadline on each, errors by meaning.

`kubernetes.aio` brings configuration, authentication and the connection pool; its generated models are left out,
because children are manifests and projections are read from JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from genrm_api.names import FIELD_MANAGER, GROUP, REWARD_MODELS, VERSION
from kubernetes.aio import client, config

from genrm_operator.errors import ApiError, Conflict, Forbidden, NotFound, Terminating

TIMEOUT_SECONDS: Final = 10.0

_PATHS: Final[Mapping[str, str]] = {
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "Event": "/api/v1/namespaces/{ns}/events",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases",
    "Pod": "/api/v1/namespaces/{ns}/pods",
    "RewardModel": f"/apis/{GROUP}/{VERSION}/namespaces/{{ns}}/{REWARD_MODELS}",
    "Service": "/api/v1/namespaces/{ns}/services",
}


class Kube:
    """One connection pool to the API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls) -> Kube:
        """In-cluster credentials if there are any, else KUBECONFIG."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply under our field manager; conflicts are ours to win."""
        return await self._apply(manifest, "")

    async def apply_status(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self._apply(manifest, "/status")

    async def _apply(self, manifest: Mapping[str, Any], subresource: str) -> dict[str, Any]:
        path = _path(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]) + subresource
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def merge_patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        path = _path(kind, namespace, name)
        return await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, "application/merge-patch+json")

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
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        call = f"{method} {path}"
        try:
            params = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*params, _request_timeout=TIMEOUT_SECONDS)
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(call, 0, f"{type(error).__name__}: {error}") from error
        if 200 <= response.status < 300:
            return dict(json.loads(data))
        raise _error(call, response.status, data)


def _path(kind: str, namespace: str, name: str) -> str:
    return f"{_PATHS[kind].format(ns=namespace)}/{name}"


def _error(call: str, status: int, data: bytes) -> ApiError:
    try:
        document = json.loads(data)
        message = str(document["message"])
        causes = [cause.get("reason") for cause in (document.get("details") or {}).get("causes") or []]
    except (ValueError, KeyError, TypeError):
        message, causes = data[:300].decode(errors="replace"), []
    if "NamespaceTerminating" in causes:
        return Terminating(call, status, message)
    kind = {403: Forbidden, 404: NotFound, 409: Conflict}.get(status, ApiError)
    return kind(call, status, message)
